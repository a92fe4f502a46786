"""InternData-A1: a LeRobot v2.1 set with the columns, cameras and conventions of the published sets.

What becomes which column is decided in `interndata_plan`, and computed in `interndata_columns`. The files are those of
`LeRobotV21`, which writes the store as it looks under InternData-A1's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from robot_datasets.exporters.base import Exporter, has_record, write_record
from robot_datasets.exporters.interndata_columns import view_of
from robot_datasets.exporters.interndata_plan import FORMAT, plan_export
from robot_datasets.exporters.interndata_robots import ROBOTS
from robot_datasets.exporters.lerobot import LeRobotV21
from robot_datasets.importers.base import Option
from robot_datasets.store import EpisodeStore

_VIDEO_OPTIONS = ("codec", "crf")


class InternDataSet(Exporter):
    """Writer of InternData-A1 sets."""

    name = FORMAT
    summary = "InternData-A1: a LeRobot v2.1 set of one or two Pandas or a UR5e with the columns of the published sets"
    options: ClassVar[tuple[Option, ...]] = (
        Option("robot", "auto", "schema of the set; auto = by the store's robot", ("auto", *ROBOTS)),
        Option(
            "cameras",
            "",
            "head, hand, hand_left or hand_right=store's camera, comma-separated; empty = as they are named, or the "
            "only one as head",
        ),
        *(option for option in LeRobotV21.options if option.name in _VIDEO_OPTIONS),
    )

    def recognises(self, folder: Path) -> bool:
        """Whether it is a set that was written here; one that was downloaded is never replaced."""
        return has_record(folder, FORMAT)

    def check(self, store: EpisodeStore, options: Mapping[str, str]) -> list[str]:
        """Refuse what the layout cannot hold; list what is lost or made up."""
        plan = plan_export(store, options)
        return [*plan.losses, *LeRobotV21().check(view_of(store, plan), _as_lerobot(options))]

    def write(
        self,
        store: EpisodeStore,
        folder: Path,
        options: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write the set, and beside it who wrote it."""
        plan = plan_export(store, options)
        LeRobotV21().write(view_of(store, plan), folder, _as_lerobot(options), progress)
        write_record(folder, FORMAT, {"schema": plan.schema.name, "embodiment": store.embodiment})


def _as_lerobot(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of the LeRobot writer; readers of InternData-A1 look for frames in videos only."""
    return {"images": "video", "depth": "none"} | {name: options[name] for name in _VIDEO_OPTIONS}
