"""Batched physics equals MuJoCo on each state by itself, bit for bit or, stepped by warp, in single precision."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_sim.engine import mujoco
from robot_sim.vector.mujoco_names import ModelNames, SceneError
from robot_sim.vector.physics import BatchedPhysics

N = 6
SCENE = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 .1"/>
    <body name="box" pos="0 0 .1"><freejoint name="free"/><geom name="box" type="box" size=".05 .05 .05"/></body>
    <body name="upper" pos="0 1 1">
      <joint name="shoulder" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
      <body name="lower" pos=".3 0 0">
        <joint name="elbow" axis="0 0 1"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/>
        <site name="tip" pos=".3 0 0"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="m1" joint="shoulder"/><motor name="m2" joint="elbow"/></actuator>
  <sensor><framepos objtype="site" objname="tip"/></sensor>
</mujoco>
"""


@pytest.fixture(scope="module")
def model() -> object:
    """A box on a floor and an arm of two links."""
    return mujoco.MjModel.from_xml_string(SCENE)


WARP = pytest.param(
    "warp",
    marks=[
        pytest.mark.skipif(
            find_spec("mujoco_warp") is None,
            reason="needs pip install 'robot-policies[warp]' (360 MB unpacked)",
        ),
        pytest.mark.timeout(1200),  # kernels are compiled once on a machine, for minutes
    ],
)


@pytest.fixture(params=["mujoco", WARP])
def physics(model: object, request: pytest.FixtureRequest) -> Iterator[BatchedPhysics]:
    """Six different states of it, with controls."""
    backend = "warp:cpu" if request.param == "warp" else "mujoco"
    made = BatchedPhysics(model, N, threads=2, external_forces=True, backend=backend)
    random = np.random.default_rng(0)
    qpos = np.tile(made.model.qpos0, (N, 1))
    qpos[:, 7:] = random.normal(size=(N, 2))
    qpos[:, 2] += random.uniform(0, 0.1, N)
    made.set_state(np.arange(N), qpos=qpos, qvel=0.1 * random.normal(size=(N, 8)))
    made.ctrl[:] = random.normal(size=(N, 2))
    yield made
    made.close()


def _alone(physics: BatchedPhysics, row: int) -> Any:
    """One row as MuJoCo's own data."""
    data = mujoco.MjData(physics.model)
    physics.write_to(physics.model, data, row)
    return data


def test_a_step_is_mujocos_step(physics: BatchedPhysics) -> None:
    """After 100 steps, some with contacts, each row is `mj_step` from the same start: bit for bit, by warp nearly."""
    exact = physics.backend == "mujoco"
    alone = [_alone(physics, row) for row in range(N)]
    physics.step(100)
    for row, data in enumerate(alone):
        for _ in range(100):
            mujoco.mj_step(physics.model, data)
        np.testing.assert_allclose(physics.qpos[row], data.qpos, rtol=0, atol=0 if exact else 5e-5)
        np.testing.assert_allclose(physics.qvel[row], data.qvel, rtol=0, atol=0 if exact else 5e-4)


def test_threads_do_not_change_a_bit(model: object) -> None:
    """Without threads and with two of them the states are the same."""
    finals = []
    for threads in (0, 2):
        physics = BatchedPhysics(model, N, threads=threads)
        physics.ctrl[:] = np.random.default_rng(1).normal(size=(N, 2))
        for _ in range(3):
            physics.step(20)
        finals.append(physics.qpos.copy())
        physics.close()
    np.testing.assert_array_equal(*finals)


def test_what_follows_from_a_state_is_mujocos(physics: BatchedPhysics) -> None:
    """Poses, velocities, Jacobians, inertia, bias, sensors and accelerations equal MuJoCo's, not a step behind."""
    physics.step(37)
    model, tip, lower = physics.model, 0, ModelNames(physics.model).body("lower")
    for row in range(N):
        data = _alone(physics, row)
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(physics.site_xpos[row, tip], data.site_xpos[tip], atol=1e-12)
        np.testing.assert_allclose(physics.xquat[row], data.xquat, atol=1e-12)
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], tip)
        np.testing.assert_allclose(physics.site_jacobian(tip)[row], jacobian, atol=1e-12)
        mujoco.mj_jacBody(model, data, jacobian[:3], jacobian[3:], lower)
        np.testing.assert_allclose(physics.body_jacobians()[row, lower], jacobian, atol=1e-12)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, lower, velocity, 0)
        np.testing.assert_allclose(physics.body_velocity[row, lower], np.roll(velocity, 3), atol=1e-10)
        inertia = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, inertia, data.qM)
        np.testing.assert_allclose(physics.mass_matrix[row], inertia, atol=1e-12)
        np.testing.assert_allclose(physics.qfrc_bias[row], data.qfrc_bias, atol=1e-12)
        np.testing.assert_allclose(physics.sensordata[row], data.sensordata, atol=1e-12)
        np.testing.assert_allclose(physics.qacc[row], data.qacc, atol=1e-6)


def test_a_resting_box_presses_with_its_weight(physics: BatchedPhysics) -> None:
    """The contact force on a box that lies still is its weight, and it touches the floor and nothing else."""
    physics.step(500)
    names = ModelNames(physics.model)
    box, weight = names.body("box"), 9.81 * physics.model.body_mass[names.body("box")]
    force = physics.contact_force[:, box]
    np.testing.assert_allclose(force[:, 2], weight, rtol=1e-3)
    assert physics.touching([names.geom("box")], [names.geom("floor")]).all()
    assert not physics.touching([names.geom("box")], names.body_geoms("upper", "lower")).any()


def test_only_active_rows_move(physics: BatchedPhysics) -> None:
    """Inactive rows keep their state and their clock."""
    before, active = physics.qpos.copy(), np.arange(N) % 2 == 0
    physics.step(10, active=active)
    np.testing.assert_array_equal(physics.qpos[~active], before[~active])
    assert (physics.qpos[active] != before[active]).any(axis=1).all()
    np.testing.assert_allclose(physics.time, np.where(active, 0.02, 0.0))


def test_setting_some_rows_leaves_the_others(physics: BatchedPhysics) -> None:
    """A reset of two rows changes them, what follows from them, and nothing else."""
    physics.step(10)
    before, poses = physics.qpos.copy(), physics.xpos.copy()
    physics.set_state([1, 4])
    rest = [0, 2, 3, 5]
    np.testing.assert_array_equal(physics.qpos[rest], before[rest])
    np.testing.assert_array_equal(physics.xpos[rest], poses[rest])
    np.testing.assert_array_equal(physics.qpos[[1, 4]], np.tile(physics.model.qpos0, (2, 1)))
    assert (physics.xpos[[1, 4]] != poses[[1, 4]]).any()


def test_a_snapshot_continues_bit_for_bit(physics: BatchedPhysics) -> None:
    """After `restore` the future is the same again."""
    physics.step(40)
    saved = physics.save()
    physics.step(40)
    first = physics.qpos.copy()
    physics.restore(saved)
    physics.step(40)
    np.testing.assert_array_equal(physics.qpos, first)


def test_instability_stays_in_its_row(
    physics: BatchedPhysics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite force marks its row, which keeps its last stable state; no log file is left behind."""
    monkeypatch.chdir(tmp_path)
    before = physics.qpos.copy()
    physics.qfrc_applied[2, 7] = np.inf
    physics.step(10)
    assert physics.diverged.tolist() == [False, False, True, False, False, False]
    np.testing.assert_array_equal(physics.qpos[2], before[2])
    physics.set_state([2])
    physics.step(10)
    assert not physics.diverged.any()
    assert list(tmp_path.iterdir()) == []


def test_models_may_differ_in_parameters(model: object) -> None:
    """With one model each, a heavier box of one row presses harder in that row alone."""
    import copy

    heavy = copy.copy(model)
    heavy.body_mass[1] *= 3.0  # type: ignore[attr-defined]
    mujoco.mj_setConst(heavy, mujoco.MjData(heavy))
    physics = BatchedPhysics([model, heavy])
    physics.step(500)
    light, weighty = physics.contact_force[:, 1, 2]
    assert weighty == pytest.approx(3 * light, rel=1e-2)


def test_bad_values_and_names_are_refused(physics: BatchedPhysics, model: object) -> None:
    """A NaN state, a missing input and an unknown name say what is wrong."""
    with pytest.raises(ValueError, match="qpos of a state is not finite"):
        physics.set_state([0], qpos=np.full(9, np.nan))
    with pytest.raises(ValueError, match="no 'xfrc_applied'"):
        _ = BatchedPhysics(model, 1).xfrc_applied
    with pytest.raises(SceneError, match="unknown site 'tipp'; did you mean 'tip'"):
        ModelNames(model).site("tipp")
    with pytest.raises(ValueError, match="read-only"):
        physics.qpos[0, 0] = 1.0
