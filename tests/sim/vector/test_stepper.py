"""Choosing who steps, where `mujoco_warp` need not be installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

if find_spec("mujoco") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.errors import UserError
from robot_sim.engine import mujoco
from robot_sim.vector.physics import BatchedPhysics

PENDULUM = '<mujoco><worldbody><body><joint/><geom size=".1" pos=".5 0 0"/></body></worldbody></mujoco>'


@pytest.fixture(scope="module")
def model() -> object:
    """One joint."""
    return mujoco.MjModel.from_xml_string(PENDULUM)


@pytest.mark.parametrize("backend", ["wrap", "mujoco:cpu", ""])
def test_an_unknown_backend_is_refused(model: object, backend: str) -> None:
    """The message has the name and all that there are."""
    with pytest.raises(UserError, match=f"unknown physics backend '{backend}'.*Available: mujoco, warp"):
        BatchedPhysics(model, 2, backend=backend)


@pytest.mark.parametrize("package", ["warp", "mujoco_warp"])
def test_a_missing_package_is_named_with_its_remedy(
    model: object, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without either package the error says what to install, and what works without."""
    for module in ("robot_sim.vector.warp_stepper", "robot_sim.vector.warp_model"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'robot-policies\[warp\]', or use backend='mujoco'"):
        BatchedPhysics(model, 2, backend="warp")


def test_no_environment_is_refused(model: object) -> None:
    """Zero environments are an error before anything is allocated."""
    with pytest.raises(ValueError, match="0 environments"):
        BatchedPhysics(model, 0)
    with pytest.raises(ValueError, match="got 0 models"):
        BatchedPhysics([])
