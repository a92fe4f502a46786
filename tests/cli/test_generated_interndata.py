"""From a simulated demonstration to an InternData-A1 set and back, by the commands that users type."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.features import ACTION, STATE
from robot_datasets.importers.robomind_pose import pose_matrices
from robot_datasets.kinematics import PANDA, UR5E, SerialArm, fit_offsets
from robot_datasets.store import EpisodeStore
from robot_policies.cli.main import main

needs_simulators = pytest.mark.skipif(find_spec("robosuite") is None, reason="the sim extra is not installed")


@needs_simulators
def test_a_generated_demonstration_survives_interndata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Joints, opening, commands of the gripper and words come back; the poses agree with the simulator's tool."""
    made, written, back = (str(tmp_path / name) for name in ("in.zarr", "set", "back.zarr"))
    task = ["task=compose/press_button", "task.images=true", "task.joints=true", "task.image_size=48"]
    assert main(["generate", *task, "episodes=2", "workers=0", f"output={made}"]) == 0
    assert main(["export", made, written, "--format", "interndata"]) == 0
    assert "computed from the joints" in capsys.readouterr().out
    assert main(["convert", written, back, "--option", "action=next_state_openness"]) == 0
    before, after = EpisodeStore.open(made), EpisodeStore.open(back)
    assert (after.embodiment, after.tasks, after.fps) == ("franka", before.tasks, before.fps)
    np.testing.assert_array_equal(after.episode_ends, before.episode_ends)
    np.testing.assert_array_equal(after.episodes["success"], before.episodes["success"])
    joints = before.column("observation.joint_position")
    np.testing.assert_array_equal(after.column(STATE)[:, :7], joints[:, :7])
    np.testing.assert_allclose(after.column(STATE)[:, 7], 0.08 * joints[:, 7], atol=1e-7)
    np.testing.assert_array_equal(after.column(ACTION)[:, 7], before.column(ACTION)[:, -1] < 0)
    assert after.features["observation.images.head"].shape == (48, 48, 3)

    flange = PANDA.flange_poses(joints[:, :7])
    tool = pose_matrices(before.column("observation.end_effector").astype(np.float64), "quat_xyzw")
    recorded = after.column("observation.tcp_pose").astype(np.float64)
    tcp = pose_matrices(recorded[:, [0, 1, 2, 4, 5, 6, 3]], "quat_xyzw")
    for poses in (
        flange,
        tcp,
    ):  # the simulator's tool stands still in the flange's frame, and in the set's tool's
        fit = fit_offsets(poses, tool, free_base=False)
        assert max(fit.position_error, fit.angle_error) < 1e-4
    assert (
        np.linalg.norm(np.array(fit.tool)[:3, 3]) < 0.002
    )  # both call the middle between the fingertips the tool


@needs_simulators
@pytest.mark.parametrize(
    ("task", "embodiment", "arm", "sides", "width"),
    [
        (["task=compose/press_button", "task.arm=ur5e"], "ur5e", UR5E, ("",), 0.085),
        (["task=tabletop_handover"], "dual_franka", PANDA, ("left_", "right_"), 0.08),
    ],
    ids=["ur5e", "two_pandas"],
)
def test_other_arms_survive_interndata(
    task: list[str],
    embodiment: str,
    arm: SerialArm,
    sides: tuple[str, ...],
    width: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each arm's joints, opening, commands of the gripper and pictures; the tools agree with the simulator's."""
    made, written, back = (str(tmp_path / name) for name in ("in.zarr", "set", "back.zarr"))
    options = ["task.images=true", "task.joints=true", "task.image_size=48", "episodes=1", "workers=0"]
    assert main(["generate", *task, *options, f"output={made}"]) == 0
    assert main(["export", made, written, "--format", "interndata"]) == 0
    assert "no published set is of this robot" in capsys.readouterr().out
    assert main(["convert", written, back, "--option", "action=next_state_openness"]) == 0
    before, after = EpisodeStore.open(made), EpisodeStore.open(back)
    assert (after.embodiment, after.tasks, after.fps) == (embodiment, before.tasks, before.fps)
    np.testing.assert_array_equal(after.episode_ends, before.episode_ends)
    joints, state, action = (
        before.column("observation.joint_position"),
        after.column(STATE),
        after.column(ACTION),
    )
    assert after.features[STATE].names == before.features["observation.joint_position"].names
    own, count = len(arm.links) + 1, len(arm.links)
    pictures = (
        before.images("observation.images.agentview").decode([0, 30]).astype(int),
        after.images("observation.images.head").decode([0, 30]).astype(int),
    )
    assert np.abs(pictures[0] - pictures[1]).mean() < 6
    for index, side in enumerate(sides):
        mine = slice(own * index, own * index + count)
        grip = own * index + count
        np.testing.assert_array_equal(state[:, mine], joints[:, mine])
        np.testing.assert_allclose(state[:, grip], width * joints[:, grip], atol=1e-7)
        told = before.column(ACTION)[:, before.features[ACTION].names.index(f"{side}gripper")]
        np.testing.assert_array_equal(action[:, grip], told < 0)
        recorded = after.column("observation.tcp_pose_in_arm_base" + ("s" if side else "")).astype(np.float64)
        wxyz = recorded[:, 7 * index : 7 * index + 7]
        seen = before.column("observation.end_effector").astype(np.float64)[:, 7 * index : 7 * index + 7]
        tcp = pose_matrices(wxyz[:, [0, 1, 2, 4, 5, 6, 3]], "quat_xyzw")
        if arm is UR5E:  # its controller's base is turned by 180 degrees from that of robosuite's model
            tcp = np.diag([-1.0, -1.0, 1.0, 1.0]) @ tcp
        fit = fit_offsets(tcp, pose_matrices(seen, "quat_xyzw"), free_base=False)
        assert (
            max(fit.position_error, fit.angle_error) < 2e-3
        )  # the model's links are rounded to a millimetre
        assert np.linalg.norm(np.array(fit.tool)[:3, 3]) < 0.003


@needs_simulators
def test_a_store_without_joints_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with what is missing and the option that records it; status 2, and nothing is written."""
    made = str(tmp_path / "in.zarr")
    task = ["task=compose/press_button", "task.images=true", "task.image_size=48"]
    assert main(["generate", *task, "episodes=1", "workers=0", f"output={made}"]) == 0
    assert main(["export", made, str(tmp_path / "set"), "--format", "interndata"]) == 2
    said = capsys.readouterr().err
    assert "no feature has components joint1 to joint7" in said
    assert "generate with task.joints=true" in said
    assert not (tmp_path / "set").exists()
