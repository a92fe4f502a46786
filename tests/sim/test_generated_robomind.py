"""From a simulated demonstration to a RoboMIND tree and back: the ingest path on data whose truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_datasets.convert import convert
from robot_datasets.exporters import export
from robot_datasets.features import STATE
from robot_datasets.importers.robomind_pose import pose_matrices
from robot_datasets.store import EpisodeStore
from robot_sim.generate import GenerationPlan, generate
from robot_sim.mujoco_tasks.joint_observation import END_EFFECTOR, JOINT_POSITION
from robot_sim.registry import make_task


def test_a_generated_demonstration_survives_robomind(tmp_path: Path) -> None:
    """Joints, gripper, poses, frames and words come back; forward kinematics agrees with the simulator."""
    pytest.importorskip("robosuite", reason="the arms come from robosuite")
    options = {"images": True, "joints": True, "image_size": 48}
    plan = GenerationPlan(
        task="compose/press_button", task_options=options, episodes=1, image_encoding="jpeg"
    )
    generate(plan, tmp_path / "in.zarr", workers=0)
    before = EpisodeStore.open(tmp_path / "in.zarr")
    export(before, tmp_path / "tree", format="robomind")
    how = {"fps": "20", "action": "puppet_same"}
    convert(tmp_path / "tree", tmp_path / "back.zarr", options=how)
    convert(tmp_path / "tree", tmp_path / "fk.zarr", options=how | {"end_effector": "fk"})
    after, computed = (EpisodeStore.open(tmp_path / name) for name in ("back.zarr", "fk.zarr"))
    assert (after.n_steps, after.tasks, after.fps) == (before.n_steps, before.tasks, 20.0)
    joints = before.column(JOINT_POSITION)
    np.testing.assert_array_equal(after.column(STATE)[:, :7], joints[:, :7])
    np.testing.assert_allclose(after.column(STATE)[:, 7], 1 - joints[:, 7], atol=1e-6)
    true = pose_matrices(before.column(END_EFFECTOR).astype(np.float64), "quat_xyzw")
    for store in (after, computed):
        poses = pose_matrices(store.column(END_EFFECTOR).astype(np.float64), "rpy_extrinsic")
        np.testing.assert_allclose(poses, true, atol=1e-5)
    for step in range(0, before.n_steps, 10):
        frames = [
            s.images(f"observation.images.{camera}").encoded(step)
            for s, camera in ((before, "agentview"), (after, "top"))
        ]
        assert frames[0] == frames[1]


@pytest.mark.parametrize("task", ["tabletop_stack", "tabletop_handover"])
def test_joints_are_observed_on_request(task: str) -> None:
    """The option adds two features, for each arm in the frame of its own base; without it nothing changes."""
    pytest.importorskip("robosuite", reason="the arms come from robosuite")
    plain: Any = make_task(task)
    told: Any = make_task(task, joints=True)
    try:
        first, _ = plain.reset(seed=3)
        second, _ = told.reset(seed=3)
        assert second.keys() - first.keys() == {JOINT_POSITION, END_EFFECTOR}
        np.testing.assert_array_equal(first[STATE], second[STATE])
        for name in (JOINT_POSITION, END_EFFECTOR):
            assert second[name].shape == told.task_spec.observation[name].shape
        arms = told.simulation.task.arms
        for index, arm in enumerate(arms):
            tool = second[STATE][8 * index : 8 * index + 3] - np.array(arm.mount.position)
            np.testing.assert_allclose(second[END_EFFECTOR][7 * index : 7 * index + 3], tool, atol=1e-6)
    finally:
        plain.close()
        told.close()
