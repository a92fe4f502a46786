"""Gaussians of bodies: what is valid, files, and the coverage of geoms."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from robot_sim.engine import mujoco
from robot_sim.twin.gaussians.cloud import GaussianBody, GaussianError, joined, load_bodies, save_bodies
from robot_sim.twin.gaussians.sampling import body_from_mjcf, body_from_model

SHAPES = """<mujoco>
  <asset><mesh name="corner" vertex="0 0 0  0.1 0 0  0 0.1 0  0 0 0.1"/></asset>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body name="box"><geom type="box" size="0.05 0.03 0.02"/></body>
    <body name="ball"><geom type="sphere" size="0.04" rgba="1 0 0 1"/></body>
    <body name="rod"><geom type="cylinder" size="0.02 0.05"/></body>
    <body name="pill"><geom type="capsule" size="0.02 0.05"/></body>
    <body name="egg"><geom type="ellipsoid" size="0.02 0.03 0.04"/></body>
    <body name="mesh"><geom type="mesh" mesh="corner"/></body>
    <body name="hidden"><geom type="sphere" size="0.04" rgba="1 0 0 0"/></body>
  </worldbody>
</mujoco>"""


def gaussians(n=4, **changes):
    """A valid body, with changes."""
    values = {
        "means": np.zeros((n, 3)), "scales": np.full((n, 3), 0.01), "quaternions": np.tile([1.0, 0, 0, 0], (n, 1)),
        "colours": np.full((n, 3), 0.5), "opacities": np.full(n, 0.9),
    }  # fmt: skip
    return GaussianBody(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": np.zeros((3, 3))}, "expected"),
        ({"means": np.full((4, 3), np.nan)}, "not all finite"),
        ({"scales": np.zeros((4, 3))}, "scales within 0 to 0"),
        ({"colours": np.full((4, 3), 255.0)}, "colours within 255"),
        ({"opacities": np.zeros(4)}, "opacities within 0"),
        ({"quaternions": np.ones((4, 4))}, "length 2"),
    ],
)
def test_invalid_gaussians_are_refused(changes, message):
    """Arrays of other lengths, or with values out of range, are refused in one line."""
    with pytest.raises(GaussianError, match=message):
        gaussians(**changes)


def test_a_file_gives_back_what_was_saved(tmp_path):
    """Bodies survive a file exactly, and a second save replaces the first."""
    path = tmp_path / "new" / "bodies.safetensors"
    save_bodies(path, {"cup": gaussians()})
    save_bodies(path, {"block": gaussians(3), "a/b": gaussians(opacities=np.full(4, 0.25))})
    found = load_bodies(path)
    assert sorted(found) == ["a/b", "block"]
    assert (len(found["block"]), found["a/b"].opacities[0]) == (3, 0.25)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_files_are_refused(tmp_path):
    """A missing, truncated, foreign or incomplete file is refused in one line that names it."""
    good = tmp_path / "good.safetensors"
    save_bodies(good, {"block": gaussians()})
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-20])
    save_file({"weights": np.zeros(3)}, tmp_path / "foreign")
    save_file(
        {"b/means": np.zeros((1, 3))}, tmp_path / "half", metadata={"format": "robot_sim.twin.gaussians/1"}
    )
    for name, message in {
        "none": "no readable", "cut": "no readable", "foreign": "format None", "half": "lacks"
    }.items():  # fmt: skip
        with pytest.raises(GaussianError, match=message):
            load_bodies(tmp_path / name)


@pytest.mark.parametrize(
    ("body", "area", "distance"),
    [
        ("box", 8 * (0.05 * 0.03 + 0.05 * 0.02 + 0.03 * 0.02), None),
        ("ball", 4 * np.pi * 0.04**2, lambda p: np.linalg.norm(p, axis=1) - 0.04),
        ("rod", 2 * np.pi * 0.02 * (0.02 + 0.1), None),
        ("pill", 4 * np.pi * 0.02**2 + 2 * np.pi * 0.02 * 0.1, lambda p: _from_segment(p) - 0.02),
        ("egg", 4 * np.pi * 0.0301**2, lambda p: np.linalg.norm(p / [0.02, 0.03, 0.04], axis=1) - 1),
        ("mesh", 3 * 0.005 + np.sqrt(3) / 2 * 0.01, None),
    ],
)
def test_geoms_are_covered_evenly(body, area, distance):
    """Every kind of geom is covered by about a disc per spacing squared, on its surface."""
    model = mujoco.MjModel.from_xml_string(SHAPES)
    found = body_from_model(model, body, spacing=0.005)
    assert len(found) == pytest.approx(area / 0.005**2, rel=0.2)
    if distance is not None:
        assert np.abs(distance(found.means)).max() < 1e-6
    # Nowhere a hole: from every disc there is another one within two spacings.
    gaps = np.linalg.norm(found.means[:, None] - found.means[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min(axis=1).max() < 0.0105


def _from_segment(points):
    nearest = np.clip(points[:, 2:], -0.05, 0.05) * [0, 0, 1]
    return np.linalg.norm(points - nearest, axis=1)


def test_colours_are_the_geoms_under_the_models_light():
    """Unshaded discs have the geom's colour; shaded ones are brightest where they face up."""
    model = mujoco.MjModel.from_xml_string(SHAPES)
    assert np.allclose(body_from_model(model, "ball", spacing=0.01, shaded=False).colours, [1, 0, 0])
    shaded = body_from_model(model, "ball", spacing=0.01)
    assert shaded.colours[shaded.means[:, 2].argmax(), 0] > 2 * shaded.colours[shaded.means[:, 2].argmin(), 0]


@pytest.mark.parametrize(
    ("body", "message"),
    [("bax", "did you mean 'box'"), ("hidden", "shows nothing"), ("world", "plane has no bounded")],
)
def test_what_cannot_be_covered_is_refused(body, message):
    """Unknown bodies, invisible ones and planes are refused with a reason."""
    with pytest.raises(GaussianError, match=message):
        body_from_model(mujoco.MjModel.from_xml_string(SHAPES), body, spacing=0.01)


def test_an_mjcf_file_is_read(tmp_path):
    """A body comes from an MJCF file as from its model; a broken file is refused in one line."""
    (tmp_path / "scene.xml").write_text(SHAPES)
    assert len(body_from_mjcf(tmp_path / "scene.xml", "rod", spacing=0.01)) > 20
    (tmp_path / "broken.xml").write_text("<mujoco><worldbody></mujoco>")
    with pytest.raises(GaussianError, match="no MJCF that compiles"):
        body_from_mjcf(tmp_path / "broken.xml", "rod", spacing=0.01)
    with pytest.raises(GaussianError, match="nothing to join"):
        joined([])
