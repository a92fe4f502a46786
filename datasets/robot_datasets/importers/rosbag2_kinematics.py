"""The part of a bag's map that says: not the joints of this message, but where they lead the tool."""

from __future__ import annotations

from dataclasses import dataclass

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.kinematics import ARMS


@dataclass(frozen=True, kw_only=True)
class MapKinematics:
    """Makes of an arm's joint angles where a point of its tool is: x, y, z in the base frame [m].

    Attributes:
        arm: Arm of `robot_datasets.kinematics`.
        tool: The point in the frame of the flange [m].
    """

    arm: str
    tool: tuple[float, ...] = (0.0, 0.0, 0.0)

    def check(self, joints: int, where: str) -> None:
        """Refuse an unknown arm, another number of `joints` than it has, or a tool that is no point.

        Raises:
            DatasetError: With the place in the map, `where`.
        """
        if self.arm not in ARMS:
            raise DatasetError(f"{where}.kinematics.arm: {unknown_name('arm', self.arm, ARMS)}")
        wanted = len(ARMS[self.arm].links)
        if joints != wanted or len(self.tool) != 3:
            raise DatasetError(
                f"{where}.kinematics: {joints} joints and a tool of {len(self.tool)} numbers; expected the {wanted} "
                f"joints of '{self.arm}', and x, y, z"
            )
