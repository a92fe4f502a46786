"""Batched controllers equal their textbook form, one environment at a time."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

if find_spec("robosuite") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_sim import rotations
from robot_sim.controllers.osc import osc_torques, rotation_error
from robot_sim.mujoco_tasks.arms import Mount
from robot_sim.mujoco_tasks.mounted_arm import MountedArm
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.tasks.tabletop_lift import make_task

GAINS = (150.0, 2 * np.sqrt(150.0), 10.0, 2 * np.sqrt(10.0))


def _reference(jacobian, mass, bias, velocity, posture, position_error, turn, gains):
    """One arm, as robosuite 1.5 writes it: explicit inverses and pseudo-inverses."""
    kp, kd, null_kp, null_kd = gains
    inverse = np.linalg.inv(mass)
    j_pos, j_ori = jacobian[:3], jacobian[3:]
    lambda_full = np.linalg.pinv(jacobian @ inverse @ jacobian.T)
    lambda_pos = np.linalg.pinv(j_pos @ inverse @ j_pos.T)
    lambda_ori = np.linalg.pinv(j_ori @ inverse @ j_ori.T)
    j_bar = inverse @ jacobian.T @ lambda_full
    null = np.eye(len(mass)) - j_bar @ jacobian
    force = lambda_pos @ (kp * position_error - kd * (j_pos @ velocity))
    torque = lambda_ori @ (kp * turn - kd * (j_ori @ velocity))
    rest = null.T @ (mass @ (null_kp * posture - null_kd * velocity))
    return jacobian.T @ np.concatenate([force, torque]) + bias + rest


def test_osc_is_the_textbooks() -> None:
    """Torques of a batch of random arms and errors equal the reference, each by itself."""
    random = np.random.default_rng(0)
    n, joints = 16, 7
    root = random.normal(size=(n, joints, joints))
    values = {
        "jacobian": random.normal(size=(n, 6, joints)),
        "mass": root @ root.swapaxes(1, 2) + 5.0 * np.eye(joints),
        "bias": random.normal(size=(n, joints)),
        "velocity": random.normal(size=(n, joints)),
        "posture": random.normal(size=(n, joints)),
        "position_error": 0.1 * random.normal(size=(n, 3)),
        "rotation_error": 0.1 * random.normal(size=(n, 3)),
    }
    batch = osc_torques(**values, gains=GAINS)
    for row in range(n):
        arguments: list[Any] = [value[row] for value in values.values()] + [GAINS]
        alone = _reference(*arguments)
        np.testing.assert_allclose(batch[row], alone, rtol=1e-6, atol=1e-6)


def test_a_singular_pose_gives_finite_torques() -> None:
    """An arm whose tool cannot move along one axis still gets numbers."""
    jacobian = np.random.default_rng(0).normal(size=(1, 6, 7))
    jacobian[:, 2] = 0.0
    zero = np.zeros((1, 7))
    torque = osc_torques(
        jacobian=jacobian, mass=np.eye(7)[None], bias=zero, velocity=zero, posture=zero,
        position_error=np.array([[0.1, 0.0, 0.0]]), rotation_error=np.zeros((1, 3)), gains=GAINS,
    )  # fmt: skip
    assert np.isfinite(torque).all()


def test_rotation_error_points_from_tool_to_goal() -> None:
    """A goal turned by a small vector from the tool gives back that vector, world frame."""
    vectors = 0.02 * np.random.default_rng(0).normal(size=(5, 3))
    current = Rotation.random(5, rng=np.random.default_rng(1)).as_matrix()
    goal = Rotation.from_rotvec(vectors).as_matrix() @ current
    np.testing.assert_allclose(rotation_error(goal, current), vectors, atol=1e-4)


def test_rotations_agree_with_scipy() -> None:
    """Quaternions, matrices and rotation vectors, half turns and none included."""
    turns = Rotation.concatenate(
        [
            Rotation.random(50, rng=np.random.default_rng(0)),
            Rotation.identity(),
            Rotation.from_rotvec(np.pi * np.eye(3)),
        ]
    )
    matrices = turns.as_matrix()
    quaternions = rotations.matrix_to_quaternion(matrices)
    np.testing.assert_allclose(rotations.quaternion_to_matrix(quaternions), matrices, atol=1e-12)
    vectors = rotations.matrix_to_rotation_vector(matrices)
    assert np.linalg.norm(vectors, axis=1).max() <= np.pi + 1e-9
    np.testing.assert_allclose(rotations.rotation_vector_to_matrix(vectors), matrices, atol=1e-9)
    xyzw = rotations.wxyz_to_xyzw(quaternions)
    np.testing.assert_allclose(Rotation.from_quat(xyzw).as_matrix(), matrices, atol=1e-12)
    np.testing.assert_array_equal(rotations.xyzw_to_wxyz(xyzw), quaternions)


@pytest.mark.parametrize("arm", ["panda", "ur5e", "iiwa"])
def test_an_absolute_pose_is_reached(arm: str) -> None:
    """Held for two seconds, a pose 10 cm away and turned by 0.3 rad is reached within 2 mm and 0.01 rad."""
    task = make_task(arm=arm, control="osc_absolute")
    simulation = TaskSimulation(task, 2)
    simulation.reset([0, 1], [1, 2])
    start = task.arm.position(simulation.physics).copy()
    goal = start + np.array([[0.05, 0.08, 0.03], [0.08, -0.05, 0.05]])
    turn = rotations.rotation_vector_to_matrix(np.array([[0.0, 0.0, 0.3], [0.2, 0.0, -0.2]]))
    aim = turn @ task.arm.rotation(simulation.physics)
    action = np.concatenate([goal, rotations.matrix_to_rotation_vector(aim), -np.ones((2, 1))], axis=1)
    for _ in range(40):
        simulation.step(action)
    assert np.abs(task.arm.position(simulation.physics) - goal).max() < 2e-3
    assert np.abs(rotation_error(aim, task.arm.rotation(simulation.physics))).max() < 0.01
    simulation.close()


@pytest.mark.parametrize("arm", ["panda", "ur5e", "iiwa"])
def test_a_joint_target_is_reached_and_the_gripper_closes(arm: str) -> None:
    """Position servos reach targets 0.2 rad away within 0.01 rad; ten steps of +1 close the gripper."""
    task = make_task(arm=arm, control="joint_absolute")
    simulation = TaskSimulation(task, 1)
    simulation.reset([0], [3])
    target = (
        task.arm.joint_positions(simulation.physics)
        + 0.2 * np.array([(-1) ** i for i in range(20)])[: len(task.arm.mount.joints)]
    )
    assert task.arm.opening(simulation.physics)[0] > 0.9
    for _ in range(30):
        simulation.step(np.concatenate([target, np.ones((1, 1))], axis=1))
    assert np.abs(task.arm.joint_positions(simulation.physics) - target).max() < 0.01
    assert task.arm.opening(simulation.physics)[0] < 0.1
    simulation.close()


def test_all_arms_have_the_same_tool_frame() -> None:
    """At rest every arm's tool points down, and its fingers lie along the tool's x axis."""
    for arm in ("panda", "ur5e", "iiwa"):
        task = make_task(arm=arm)
        simulation = TaskSimulation(task, 1)
        simulation.reset([0], [0])
        rotation = task.arm.rotation(simulation.physics)[0]
        assert rotation[2, 2] < -0.95
        pads = MountedArm(Mount(arm=arm)).mount.gripper_model.pads
        first, second = (
            simulation.physics.geom_xpos[0, task.names.geom("robot_" + side[0])] for side in pads
        )
        across = rotation.T @ (first - second)
        assert abs(across[0]) > 0.06
        assert np.abs(across[1:]).max() < 0.01
        simulation.close()
