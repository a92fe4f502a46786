"""Steps made by `mujoco_warp`, on Warp's CPU device; `test_physics.py` has what every backend promises."""

from __future__ import annotations

import copy
import logging
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)
if find_spec("mujoco_warp") is None:
    pytest.skip(
        "needs pip install 'robot-policies[warp]' (360 MB unpacked), which `make` does not install",
        allow_module_level=True,
    )

from robot_datasets.errors import UserError
from robot_sim.engine import mujoco
from robot_sim.vector import warp_stepper
from robot_sim.vector.physics import BatchedPhysics
from robot_sim.vector.warp_model import WarpModelError

pytestmark = pytest.mark.timeout(1200)  # kernels are compiled once on a machine, for minutes

N = 5
SCENE = """
<mujoco>
  <option timestep="0.002" {options}/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 .1"/>
    <body name="box" pos="0 0 .1"><freejoint/><geom name="box" type="box" size=".05 .05 .05"/></body>
    <body pos="0 1 1">
      <joint name="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
      <body pos=".3 0 0"><joint axis="0 0 1"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
    </body>
    <body name="hand" mocap="true" pos="1 1 1"><geom name="hand" type="sphere" size=".05"/></body>
  </worldbody>
  <actuator><motor joint="hinge"/></actuator>
</mujoco>
"""


def _scene(options: str = "") -> Any:
    return mujoco.MjModel.from_xml_string(SCENE.format(options=options))


@pytest.fixture(scope="module")
def model() -> Any:
    """A box above a floor, a double pendulum, and a ball that is moved by hand."""
    return _scene()


def _made(model: Any, rows: list[int] | None = None, **options: Any) -> BatchedPhysics:
    """Environments that begin as rows of the same five different starts."""
    random, rows = np.random.default_rng(0), list(range(N)) if rows is None else rows
    qpos = np.tile(mujoco.MjData(_scene()).qpos, (N, 1))
    qpos[:, 7:] = random.normal(size=(N, 2))
    qpos[:, 2] += random.uniform(-0.05, 0.05, N)
    qvel, ctrl = 0.1 * random.normal(size=(N, 8)), random.normal(size=(N, 1))
    made = BatchedPhysics(
        model, len(rows), **{"threads": 0, "external_forces": True, "backend": "warp:cpu", **options}
    )
    made.set_state(np.arange(len(rows)), qpos=qpos[rows], qvel=qvel[rows])
    made.ctrl[:] = ctrl[rows]
    return made


def test_it_agrees_with_mujoco_in_single_precision(model: Any) -> None:
    """Fall, pendulum, impact and rest: within 0.1 mm and 0.1 mrad after half a second; clocks within a microsecond."""
    ours, theirs = _made(model), _made(model, backend="mujoco")
    for physics in (ours, theirs):
        physics.step(5)
    np.testing.assert_allclose(ours.qpos, theirs.qpos, rtol=0, atol=1e-6)
    for physics in (ours, theirs):
        physics.step(245)
    np.testing.assert_allclose(ours.qpos, theirs.qpos, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(ours.time, theirs.time)
    assert ours.touching([0], [1]).all()


def test_a_row_depends_on_no_other_and_not_on_their_number(model: Any) -> None:
    """The same start gives the same bits alone, among five, and in another order."""
    together = _made(model)
    together.step(80)
    for rows in ([2], [4, 2, 0]):
        some = _made(model, rows)
        some.step(80)
        np.testing.assert_array_equal(some.qpos, together.qpos[rows])
        np.testing.assert_array_equal(some.qvel, together.qvel[rows])


def test_steps_may_be_taken_one_by_one(model: Any) -> None:
    """Forty single steps, each with a cold start of the solver, are forty steps but for rounding."""
    single, at_once = _made(model), _made(model)
    for _ in range(40):
        single.step(1)
    at_once.step(40)
    np.testing.assert_allclose(single.qpos, at_once.qpos, rtol=0, atol=1e-5)


def test_forces_and_mocap_bodies_are_taken(model: Any) -> None:
    """A pushed box and one that a ball is moved into go where they go in MuJoCo; the others are left alone."""
    ends = []
    for backend in ("warp:cpu", "mujoco"):
        physics = _made(model, [0, 0, 0], backend=backend)
        physics.xfrc_applied[1, 1, 0] = 20.0
        physics.mocap_pos[2, 0] = physics.qpos[2, :3] + [0.0, 0.09, 0.0]
        physics.touch()
        physics.step(50)
        ends.append(physics.qpos[:, :3])
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-4)
    assert ends[0][1, 0] > ends[0][0, 0] + 0.01
    assert ends[0][2, 1] < ends[0][0, 1] - 0.01


@pytest.mark.parametrize(
    "problem",
    ["ctrl is nan", "ctrl is huge", "speed is huge", "mocap is nan", "force is huge", "force is 1e300"],
)
def test_a_broken_row_stays_by_itself(model: Any, problem: str) -> None:
    """It is marked, stands where it was, and changes no bit of the others."""
    whole, broken = _made(model), _made(model)
    if problem == "speed is huge":
        qvel = broken.qvel.copy()
        qvel[1, 6] = 1e12
        broken.set_state([1], qpos=broken.qpos[1], qvel=qvel[1])
    broken.ctrl[1] = {"ctrl is nan": np.nan, "ctrl is huge": 1e11}.get(problem, 0.0)
    broken.mocap_pos[1, 0, 0] = np.nan if problem == "mocap is nan" else 1.0
    broken.qfrc_applied[1, 6] = {"force is huge": 1e30, "force is 1e300": 1e300}.get(problem, 0.0)
    before = broken.qpos[1].copy()
    for physics in (whole, broken):
        physics.step(30)
        physics.step(30)
    assert broken.diverged.tolist() == [False, True, False, False, False]
    np.testing.assert_array_equal(broken.qpos[1], before)
    rest = [0, 2, 3, 4]
    np.testing.assert_array_equal(broken.qpos[rest], whole.qpos[rest])


def test_a_full_buffer_is_enlarged_and_nothing_is_lost(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With room for next to nothing the steps are repeated until they fit, and end at the same bits."""
    expected = _made(model)
    expected.step(80)
    monkeypatch.setattr(warp_stepper, "FIRST_CONTACTS", 1)
    monkeypatch.setattr(warp_stepper, "FIRST_ROWS", 7)
    physics = _made(model)
    with caplog.at_level(logging.INFO):
        physics.step(80)
    np.testing.assert_allclose(physics.qpos, expected.qpos, rtol=0, atol=1e-5)
    assert "buffers enlarged" in caplog.text
    monkeypatch.setattr(warp_stepper, "MAX_ROWS", 8)
    full = _made(model)
    for _ in range(2):  # an error does not leave buffers behind that are taken for larger ones
        with pytest.raises(UserError, match=r"rows of constraints in one environment.*backend='mujoco'"):
            full.step(80)


def test_models_may_differ_and_change(model: Any) -> None:
    """Masses, friction and gravity per environment, also written later, move boxes as in MuJoCo."""
    light, slippery = copy.copy(model), copy.copy(model)
    light.body_mass[1] *= 0.5
    light.body_inertia[1] *= 0.5
    mujoco.mj_setConst(light, mujoco.MjData(light))
    slippery.geom_friction[:, 0] *= 0.1
    ends = []
    for backend in ("warp:cpu", "mujoco"):
        own = [copy.copy(one) for one in (model, light, slippery)]
        physics = _made(own, [0, 0, 0], backend=backend)
        physics.xfrc_applied[:, 1, 0] = 6.0
        physics.step(80)
        ends.append(physics.qpos[:, :3].copy())
        own[0].opt.gravity[2] = -3.0
        physics.models[0].opt.gravity[2] = -3.0
        physics.touch(np.array([0]))
        physics.step(40)
        ends.append(physics.qpos[:, :3].copy())
    np.testing.assert_allclose(ends[0], ends[2], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ends[1], ends[3], rtol=0, atol=1e-4)
    assert (ends[0][1:, 0] > ends[0][0, 0] + 1e-3).all()


def test_what_cannot_differ_is_refused(model: Any) -> None:
    """Which geoms collide is the same for all: another model, or a later change, is an error that says so."""
    other = copy.copy(model)
    other.geom_contype[1] = 0
    with pytest.raises(WarpModelError, match=r"geom_contype differs between environments.*backend='mujoco'"):
        BatchedPhysics([model, other], backend="warp:cpu")
    own = copy.copy(model)
    physics = BatchedPhysics(own, 2, backend="warp:cpu")
    own.opt.iterations = 3
    physics.touch()
    for _ in range(2):  # not only once
        with pytest.raises(WarpModelError, match=r"opt\.iterations .* or has changed"):
            physics.step(1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ('integrator="implicit"', "mjINT_IMPLICIT"),
        ('solver="PGS"', "mjSOL_PGS"),
        ('noslip_iterations="3"', "noslip"),
    ],
)
def test_a_feature_that_is_missing_is_named(options: str, named: str) -> None:
    """The error names it and what works instead."""
    with pytest.raises(WarpModelError, match=f"{named}.*use backend='mujoco'"):
        BatchedPhysics(_scene(options), 2, backend="warp:cpu")


def test_a_device_that_is_not_there_is_refused(model: Any) -> None:
    """The error lists those that are."""
    with pytest.raises(UserError, match=r"no device 'cuda:77'; available: .*cpu"):
        BatchedPhysics(model, 2, backend="warp:cuda:77")
