"""The episode table of a store, gathered from the events of a journal without keeping them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from robot_datasets.store import layout
from robot_datasets.store.arrays import TextColumn, write_column
from robot_datasets.store.zarr_files import ZarrFiles

_SUCCESS_CODE = {None: -1, False: 0, True: 1}


class EpisodeTable:
    """Columns per episode, per segment, per warning and per episode set aside.

    Takes some hundred bytes an episode, so that a store of a million is no question of memory.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.n_steps = array("q")
        """Steps of each episode."""
        self._tasks: dict[str, int] = {}
        self._task_index, self._success, self._checksum = array("q"), array("b"), bytearray()
        self._segments = {name: array("q") for name in ("episode", "start", "end")}
        self._warned = array("q")
        names = ("source_id", "split", "tag", "text", "left_out", "reason", "warning")
        self._texts = {name: TextColumn() for name in names}
        for event in events:
            if "quarantine" in event:
                self._texts["left_out"].add(event["quarantine"])
                self._texts["reason"].add(event["reason"])
            else:
                self._add(event)

    def write(self, files: ZarrFiles) -> None:
        """Write all arrays below ``meta`` but the statistics."""
        ends = np.cumsum(np.fromiter(self.n_steps, np.int64))
        write_column(files, layout.EPISODE_ENDS, ends)
        TextColumn(self._tasks).write(files, layout.TASKS)
        columns = {
            "task_index": np.fromiter(self._task_index, np.int64),
            "success": np.fromiter(self._success, np.int8),
            "n_steps": np.fromiter(self.n_steps, np.int64),
            "checksum": np.frombuffer(self._checksum, dtype=np.uint8).reshape(len(self.n_steps), -1),
        }
        for name, column in columns.items():
            write_column(files, f"{layout.EPISODES}/{name}", column)
        for name, column in self._segments.items():
            write_column(files, f"{layout.SEGMENTS}/{name}", np.fromiter(column, np.int64))
        write_column(files, f"{layout.WARNINGS}/episode", np.fromiter(self._warned, np.int64))
        for path, name in (
            (f"{layout.EPISODES}/source_id", "source_id"),
            (f"{layout.EPISODES}/split", "split"),
            (f"{layout.SEGMENTS}/tag", "tag"),
            (f"{layout.SEGMENTS}/text", "text"),
            (f"{layout.QUARANTINE}/source_id", "left_out"),
            (f"{layout.QUARANTINE}/reason", "reason"),
            (f"{layout.WARNINGS}/text", "warning"),
        ):
            self._texts[name].write(files, path)

    def _add(self, event: Mapping[str, Any]) -> None:
        number = len(self.n_steps)
        self.n_steps.append(event["n_steps"])
        self._task_index.append(self._tasks.setdefault(event["task"], len(self._tasks)))
        self._success.append(_SUCCESS_CODE[event["success"]])
        self._checksum += bytes.fromhex(event["checksum"])
        self._texts["source_id"].add(event["source_id"])
        self._texts["split"].add(event["split"])
        for start, end, tag, text in event["segments"]:
            for name, value in (("episode", number), ("start", start), ("end", end)):
                self._segments[name].append(value)
            self._texts["tag"].add(str(tag))
            self._texts["text"].add(str(text))
        for text in event.get("warnings", ()):
            self._warned.append(number)
            self._texts["warning"].add(text)
