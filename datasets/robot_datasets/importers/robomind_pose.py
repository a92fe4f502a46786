"""End-effector poses of RoboMIND 1.x recomputed from the joints, because many recorded ones are frozen.

Forward kinematics gives the flange in the arm's base. What was recorded is the pose of some tool, maybe in another
base; neither is documented. Both offsets are estimated from episodes of the same source whose poses are healthy,
or given with the option ``tool``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import STATE
from robot_datasets.importers.robomind_quality import END_EFFECTOR, ArmColumns, frozen_pose
from robot_datasets.kinematics import Offsets, fit_offsets, get_arm, pose_errors

RECORDED, REPAIR, RECOMPUTE = "recorded", "repair", "fk"
CHOICES = (RECORDED, REPAIR, RECOMPUTE)
"""Poses as recorded; recomputed where they are frozen; all recomputed."""

_ARMS = {
    "franka": "panda",
    "franka_dual": "panda",
    "franka_fr3_dual": "fr3",
    "ur5e": "ur5e",
    "ur5e_dual": "ur5e",
    "ur5e_dual_dexterous": "ur5e",
}
_HEALTHY_EPISODES = 4
_EPISODES_OPENED = 60
_ROWS_PER_EPISODE = 48
_POSITION_LIMIT = 0.02
_ANGLE_LIMIT = math.radians(3)
_MIN_TURN = 0.2

EpisodeArrays = Callable[[Any], tuple[np.ndarray, np.ndarray]]
"""Reads (state, end effector) of one trajectory; raises `EpisodeError`."""


@dataclass(frozen=True)
class PoseModel:
    """How poses follow from joints.

    Attributes:
        arm: Name in `robot_datasets.kinematics.ARMS`.
        rotation: Rotation convention of the end-effector feature.
        offsets: Base and tool, one for each arm of the robot.
        always: Recompute every episode, not only frozen ones.
    """

    arm: str
    rotation: str
    offsets: tuple[Offsets, ...]
    always: bool

    def recompute(self, joints: np.ndarray, number: int) -> np.ndarray:
        """Return (T, 6) or (T, 7) poses of arm `number` in the feature's convention from (T, n) joints [rad]."""
        poses = self.offsets[number].apply(get_arm(self.arm).flange_poses(joints))
        return pose_columns(poses, self.rotation)


def pose_matrices(columns: np.ndarray, rotation: str) -> np.ndarray:
    """Return (T, 4, 4) from position and rotation side by side.

    Raises:
        EpisodeError: A quaternion is no rotation.
    """
    from scipy.spatial.transform import Rotation

    poses = np.tile(np.eye(4), (len(columns), 1, 1))
    poses[:, :3, 3] = columns[:, :3]
    try:
        turn = (
            Rotation.from_euler("xyz", columns[:, 3:6])
            if rotation == "rpy_extrinsic"
            else Rotation.from_quat(columns[:, 3:7])
        )
    except ValueError as error:
        raise EpisodeError(f"{END_EFFECTOR} holds no rotations: {error}") from error
    poses[:, :3, :3] = turn.as_matrix()
    return poses


def pose_columns(poses: np.ndarray, rotation: str) -> np.ndarray:
    """Return position and rotation side by side from (T, 4, 4); the inverse of `pose_matrices`."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(poses[:, :3, :3])
    angles = turn.as_euler("xyz") if rotation == "rpy_extrinsic" else turn.as_quat()
    return np.concatenate([poses[:, :3, 3], angles], axis=1)


def pose_model(
    robot: str,
    rotation: str,
    arms: Sequence[ArmColumns],
    options: Mapping[str, str],
    trajectories: Sequence[Any],
    read: EpisodeArrays,
) -> tuple[PoseModel | None, dict[str, Any]]:
    """Prepare recomputing poses, if the options ask for it.

    Args:
        robot: The schema's robot.
        rotation: Rotation convention of the end-effector feature.
        arms: Its arms.
        options: ``end_effector`` and ``tool``.
        trajectories: All episodes, to find healthy ones.
        read: Reads one.

    Returns:
        The model, or None to keep what is recorded; and facts to record in the store.

    Raises:
        DatasetError: The robot has no table of kinematics, or its tool is unknown and cannot be estimated.
    """
    if options["end_effector"] == RECORDED:
        return None, {}
    if robot not in _ARMS or not all(arm.pose for arm in arms):
        raise DatasetError(
            f"end_effector={options['end_effector']} needs the kinematics of the arm, known for "
            f"{', '.join(sorted(_ARMS))}, not for {robot}; use end_effector=recorded"
        )
    name = _ARMS[robot]
    offsets = _given_offsets(options["tool"], len(arms))
    used = 0
    if offsets is None:
        offsets, used = _estimated_offsets(name, rotation, arms, trajectories, read)
    model = PoseModel(name, rotation, offsets, always=options["end_effector"] == RECOMPUTE)
    facts = {
        "arm": name,
        "dh_parameters": get_arm(name).source,
        "tool": options["tool"],
        "healthy_episodes": used,
    }
    facts["offsets"] = [
        {
            "arm": arm.name or "only",
            "tool_xyz_rpy": _six_numbers(offset.tool),
            "base_xyz_rpy": _six_numbers(offset.base),
            "position_error_m": round(offset.position_error, 6),
            "angle_error_rad": round(offset.angle_error, 6),
        }
        for arm, offset in zip(arms, offsets, strict=True)
    ]
    return model, {"end_effector_from_joints": facts}


def _given_offsets(text: str, count: int) -> tuple[Offsets, ...] | None:
    if text == "estimate":
        return None
    if text == "flange":
        return (Offsets.of(np.eye(4), np.eye(4)),) * count
    try:
        numbers = np.array([float(v) for v in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise DatasetError(
            f"option tool is '{text}'; expected estimate, flange, or x,y,z,roll,pitch,yaw of the tool on the flange "
            "[m, rad], for example 0,0,0.1034,0,0,-0.7854"
        )
    return (Offsets.of(np.eye(4), pose_matrices(numbers[None], "rpy_extrinsic")[0]),) * count


def _estimated_offsets(
    name: str, rotation: str, arms: Sequence[ArmColumns], trajectories: Sequence[Any], read: EpisodeArrays
) -> tuple[tuple[Offsets, ...], int]:
    samples = _healthy_samples(name, arms, trajectories, read)
    fitted = tuple(
        _fit(
            name, [flange for flange, _ in found], [pose_matrices(columns, rotation) for _, columns in found]
        )
        for found in samples
    )
    return fitted, min(map(len, samples))


def _healthy_samples(
    name: str, arms: Sequence[ArmColumns], trajectories: Sequence[Any], read: EpisodeArrays
) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Return, for each arm, (flange poses, recorded columns) of some steps of a few healthy episodes."""
    samples: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in arms]
    for trajectory in _spread(trajectories):
        if all(len(found) >= _HEALTHY_EPISODES for found in samples):
            break
        try:
            state, pose = read(trajectory)
        except DatasetError:
            continue  # a damaged file tells nothing; it is reported when it is converted
        for found, arm in zip(samples, arms, strict=True):
            joints, columns = state[:, arm.joints], pose[:, arm.pose]
            if len(found) < _HEALTHY_EPISODES and _is_healthy(joints, columns):
                rows = np.unique(np.linspace(0, len(joints) - 1, _ROWS_PER_EPISODE).astype(int))
                found.append((get_arm(name).flange_poses(joints[rows]), columns[rows]))
    return samples


def quaternion_order(
    robot: str, arms: Sequence[ArmColumns], trajectories: Sequence[Any], read: EpisodeArrays
) -> tuple[str, dict[str, float]]:
    """Find out by geometry in which order recorded quaternions are, because readers of the data disagree.

    Only with the true order do the recorded turns follow from the joints, whatever tool and base.

    Returns:
        ``"xyzw"`` or ``"wxyz"``, empty if it cannot be told; and the median angle [rad] that each order leaves.
    """
    if robot not in _ARMS or not all(arm.pose for arm in arms):
        return "", {}
    left_over: dict[str, float] = {}
    for found in _healthy_samples(_ARMS[robot], arms, trajectories, read):
        if not found:
            continue
        flange = np.concatenate([poses for poses, _ in found])
        columns = np.concatenate([values for _, values in found])
        for order in ("xyzw", "wxyz"):
            recorded = pose_matrices(columns if order == "xyzw" else to_xyzw(columns), "quat_xyzw")
            fitted = fit_offsets(flange, recorded, free_base=True).apply(flange)
            error = float(np.median(pose_errors(fitted, recorded)[1]))
            left_over[order] = max(left_over.get(order, 0.0), round(error, 6))
    if not left_over:
        return "", {}
    best, other = sorted(left_over, key=lambda order: left_over[order])
    return best if left_over[best] < _ANGLE_LIMIT < left_over[other] else "", left_over


def to_xyzw(pose: np.ndarray) -> np.ndarray:
    """Return (T, 7) poses with quaternions wxyz as ones with xyzw."""
    return np.concatenate([pose[:, :3], pose[:, 4:7], pose[:, 3:4]], axis=1)


def _is_healthy(joints: np.ndarray, pose: np.ndarray) -> bool:
    finite = len(joints) > 2 and np.isfinite(joints).all() and np.isfinite(pose).all()
    finite = finite and (pose.shape[1] < 7 or bool((np.linalg.norm(pose[:, 3:], axis=1) > 0.5).all()))
    return bool(finite and np.ptp(joints, axis=0).max() > _MIN_TURN and not frozen_pose(joints, pose))


def _fit(name: str, flange: Sequence[np.ndarray], recorded: Sequence[np.ndarray]) -> Offsets:
    if not flange:
        raise DatasetError(
            f"the tool on the {name}'s flange is not documented, and no episode with healthy poses was found to "
            "estimate it from; give it with --option tool=x,y,z,roll,pitch,yaw, or take the flange with tool=flange"
        )
    poses = np.concatenate(flange), np.concatenate(recorded)
    for free_base in (False, True):
        offsets = fit_offsets(*poses, free_base=free_base)
        if offsets.position_error <= _POSITION_LIMIT and offsets.angle_error <= _ANGLE_LIMIT:
            return offsets
    raise DatasetError(
        f"the recorded poses do not follow from the joints of a {name}: off by up to {offsets.position_error:.3f} m "
        f"and {math.degrees(offsets.angle_error):.1f} degrees; give --option tool=..., or use end_effector=recorded"
    )


def _spread(trajectories: Sequence[Any]) -> Iterable[Any]:
    step = max(1, len(trajectories) // _EPISODES_OPENED)
    return trajectories[::step][:_EPISODES_OPENED]


def _six_numbers(matrix: tuple[tuple[float, ...], ...]) -> list[float]:
    return [round(float(v), 6) for v in pose_columns(np.asarray(matrix)[None], "rpy_extrinsic")[0]]


def repaired(
    data: Mapping[str, np.ndarray], arms: Sequence[ArmColumns], model: PoseModel | None
) -> tuple[np.ndarray | None, list[str]]:
    """Look for frozen end effectors and recompute what the model asks for.

    Returns:
        The end effector (T, D), or None to keep it; and a warning for each arm that is frozen.
    """
    pose: np.ndarray | None = None
    warnings = []
    for number, arm in enumerate(arms):
        if not arm.pose:
            continue
        joints = np.asarray(data[STATE], dtype=np.float64)[:, arm.joints]
        fault = frozen_pose(joints, data[END_EFFECTOR][:, arm.pose])
        if model is not None and (model.always or fault):
            pose = np.array(data[END_EFFECTOR], dtype=np.float64) if pose is None else pose
            pose[:, arm.pose] = model.recompute(joints, number)
        if fault:
            done = (
                "recomputed from the joints"
                if model is not None
                else "kept; recompute it with --option end_effector=repair"
            )
            warnings.append(
                f"{END_EFFECTOR}: the pose of the {arm.name + ' ' if arm.name else ''}arm {fault}; {done}"
            )
    return pose, warnings
