"""What a number in a dataset means: `Feature`, the type shared by data, policies, tasks and robots.

Feature names follow LeRobot: ``observation.state``, ``observation.images.<camera>``, ``action``,
``observation.environment_state``. A feature that does not declare its units or conventions cannot be
compared with another one, so every component carries a name, and conventions are spelled out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from robot_datasets.errors import DatasetError, unknown_name

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
ACTION = "action"
IMAGE_PREFIX = "observation.images."
DEPTH_PREFIX = "observation.depth."

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "uint16", "bool")
ROTATIONS = ("", "quat_xyzw", "quat_wxyz", "rpy_extrinsic", "rpy_intrinsic", "rot6d", "axis_angle", "yaw")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One named array of a dataset, policy, task or robot.

    Attributes:
        dtype: NumPy dtype name, one of `DTYPES`. Images are ``uint8``, depth is ``uint16``.
        shape: Shape of one time step. Images are (height, width, channels); a 0 marks a size that varies.
        names: One name per component of a 1-D feature, e.g. joint names; empty if unknown or an image.
        units: One unit per component (``"rad"``, ``"m"``, ``"px"``, ``"1"``), or a single one for all.
        frame: Frame of reference, e.g. ``"robot_base"``, ``"world"``, ``"image"``; empty if none applies.
        rotation: Rotation convention of the rotational part, one of `ROTATIONS`; empty if there is none.
        gripper: Polarity of the gripper component, e.g. ``"0=open,1=closed"``; empty if there is none.
        meaning: For actions: what the command is, e.g. ``"absolute position"``, ``"delta pose"``,
            ``"puppet_next"``; empty for observations.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    frame: str = ""
    rotation: str = ""
    gripper: str = ""
    meaning: str = ""

    def __post_init__(self) -> None:
        for name in ("shape", "names", "units"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.dtype not in DTYPES:
            raise DatasetError(unknown_name("feature dtype", self.dtype, DTYPES))
        if self.rotation not in ROTATIONS:
            raise DatasetError(unknown_name("rotation convention", self.rotation, ROTATIONS))
        if self.names and (len(self.shape) != 1 or len(self.names) != self.shape[0]):
            raise DatasetError(f"feature has {len(self.names)} component names for shape {self.shape}")
        if len(self.units) > 1 and (len(self.shape) != 1 or len(self.units) != self.shape[0]):
            raise DatasetError(
                f"feature has {len(self.units)} units for shape {self.shape}; give 1 or one each"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; empty fields are left out."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key in ("dtype", "shape") or value not in ("", ())
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "feature") -> Feature:
        """Build from `to_dict`'s mapping; unknown keys are an error that names `where`."""
        known = set(cls.__dataclass_fields__)
        for key in values:
            if key not in known:
                raise DatasetError(f"{where}: {unknown_name('feature field', key, known)}")
        missing = {"dtype", "shape"} - set(values)
        if missing:
            raise DatasetError(f"{where}: missing feature field {', '.join(sorted(missing))}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)


def is_image(name: str) -> bool:
    """Whether a feature of this name is a colour image or a depth image (stored encoded, not as an array)."""
    return name.startswith((IMAGE_PREFIX, DEPTH_PREFIX))


def camera_name(feature: str) -> str:
    """``observation.images.top`` -> ``top``."""
    for prefix in (IMAGE_PREFIX, DEPTH_PREFIX):
        if feature.startswith(prefix):
            return feature[len(prefix) :]
    raise DatasetError(f"'{feature}' is not an image feature; expected {IMAGE_PREFIX}<camera>")


@dataclass(frozen=True, kw_only=True)
class FeatureMismatch:
    """One difference between what is needed and what is there; see `compare_features`."""

    name: str
    problem: str
    candidates: tuple[str, ...] = field(default=())


def compare_features(
    needed: Mapping[str, Feature], available: Mapping[str, Feature]
) -> list[FeatureMismatch]:
    """List what of `needed` is missing from `available`, or there with another shape, names or convention.

    A field that either side leaves empty is not compared. A size of 0 matches any size.
    """
    problems: list[FeatureMismatch] = []
    for name, want in needed.items():
        have = available.get(name)
        if have is None:
            problems.append(
                FeatureMismatch(name=name, problem="is missing", candidates=tuple(sorted(available)))
            )
            continue
        same_rank = len(want.shape) == len(have.shape)
        if not same_rank or any(w and h and w != h for w, h in zip(want.shape, have.shape, strict=True)):
            problems.append(
                FeatureMismatch(name=name, problem=f"has shape {have.shape}, expected {want.shape}")
            )
        for attribute in ("names", "units", "frame", "rotation", "gripper", "meaning"):
            a, b = getattr(want, attribute), getattr(have, attribute)
            if a and b and a != b:
                problems.append(FeatureMismatch(name=name, problem=f"has {attribute} {b}, expected {a}"))
    return problems
