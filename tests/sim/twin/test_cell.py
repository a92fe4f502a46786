"""The cell file is read strictly and written whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robot_datasets.mapping import ConfigError, from_mapping, to_mapping
from robot_sim.rotations import quaternion_to_matrix
from robot_sim.twin.cell import Cell, cell_names, load_cell, write_cell
from robot_sim.twin.scene import CellScene


@pytest.fixture
def values():
    """The cell that comes along as a plain tree."""
    return to_mapping(load_cell("tabletop_push_t"))


def test_the_shipped_cells_build():
    """Every cell that comes along is a scene with its parameters in it."""
    for name in cell_names():
        cell = load_cell(name)
        scene = CellScene(cell, timestep=0.004)
        assert all(scene.mass(body) == pytest.approx(known.mass) for body, known in cell.objects.items())


@pytest.mark.parametrize(
    ("where", "key", "wrong", "message"),
    [
        ((), "frictoin", 1.0, "unknown key 'frictoin'"),
        (("objects", "block"), "frictions", 1.0, "did you mean 'friction'"),
        (("objects", "block"), "mass", -1.0, "mass: got -1.0, expected a finite number above 0"),
        (
            ("objects", "block"),
            "friction",
            float("inf"),
            "friction: got inf, expected a finite number above 0",
        ),
        (
            ("objects", "block"),
            "friction",
            float("nan"),
            "friction: got nan, expected a finite number above 0",
        ),
        (("objects", "block"), "motion", "flat", "unknown value 'flat'"),
        (("rates",), "physics", 250.0, "a multiple of rates.twin"),
        (("latency",), "objects", 3.0, "0 to 1 s"),
        (("cameras", "top"), "quaternion", [1.0, 1.0, 0.0, 0.0], "quaternion's length"),
        (("robot",), "joints", [], "at least one name"),
        (("robot",), "stiffness", float("inf"), "stiffness: got inf, expected a finite number above 0"),
        (("robot",), "lower", [float("nan")] * 7, "robot.lower: .*expected finite numbers"),
        (("table",), "low", [float("-inf"), 0.0], "table: .*expected finite numbers"),
        (("cameras", "top"), "cx", float("nan"), "camera cx, cy, position: .*expected finite numbers"),
        (("noise",), "angle", float("inf"), "noise.angle: got inf, expected a finite number above 0"),
        (("noise",), "joint", float("inf"), "noise.joint: got inf, expected a finite number, 0 or more"),
    ],
)
def test_what_is_wrong_is_said(values, where, key, wrong, message):
    """An unknown key, or a number out of range, is one line that says where."""
    part = values
    for name in where:
        part = part[name]
    part[key] = wrong
    with pytest.raises(ConfigError, match=message):
        from_mapping(Cell, values, where="cell")


def test_a_body_that_the_scene_lacks_is_named(values):
    """Objects are looked for in the scene, and the nearest name is offered."""
    values["objects"] = {"blok": values["objects"]["block"]}
    with pytest.raises(ConfigError, match="did you mean 'block'"):
        CellScene(from_mapping(Cell, values, where="cell"), timestep=0.004)


def test_a_cell_is_written_and_read_back(tmp_path):
    """What calibration writes is the same cell again, with a first line that says what it is."""
    cell = replace(load_cell("tabletop_push_t"), uncertainty={"block.mass": 0.01})
    write_cell(cell, tmp_path / "mine.yaml", comment="a test")
    assert load_cell(tmp_path / "mine.yaml") == cell
    assert (tmp_path / "mine.yaml").read_text().startswith("# a test\n")


def test_no_file_and_no_yaml_are_user_errors(tmp_path):
    """A missing preset, a missing file and broken YAML are one line each."""
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    for name in ("tabletop_push", tmp_path / "none.yaml", tmp_path / "broken.yaml"):
        with pytest.raises(ConfigError):
            load_cell(name)


def test_the_camera_is_the_scenes():
    """The example's camera looks where the scene's `topview` does: OpenCV axes, y and z opposite to MuJoCo's."""
    cell = load_cell("tabletop_push_t")
    scene = CellScene(cell, timestep=0.004)
    camera = scene.model.camera("topview")
    opencv = quaternion_to_matrix(np.array(cell.cameras["top"].quaternion))
    mujoco_axes = quaternion_to_matrix(np.asarray(camera.quat)) @ np.diag([1.0, -1.0, -1.0])
    np.testing.assert_allclose(opencv, mujoco_axes, atol=1e-6)
    np.testing.assert_allclose(cell.cameras["top"].position, camera.pos)
