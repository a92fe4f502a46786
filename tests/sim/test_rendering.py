"""Off-screen rendering: which back end, how cheap, and what is said when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec

import pytest

from robot_sim import rendering
from robot_sim.rendering import FrameRenderer, RenderingError, cheap_rendering, choose_backend


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has neither chosen a back end nor imported mujoco."""
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


@pytest.mark.parametrize(
    ("loadable", "working", "expected"),
    [
        (["egl", "osmesa"], {"egl", "osmesa"}, "egl"),
        (["egl", "osmesa"], {"osmesa"}, "osmesa"),
        (["osmesa"], {"egl", "osmesa"}, "osmesa"),
        ([], {"egl", "osmesa"}, "disabled"),
        (["egl"], set(), "disabled"),
    ],
)
def test_the_first_back_end_that_draws_is_chosen(
    fresh: pytest.MonkeyPatch, loadable: list[str], working: set[str], expected: str
) -> None:
    """EGL before OSMesa, only with libraries that load and draw; worker processes inherit the choice."""
    fresh.setattr(rendering, "loadable_backends", lambda: loadable)
    fresh.setattr(rendering, "backend_works", lambda backend: backend in working)
    assert choose_backend() == expected
    assert os.environ["MUJOCO_GL"] == expected


def test_the_users_choice_is_kept(fresh: pytest.MonkeyPatch) -> None:
    """A value in MUJOCO_GL is not second-guessed, and nothing is tried."""
    fresh.setenv("MUJOCO_GL", "OSMesa")
    fresh.setattr(rendering, "backend_works", lambda backend: pytest.fail("tried"))
    assert choose_backend() == "osmesa"


def test_too_late_a_choice_is_not_made(fresh: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Once mujoco is imported the variable has no effect: it is left alone, with a warning."""
    fresh.setitem(sys.modules, "mujoco", os)
    fresh.setattr(rendering, "backend_works", lambda backend: pytest.fail("tried"))
    assert choose_backend() == ""
    assert "MUJOCO_GL=egl" in caplog.text


def test_without_a_back_end_the_remedy_is_one_line(fresh: pytest.MonkeyPatch) -> None:
    """Asking for images on a machine without OpenGL names the packages to install."""
    fresh.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(RenderingError, match="apt-get install libegl1") as caught:
        FrameRenderer(None)
    assert "\n" not in str(caught.value)


def test_cheap_rendering_changes_the_looks_alone() -> None:
    """Shadows, multisampling and reflections go; bodies, and what else was set, stay."""
    scene = (
        '<mujoco><visual><quality shadowsize="4096" numslices="9"/></visual>'
        '<asset><material name="m" reflectance="0.8" shininess="0.3"/></asset>'
        '<worldbody><light castshadow="true"/><body pos="1 2 3"><light/><geom size="1"/></body></worldbody></mujoco>'
    )
    root = ElementTree.fromstring(cheap_rendering(scene))
    quality = root.find("visual/quality")
    assert quality is not None
    assert dict(quality.attrib) == {"shadowsize": "0", "offsamples": "0", "numslices": "9"}
    assert [light.get("castshadow") for light in root.iter("light")] == ["false", "false"]
    material = root.find("asset/material")
    assert material is not None
    assert (material.get("reflectance"), material.get("shininess")) == ("0", "0.3")
    assert ElementTree.tostring(next(root.iter("geom"))) == b'<geom size="1" />'
    assert "shadowsize" in cheap_rendering("<mujoco/>")


@pytest.mark.skipif(find_spec("robosuite") is None, reason="the sim extra is not installed")
def test_a_machine_without_opengl_simulates() -> None:
    """State-only Lift runs with rendering disabled; asking for a frame raises, nothing else does."""
    code = """
from robot_sim.registry import make_task
from robot_sim.rendering import RenderingError
env = make_task("lift")
env.reset(seed=0)
env.step(env.action_space.sample())
try:
    env.render()
except RenderingError as error:
    print(error)
env.close()
"""
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("images need off-screen OpenGL")
