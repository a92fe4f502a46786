"""Forward kinematics of a few arms, from their makers' Denavit-Hartenberg tables, and the offsets data leaves out.

`SerialArm.flange_poses` gives the pose of the flange in the arm's base frame. What a dataset records is usually
the pose of some tool in some base: ``recorded = base @ flange @ tool``. `fit_offsets` finds the two constant
transforms from poses and joints recorded together, and says how well they fit.

Poses are (T, 4, 4) homogeneous matrices, metres; joints are radians in the maker's order and zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robot_datasets.errors import DatasetError, unknown_name

_HALF = float(np.pi / 2)


@dataclass(frozen=True)
class SerialArm:
    """A chain of revolute joints.

    Attributes:
        name: Short name, a key of `ARMS`.
        links: Per joint (a [m], alpha [rad], d [m]); theta is the joint angle.
        convention: ``"modified"`` (Craig: a and alpha of the link before the joint) or ``"standard"``
            (Denavit and Hartenberg: a and alpha of the link after it).
        flange: Distance of the flange from the last joint's frame along its z axis [m].
        source: Where the numbers were published.
    """

    name: str
    links: tuple[tuple[float, float, float], ...]
    convention: Literal["modified", "standard"]
    flange: float
    source: str

    def flange_poses(self, joints: np.ndarray) -> np.ndarray:
        """Return the flange in the base frame.

        Args:
            joints: (T, n) angles [rad], n = number of links.

        Returns:
            (T, 4, 4) poses.

        Raises:
            DatasetError: `joints` has another number of columns.
        """
        angles = np.asarray(joints, dtype=np.float64)
        if angles.ndim != 2 or angles.shape[1] != len(self.links):
            raise DatasetError(
                f"{self.name} has {len(self.links)} joints, got angles of shape {angles.shape}"
            )
        pose = np.broadcast_to(np.eye(4), (len(angles), 4, 4))
        for column, (a, alpha, d) in enumerate(self.links):
            turn = _screw_z(angles[:, column], d)
            pose = (
                pose @ _screw_x(alpha, a) @ turn
                if self.convention == "modified"
                else pose @ turn @ _screw_x(alpha, a)
            )
        return pose @ _screw_z(np.zeros(1), self.flange)[0]

    def tool_point(self, joints: Sequence[float], tool: Sequence[float]) -> tuple[float, float, float]:
        """Return where a point fixed to the flange is, for one posture, in plain Python: a tenth of the cost.

        The point is handed from link to link. Who records it and who is shown it use this, so both have the same bits.

        Args:
            joints: (n,) angles [rad].
            tool: The point in the frame of the flange, x, y, z [m].

        Returns:
            x, y, z in the base frame [m].
        """
        x, y, z = tool[0], tool[1], tool[2] + self.flange
        modified = self.convention == "modified"
        for (a, alpha, d), angle in zip(reversed(self.links), reversed(joints), strict=True):
            c, s, ca, sa = math.cos(angle), math.sin(angle), math.cos(alpha), math.sin(alpha)
            if not modified:
                x, y, z = x + a, ca * y - sa * z, sa * y + ca * z
            x, y, z = c * x - s * y, s * x + c * y, z + d
            if modified:
                x, y, z = x + a, ca * y - sa * z, sa * y + ca * z
        return float(x), float(y), float(z)


_PANDA_LINKS = (
    (0.0, 0.0, 0.333),
    (0.0, -_HALF, 0.0),
    (0.0, _HALF, 0.316),
    (0.0825, _HALF, 0.0),
    (-0.0825, -_HALF, 0.384),
    (0.0, _HALF, 0.0),
    (0.088, _HALF, 0.0),
)

PANDA = SerialArm(
    "panda",
    _PANDA_LINKS,
    "modified",
    0.107,
    "Franka Control Interface documentation, Denavit-Hartenberg parameters",
)
FR3 = SerialArm(
    "fr3",
    _PANDA_LINKS,
    "modified",
    0.107,
    "Franka Control Interface documentation; the FR3's are the Panda's",
)
UR5E = SerialArm(
    "ur5e",
    (
        (0.0, _HALF, 0.1625),
        (-0.425, 0.0, 0.0),
        (-0.3922, 0.0, 0.0),
        (0.0, _HALF, 0.1333),
        (0.0, -_HALF, 0.0997),
        (0.0, 0.0, 0.0996),
    ),
    "standard",
    0.0,
    "Universal Robots, DH parameters for calculations of kinematics and dynamics (UR5e)",
)

ARMS: Mapping[str, SerialArm] = {arm.name: arm for arm in (PANDA, FR3, UR5E)}


def get_arm(name: str) -> SerialArm:
    """Return an arm of `ARMS`; unknown ones are an error with the nearest match."""
    if name not in ARMS:
        raise DatasetError(unknown_name("arm", name, ARMS))
    return ARMS[name]


@dataclass(frozen=True)
class Offsets:
    """The constant transforms between a flange and a recorded pose: ``recorded = base @ flange @ tool``.

    Attributes:
        base: Arm's base in the frame of reference of the recorded poses, (4, 4) as nested tuples.
        tool: Tool in the flange's frame, (4, 4) as nested tuples.
        position_error: Largest distance between fit and record [m]; 0 if nothing was fitted.
        angle_error: Largest angle between fit and record [rad].
    """

    base: tuple[tuple[float, ...], ...]
    tool: tuple[tuple[float, ...], ...]
    position_error: float = 0.0
    angle_error: float = 0.0

    @classmethod
    def of(cls, base: np.ndarray, tool: np.ndarray) -> Offsets:
        """Wrap two (4, 4) matrices."""
        return cls(_tuples(base), _tuples(tool))

    def apply(self, flange: np.ndarray) -> np.ndarray:
        """Return ``base @ flange @ tool`` for (T, 4, 4) flange poses."""
        return np.asarray(self.base) @ flange @ np.asarray(self.tool)


def fit_offsets(flange: np.ndarray, recorded: np.ndarray, *, free_base: bool) -> Offsets:
    """Find the base and tool transforms that turn flange poses into recorded ones, by least squares.

    Rotations are found first: with a free base, the axes of the turns since the first pose are the same in
    both but for the base's rotation (Kabsch); the tool's rotation is then the mean of what is left. Positions
    are linear in both translations.

    Args:
        flange: (T, 4, 4) poses by forward kinematics.
        recorded: (T, 4, 4) poses recorded at the same times.
        free_base: Fit the base too; else it is the identity. A free base needs turns about different axes.

    Returns:
        The offsets with the largest errors of the fit.

    Raises:
        DatasetError: Fewer than three poses, or different numbers of them.
    """
    if len(flange) != len(recorded) or len(flange) < 3:
        raise DatasetError(
            f"{len(flange)} and {len(recorded)} poses; expected the same number, at least three"
        )
    turn, target = flange[:, :3, :3], recorded[:, :3, :3]
    base = np.eye(4)
    if free_base:
        base[:3, :3] = _kabsch(_rotation_vectors(turn @ turn[0].T), _rotation_vectors(target @ target[0].T))
    tool = np.eye(4)
    tool[:3, :3] = nearest_rotation(np.mean(np.swapaxes(base[:3, :3] @ turn, 1, 2) @ target, axis=0))
    turned = base[:3, :3] @ turn
    missing = recorded[:, :3, 3] - flange[:, :3, 3] @ base[:3, :3].T
    columns = [turned.reshape(-1, 3)]
    if free_base:
        columns.append(np.tile(np.eye(3), (len(flange), 1)))
    solution = np.linalg.lstsq(np.concatenate(columns, axis=1), missing.reshape(-1), rcond=1e-9)[0]
    tool[:3, 3] = solution[:3]
    if free_base:
        base[:3, 3] = solution[3:]
    fitted = Offsets.of(base, tool)
    position, angle = pose_errors(fitted.apply(flange), recorded)
    return Offsets(fitted.base, fitted.tool, float(position.max()), float(angle.max()))


def pose_errors(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances [m] and angles [rad], (T,) each, between poses (T, 4, 4)."""
    between = np.swapaxes(first[:, :3, :3], 1, 2) @ second[:, :3, :3]
    return (
        np.linalg.norm(first[:, :3, 3] - second[:, :3, 3], axis=1),
        np.linalg.norm(_rotation_vectors(between), axis=1),
    )


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation closest to a (3, 3) matrix (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt


def _kabsch(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rotation that best turns `source` (N, 3) into `target`."""
    return nearest_rotation(target.T @ source)


def _rotation_vectors(matrices: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrices).as_rotvec()


def _screw_x(angle: float, offset: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0, offset], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]], dtype=np.float64)


def _screw_z(angles: np.ndarray, offset: float) -> np.ndarray:
    c, s = np.cos(angles), np.sin(angles)
    pose = np.zeros((len(angles), 4, 4))
    pose[:, 0, 0], pose[:, 0, 1], pose[:, 1, 0], pose[:, 1, 1] = c, -s, s, c
    pose[:, 2, 2] = pose[:, 3, 3] = 1.0
    pose[:, 2, 3] = offset
    return pose


def _tuples(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in matrix)
