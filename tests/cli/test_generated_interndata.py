"""From a simulated demonstration to an InternData-A1 set and back, by the commands that users type."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.features import ACTION, STATE
from robot_datasets.importers.robomind_pose import pose_matrices
from robot_datasets.kinematics import PANDA, fit_offsets
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
