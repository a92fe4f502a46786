"""Forward kinematics against MuJoCo's models of the same arms, and the fit of base and tool."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from robot_datasets.errors import DatasetError
from robot_datasets.kinematics import ARMS, PANDA, UR5E, SerialArm, fit_offsets, get_arm, pose_errors


def _random_joints(arm: SerialArm, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2.0, 2.0, (n, len(arm.links)))


def _pose(position: ArrayLike, rotation_vector: ArrayLike) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix()
    pose[:3, 3] = position
    return pose


@pytest.mark.parametrize(("arm", "folder", "tolerance"), [(PANDA, "panda", 1e-9), (UR5E, "ur5e", 2e-3)])
def test_agrees_with_mujoco(arm: SerialArm, folder: str, tolerance: float) -> None:
    """An independent model gives the same hand poses but for constant offsets of base and tool.

    robosuite's UR5e rounds its lengths to millimetres, hence the tolerance; its base is turned by half a turn about z,
    as that of Universal Robots' own URDF.
    """
    pytest.importorskip(
        "robot_sim.rendering"
    ).choose_backend()  # before mujoco loads, for the tests that draw
    robosuite = pytest.importorskip("robosuite")
    mujoco = pytest.importorskip("mujoco")
    file = Path(robosuite.__file__).parent / "models" / "assets" / "robots" / folder / "robot.xml"
    model = mujoco.MjModel.from_xml_path(str(file))
    data = mujoco.MjData(model)
    joints = _random_joints(arm, 50)
    poses = np.tile(np.eye(4), (50, 1, 1))
    for pose, angles in zip(poses, joints, strict=True):
        data.qpos[: len(angles)] = angles
        mujoco.mj_kinematics(model, data)
        pose[:3, :3] = data.body("right_hand").xmat.reshape(3, 3)
        pose[:3, 3] = data.body("right_hand").xpos
    offsets = fit_offsets(arm.flange_poses(joints), poses, free_base=True)
    assert offsets.position_error < tolerance
    assert offsets.angle_error < 1e-6
    turn = Rotation.from_matrix(np.asarray(offsets.base)[:3, :3]).as_rotvec()
    np.testing.assert_allclose(np.abs(turn), [0, 0, 0 if arm is PANDA else np.pi], atol=1e-6)


def test_known_poses_by_hand() -> None:
    """Stretched out: the Panda's lengths add up, the UR5e lies along -x with its flange along -y."""
    panda = PANDA.flange_poses(np.zeros((1, 7)))[0]
    np.testing.assert_allclose(panda[:3, 3], [0.088, 0, 0.333 + 0.316 + 0.384 - 0.107], atol=1e-12)
    np.testing.assert_allclose(panda[:3, 2], [0, 0, -1], atol=1e-12)
    ur5e = UR5E.flange_poses(np.zeros((1, 6)))[0]
    np.testing.assert_allclose(ur5e[:3, 3], [-0.425 - 0.3922, -0.1333 - 0.0996, 0.1625 - 0.0997], atol=1e-12)


@pytest.mark.parametrize("arm", list(ARMS.values()), ids=list(ARMS))
@given(seed=st.integers(0, 2**16), free_base=st.booleans())
def test_offsets_are_found_again(arm: SerialArm, seed: int, free_base: bool) -> None:
    """Whatever base and tool turned flange poses into records, the fit turns them into the same records."""
    random = np.random.default_rng(seed)
    base = _pose(random.normal(size=3), random.normal(size=3)) if free_base else np.eye(4)
    tool = _pose(random.normal(size=3) / 5, random.normal(size=3))
    flange = arm.flange_poses(_random_joints(arm, 12, seed))
    offsets = fit_offsets(flange, base @ flange @ tool, free_base=free_base)
    np.testing.assert_allclose(offsets.base, base, atol=1e-6)
    np.testing.assert_allclose(offsets.tool, tool, atol=1e-6)
    assert offsets.position_error < 1e-6
    assert offsets.angle_error < 1e-6


def test_a_wrong_rotation_convention_does_not_fit() -> None:
    """Poses read with intrinsic instead of extrinsic angles leave an error that cannot be overlooked."""
    flange = PANDA.flange_poses(_random_joints(PANDA, 40))
    misread = flange.copy()
    angles = Rotation.from_matrix(flange[:, :3, :3]).as_euler("xyz")
    misread[:, :3, :3] = Rotation.from_euler("XYZ", angles).as_matrix()
    assert fit_offsets(flange, misread, free_base=True).angle_error > 0.5


def test_pose_errors_are_metres_and_radians() -> None:
    """A known shift and turn come back as such."""
    moved = _pose([0.3, 0, 0.4], [0, 0, 0.25])[None]
    distance, angle = pose_errors(np.eye(4)[None], moved)
    np.testing.assert_allclose([distance[0], angle[0]], [0.5, 0.25])


@pytest.mark.parametrize("shape", [(3, 6), (7,), (2, 8)])
def test_wrong_joints_are_refused(shape: tuple[int, ...]) -> None:
    """The number of joints is the arm's."""
    with pytest.raises(DatasetError, match="panda has 7 joints"):
        PANDA.flange_poses(np.zeros(shape))


def test_too_few_poses_and_unknown_arms_are_refused() -> None:
    """Nothing can be fitted to two poses, and an unknown arm names the nearest."""
    with pytest.raises(DatasetError, match="at least three"):
        fit_offsets(np.tile(np.eye(4), (2, 1, 1)), np.tile(np.eye(4), (2, 1, 1)), free_base=False)
    with pytest.raises(DatasetError, match="did you mean 'panda'"):
        get_arm("pandas")
