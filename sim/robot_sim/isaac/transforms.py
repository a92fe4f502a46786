"""`Vec3`, `Quat` and `Transform` with the operators of Isaac Gym's ``gymapi``; quaternions are xyzw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from robot_sim.rotations import quaternion_to_matrix


class Vec3:
    """Three numbers, to be read and written as ``x``, ``y``, ``z``."""

    dtype = np.dtype([("x", np.float32), ("y", np.float32), ("z", np.float32)])

    def __init__(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        self.x, self.y, self.z = float(x), float(y), float(z)

    def __iter__(self) -> Iterator[float]:
        return iter((self.x, self.y, self.z))

    def __add__(self, other: Vec3) -> Vec3:
        return Vec3(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: Vec3) -> Vec3:
        return Vec3(*(a - b for a, b in zip(self, other, strict=True)))

    def __mul__(self, factor: float) -> Vec3:
        return Vec3(*(a * float(factor) for a in self))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Vec3:
        return Vec3(*(a / float(divisor) for a in self))

    def __neg__(self) -> Vec3:
        return self * -1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vec3) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Vec3({self.x:.6f}, {self.y:.6f}, {self.z:.6f})"

    def length(self) -> float:
        """Return the Euclidean norm."""
        return math.sqrt(self.length_sq())

    def length_sq(self) -> float:
        """Return the squared norm."""
        return self.dot(self)

    def dot(self, other: Vec3) -> float:
        """Return the scalar product."""
        return sum(a * b for a, b in zip(self, other, strict=True))

    def cross(self, other: Vec3) -> Vec3:
        """Return the vector product."""
        return Vec3(*np.cross(tuple(self), tuple(other)))

    def normalize(self) -> Vec3:
        """Return the vector of length 1 in this direction."""
        return self / max(self.length(), 1e-12)


class Quat:
    """A rotation as a unit quaternion xyzw."""

    dtype = np.dtype([("x", np.float32), ("y", np.float32), ("z", np.float32), ("w", np.float32)])

    def __init__(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, w: float = 1.0) -> None:
        self.x, self.y, self.z, self.w = float(x), float(y), float(z), float(w)

    @staticmethod
    def from_axis_angle(axis: Vec3, angle: float) -> Quat:
        """Return the turn about an axis by an angle [rad]."""
        unit = axis.normalize() * math.sin(angle / 2)
        return Quat(unit.x, unit.y, unit.z, math.cos(angle / 2))

    @staticmethod
    def from_euler_zyx(x: float, y: float, z: float) -> Quat:
        """Return Rz(z) Ry(y) Rx(x), angles in rad."""
        about_x = Quat.from_axis_angle(Vec3(1, 0, 0), x)
        about_y = Quat.from_axis_angle(Vec3(0, 1, 0), y)
        about_z = Quat.from_axis_angle(Vec3(0, 0, 1), z)
        return about_z * about_y * about_x

    def to_euler_zyx(self) -> tuple[float, float, float]:
        """Return the angles (x, y, z) [rad] of `from_euler_zyx`."""
        m = self.matrix()
        sine = float(np.clip(-m[2, 0], -1.0, 1.0))
        return math.atan2(m[2, 1], m[2, 2]), math.asin(sine), math.atan2(m[1, 0], m[0, 0])

    def __iter__(self) -> Iterator[float]:
        return iter((self.x, self.y, self.z, self.w))

    def __mul__(self, other: Quat) -> Quat:
        ax, ay, az, aw = self
        bx, by, bz, bw = other
        return Quat(
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quat) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Quat({self.x:.6f}, {self.y:.6f}, {self.z:.6f}, {self.w:.6f})"

    def inverse(self) -> Quat:
        """Return the opposite rotation."""
        return Quat(-self.x, -self.y, -self.z, self.w)

    def normalize(self) -> Quat:
        """Return the same rotation with length 1."""
        norm = math.sqrt(sum(value * value for value in self))
        return Quat(*(value / max(norm, 1e-12) for value in self))

    def rotate(self, vector: Vec3) -> Vec3:
        """Return a vector, rotated."""
        return Vec3(*(self.matrix() @ np.array(tuple(vector))))

    def matrix(self) -> np.ndarray:
        """Return the rotation matrix (3, 3)."""
        return quaternion_to_matrix(np.array(self.normalize().wxyz()))

    def wxyz(self) -> tuple[float, float, float, float]:
        """Return the components in MuJoCo's order."""
        return self.w, self.x, self.y, self.z


class Transform:
    """A pose: position `p` [m] and rotation `r`.

    ``parent * child`` is the child's pose in the frame in which the parent's is given.
    """

    dtype = np.dtype([("p", Vec3.dtype), ("r", Quat.dtype)])

    def __init__(self, p: Vec3 | None = None, r: Quat | None = None) -> None:
        self.p = Vec3() if p is None else p
        self.r = Quat() if r is None else r

    @staticmethod
    def from_arrays(position: Any, wxyz: Any) -> Transform:
        """Return the pose of a position (3,) and a quaternion in MuJoCo's order (4,)."""
        w, x, y, z = (float(value) for value in wxyz)
        return Transform(Vec3(*position), Quat(x, y, z, w))

    def __mul__(self, other: Transform) -> Transform:
        return Transform(self.p + self.r.rotate(other.p), self.r * other.r)

    def inverse(self) -> Transform:
        """Return the pose of the parent in this frame."""
        back = self.r.inverse()
        return Transform(-back.rotate(self.p), back)

    def transform_point(self, point: Vec3) -> Vec3:
        """Return a point of this frame in the parent's."""
        return self.r.rotate(point) + self.p

    def transform_vector(self, vector: Vec3) -> Vec3:
        """Return a direction of this frame in the parent's."""
        return self.r.rotate(vector)

    def copy(self) -> Transform:
        """Return the same pose in an object of its own; actors keep copies, because tasks reuse theirs."""
        return Transform(Vec3(*self.p), Quat(*self.r))

    def __repr__(self) -> str:
        return f"Transform(p={self.p}, r={self.r})"
