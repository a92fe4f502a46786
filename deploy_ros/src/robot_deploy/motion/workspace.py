r"""Where the tool may be: a box in the frame of the arm's base, one face of which can be the table.

Positions are checked at knots, once per command period. Between two knots the tool leaves the straight line by
at most T² P / 8, where P bounds the tool's acceleration; a box is convex, so a path whose knots lie in the box
shrunk by that much lies in the box. For a chain of revolute joints, with R_i the largest distance of the tool
from axis i, ``|p''| <= sum_i R_i A_i + sum_ij V_i V_j R_max(i,j)``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robot_datasets.kinematics import SerialArm
from robot_deploy.motion.limits import LimitsError, MotionLimits


class ToolModel(Protocol):
    """Where an arm's tool is."""

    def reach(self) -> np.ndarray:
        """(n,) upper bounds of the tool's distance from each joint's axis [m]; non-increasing."""
        ...

    def position(self, joints: np.ndarray) -> np.ndarray:
        """Tool positions (T, 3) [m] in the base frame, for joints (T, n) [rad]."""
        ...


class SerialTool:
    """The tool of an arm of `robot_datasets.kinematics`: a point fixed to its flange."""

    def __init__(self, arm: SerialArm, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        """Fix a tool.

        Args:
            arm: The arm.
            offset: The tool's point in the frame of the flange [m].
        """
        self._arm, self._offset = arm, np.array([*offset, 1.0])

    def reach(self) -> np.ndarray:
        """(n,) bounds [m]: the lengths of all links from the joint on, flange and offset included."""
        links = self._arm.links
        # A link's a and d both count from its own joint on; modified tables state a for the link before.
        lengths = np.array([abs(d) for _, _, d in links])
        a = np.array([abs(a) for a, _, _ in links])
        lengths += np.append(a[1:], 0.0) if self._arm.convention == "modified" else a
        end = abs(self._arm.flange) + float(np.linalg.norm(self._offset[:3]))
        return np.cumsum(lengths[::-1])[::-1] + end

    def position(self, joints: np.ndarray) -> np.ndarray:
        """Tool positions (T, 3) [m] in the base frame, for joints (T, n) [rad]."""
        if len(joints) == 1:
            return np.array([self._arm.tool_point(joints[0].tolist(), self._offset[:3].tolist())])
        return (self._arm.flange_poses(joints) @ self._offset)[:, :3]


class Workspace:
    """A box that the tool stays in."""

    def __init__(
        self, tool: ToolModel, *, joints: slice, lower: tuple[float, ...], upper: tuple[float, ...]
    ) -> None:
        """Set the box.

        Args:
            tool: The tool.
            joints: Which of the filter's joints are the arm's, in the order of the tool's model.
            lower: Smallest x, y, z of the tool in the base frame [m]; z is the table. -inf for none.
            upper: Largest x, y, z [m]; inf for none.

        Raises:
            LimitsError: Not three numbers each, or an empty box.
        """
        self._tool, self._joints = tool, joints
        self._lower, self._upper = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
        if self._lower.shape != (3,) or self._upper.shape != (3,) or not np.all(self._lower < self._upper):
            raise LimitsError(
                f"workspace {list(lower)} to {list(upper)}; expected x, y, z, the first one below"
            )

    def inset(self, limits: MotionLimits, period: float) -> float:
        """How far knots have to stay inside the box, so that the path between them does [m].

        Raises:
            LimitsError: Nothing of the box is left, or the arm has another number of joints.
        """
        reach = self._tool.reach()
        v, a = limits.velocity[self._joints], limits.acceleration[self._joints]
        if v.shape != reach.shape:
            raise LimitsError(f"the workspace's arm has {len(reach)} joints, the filter gives it {len(v)}")
        later = np.minimum.outer(
            reach, reach
        )  # reach falls along the chain: the smaller is the later joint's
        inset = period**2 / 8.0 * float(reach @ a + v @ later @ v)
        if np.any(self._upper - self._lower <= 2.0 * inset):
            raise LimitsError(
                f"workspace {self._lower.tolist()} to {self._upper.tolist()} is thinner than the {2e3 * inset:.1f} mm "
                f"that a command period of {period:g} s leaves undecided; enlarge it, or command faster"
            )
        return inset

    def inside(self, positions: np.ndarray, *, inset: float) -> np.ndarray:
        """(...) bool for joint positions (..., n): whether the tool is in the box shrunk by `inset` [m]."""
        joints = positions[..., self._joints]
        tool = self._tool.position(joints.reshape(-1, joints.shape[-1]))
        good = np.all((tool >= self._lower + inset) & (tool <= self._upper - inset), axis=1)
        return good.reshape(joints.shape[:-1])

    def require_inside(self, positions: np.ndarray, *, inset: float) -> None:
        """Raise `LimitsError` unless the tool is inside for all joint positions (..., n)."""
        inside = self.inside(positions, inset=inset)
        if not inside.all():
            first = positions.reshape(-1, positions.shape[-1])[int(np.flatnonzero(~inside.ravel())[0])]
            at = self._tool.position(first[None, self._joints])[0]
            raise LimitsError(
                f"the tool is at {np.round(at, 4).tolist()} m, expected {(self._lower + inset).round(4).tolist()} to "
                f"{(self._upper - inset).round(4).tolist()}; move it there by hand first"
            )
