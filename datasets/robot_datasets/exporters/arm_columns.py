"""Finding an arm in a store's features by what they declare: joints, gripper, the tool's pose, and its cameras."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.store import EpisodeStore

JOINT_POSITION = "observation.joint_position"
END_EFFECTOR = "observation.end_effector"

_NUMBERED = re.compile(r"(?:[a-z0-9]+_)*joint_?(\d+)$")
_UR_JOINTS = (
    *("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint"),
    *("wrist_1_joint", "wrist_2_joint", "wrist_3_joint"),
)
_GRIPPER = re.compile(r"gripper|opening|finger")
_CONVENTIONS = {"quat_xyzw": 4, "quat_wxyz": 4, "rpy_extrinsic": 3, "axis_angle": 3}


@dataclass(frozen=True)
class ArmColumns:
    """Where one arm's joints and gripper are.

    Attributes:
        feature: The feature of the joints.
        joints: Their columns, base to hand.
        gripper_feature: The feature of the gripper.
        gripper: Its column.
        closed: Value of the closed gripper; None if the feature does not declare its polarity.
        opened: Value of the open one.
    """

    feature: str
    joints: tuple[int, ...]
    gripper_feature: str
    gripper: int
    closed: float | None = None
    opened: float | None = None

    def positions(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return (T, n + 1): joints [rad] and the gripper from 0, open, to 1, closed, or as it is if undeclared."""
        joints = columns[self.feature][:, self.joints].astype(np.float64)
        gripper = columns[self.gripper_feature][:, self.gripper].astype(np.float64)
        if self.closed is not None and self.opened is not None:
            gripper = (gripper - self.opened) / (self.closed - self.opened)
        return np.concatenate([joints, gripper[:, None]], axis=1)

    def taken(self) -> dict[str, set[int]]:
        """Return feature -> which of its components these are."""
        found: dict[str, set[int]] = {self.feature: set(self.joints)}
        found.setdefault(self.gripper_feature, set()).add(self.gripper)
        return found


@dataclass(frozen=True)
class GripperColumn:
    """A gripper of declared polarity: its feature, its component, and the values of the closed and the open one."""

    feature: str
    column: int
    closed: float
    opened: float

    def openness(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return (T,) from 0, closed, to 1, open."""
        values = columns[self.feature][:, self.column].astype(np.float64)
        return (values - self.closed) / (self.opened - self.closed)


def require_measured_arm(store: EpisodeStore, n_joints: int, layout: str, prefix: str = "") -> ArmColumns:
    """Return the arm that was measured; of several arms the one whose components begin with `prefix`.

    Raises:
        DatasetError: There is none; says why, and that `layout` is made of it.
    """
    measured = measured_arm(store.features, n_joints, prefix)
    if isinstance(measured, str):
        raise DatasetError(
            f"{store.path}: {measured}, which {layout} is made of; generate with task.joints=true, or rename the "
            "components of a feature that holds them"
        )
    return measured


def require_finite(store: EpisodeStore, names: Iterable[str]) -> None:
    """Refuse columns that have NaN or infinity, which only a damaged store can: no pose follows from them.

    Raises:
        DatasetError: One has; says which, where first, and what to do.
    """
    for name in sorted(names):
        rows = store.column(name).reshape(store.n_steps, -1)
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(wrong):
            episode = int(np.searchsorted(store.episode_ends, wrong[0], side="right"))
            step = wrong[0] - store.episode_starts[episode]
            raise DatasetError(
                f"{store.path}: {name} has NaN or infinity in {len(wrong)} steps, first in episode {episode} at step "
                f"{step}; the store is damaged: list what robot-policies check finds, and leave such episodes out "
                f"with robot-policies drop --episode {episode}"
            )


def measured_arm(features: Mapping[str, Feature], n_joints: int, prefix: str = "") -> ArmColumns | str:
    """Find the arm that was measured, among components that begin with `prefix`; a text says why there is none."""
    for name in (JOINT_POSITION, STATE):
        if name in features and (joints := _joints(features[name], n_joints, prefix)):
            return _with_gripper(features, name, joints, (name, STATE), prefix)
    there = [name for name in (JOINT_POSITION, STATE) if name in features]
    listed = "; ".join(f"{name} has {', '.join(features[name].names) or 'no names'}" for name in there)
    wanted = f"{prefix}joint1 to {prefix}joint{n_joints}"
    return f"no feature has components {wanted} in rad ({listed or 'there is neither'})"


def commanded_arm(features: Mapping[str, Feature], n_joints: int, prefix: str = "") -> ArmColumns | None:
    """Find the arm in the action, if actions are absolute joint positions; None if they are anything else."""
    action = features.get(ACTION)
    if action is None or action.meaning.startswith("delta"):
        return None
    joints = _joints(action, n_joints, prefix)
    found = _with_gripper(features, ACTION, joints, (ACTION,), prefix) if joints else ""
    return None if isinstance(found, str) else found


def commanded_gripper(features: Mapping[str, Feature], prefix: str = "") -> GripperColumn | None:
    """Find the gripper in the action; None if there is none, several, or its polarity is not declared."""
    action = features.get(ACTION)
    columns = [i for i, name in _own(action, prefix).items() if _GRIPPER.search(name)] if action else []
    ends = _polarity(action.gripper) if action else {}
    return (
        GripperColumn(ACTION, columns[0], ends["closed"], ends["open"])
        if len(columns) == 1 and ends
        else None
    )


def camera_pairs(text: str, there: Sequence[str]) -> dict[str, str]:
    """Read the option ``cameras``: ``"top=front,wrist=hand"`` -> camera of the layout -> camera of the store.

    Raises:
        DatasetError: It is written otherwise, or names a camera that is not `there`.
    """
    pairs: dict[str, str] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, equals, camera = part.partition("=")
        if not equals:
            raise DatasetError(
                f"option cameras: got '{part}', expected CAMERA_OF_THE_LAYOUT=CAMERA_OF_THE_STORE"
            )
        if camera not in there:
            raise DatasetError(f"option cameras: {unknown_name('camera', camera, there)}")
        pairs[name] = camera
    return pairs


def left_out(
    features: Mapping[str, Feature], whole: Collection[str], parts: Mapping[str, Collection[int]]
) -> list[str]:
    """Return a warning that lists what stays behind; none if nothing does.

    Args:
        features: Of the store.
        whole: Names of the features that are written, or accounted for elsewhere.
        parts: Feature -> which of its components are written.
    """
    lost = [name for name in features if name not in whole and name not in parts]
    for name, columns in parts.items():
        rest = [part for i, part in enumerate(features[name].names) if i not in columns]
        if rest and name not in whole:
            lost.append(f"{name} ({', '.join(rest)})")
    return [f"left out: {', '.join(lost)}"] if lost else []


def tool_pose(features: Mapping[str, Feature]) -> Feature | str:
    """Return the feature of the tool's pose in the arm's base; a text says why there is none to be used."""
    feature = features.get(END_EFFECTOR)
    if feature is None:
        return f"there is no {END_EFFECTOR}"
    if feature.frame not in ("", "robot_base"):
        return f"{END_EFFECTOR} is in the frame '{feature.frame}', not in the arm's base"
    count = _CONVENTIONS.get(feature.rotation)
    if count is None or feature.shape != (3 + count,):
        return f"{END_EFFECTOR} has rotation '{feature.rotation}' and shape {feature.shape}"
    return feature


def position_and_angles(pose: np.ndarray, rotation: str) -> np.ndarray:
    """Return (T, 6): position, and roll, pitch, yaw [rad] about fixed axes, from position and `rotation`."""
    from scipy.spatial.transform import Rotation

    values = np.array(pose, dtype=np.float64)  # a copy: SciPy refuses columns that are mapped read-only
    turns = values[:, 3:]
    if rotation == "rpy_extrinsic":
        return values
    if rotation == "axis_angle":
        found = Rotation.from_rotvec(turns)
    else:
        found = Rotation.from_quat(np.roll(turns, -1, axis=1) if rotation == "quat_wxyz" else turns)
    return np.concatenate([values[:, :3], found.as_euler("xyz")], axis=1)


def _own(feature: Feature, prefix: str) -> dict[int, str]:
    """Return column -> name without `prefix` of the components of one arm."""
    return {i: name.removeprefix(prefix) for i, name in enumerate(feature.names) if name.startswith(prefix)}


def _joints(feature: Feature, count: int, prefix: str) -> tuple[int, ...]:
    """Return the columns of joints 1 to `count`; empty if they are not all there exactly once, in rad."""
    own = _own(feature, prefix)
    if _UR_JOINTS[0] in own.values() and count == len(_UR_JOINTS):
        found = {_UR_JOINTS.index(name) + 1: i for i, name in own.items() if name in _UR_JOINTS}
    else:
        numbers = [
            (int(match[1]), column)
            for column, name in own.items()
            if "finger" not in name and (match := _NUMBERED.match(name))
        ]
        found = dict(numbers)
        if len(found) != len(numbers):  # two arms
            return ()
    columns = tuple(found[number] for number in sorted(found))
    units = feature.units if len(feature.units) > 1 else feature.units * len(feature.names)
    in_radians = all(units[column] in ("rad", "") for column in columns) if units else True
    return columns if sorted(found) == list(range(1, count + 1)) and in_radians else ()


def _with_gripper(
    features: Mapping[str, Feature], name: str, joints: tuple[int, ...], places: Sequence[str], prefix: str
) -> ArmColumns | str:
    for place in places:
        own = _own(features[place], prefix) if place in features else {}
        columns = [i for i, n in own.items() if _GRIPPER.search(n)]
        if len(columns) == 1:
            values = _polarity(features[place].gripper)
            return ArmColumns(name, joints, place, columns[0], values.get("closed"), values.get("open"))
    return f"no component of {' or '.join(dict.fromkeys(places))} is the one of a gripper"


def _polarity(text: str) -> dict[str, float]:
    """``"0=closed,0.04=open"`` -> {"closed": 0.0, "open": 0.04}; empty if it is anything else."""
    found: dict[str, float] = {}
    for part in text.split(","):
        value, _, word = part.partition("=")
        try:
            found[word.strip()] = float(value)
        except ValueError:
            return {}
    return found if found.keys() == {"closed", "open"} and found["closed"] != found["open"] else {}
