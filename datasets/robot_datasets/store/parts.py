"""Parts: episodes that other processes took in, as files that the writer appends to the store in order.

A part is a folder with one file per camera and one with the record of rows. The folders are used again and
again: their pages stay in memory, which makes writing them several times cheaper than new files, so a file may
be longer than its part.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_datasets.episode import Episode
from robot_datasets.store.copying import open_at_end, write_all
from robot_datasets.store.layout import StoreSpec
from robot_datasets.store.record import left_out, take_in
from robot_datasets.store.rows import encode_record, record_blocks

_ROWS = "rows"


@dataclass(frozen=True)
class EpisodePart:
    """One event of the journal, and the bytes that belong to it.

    Attributes:
        entry: The journal line; of an episode, the payload's sizes are still to be added.
        folder: Where the bytes are; None if there are none, because the episode was set aside.
        n_row_bytes: Size of the record of rows [bytes].
        n_image_bytes: Size of all frames by image feature [bytes].
    """

    entry: Mapping[str, Any]
    folder: Path | None = None
    n_row_bytes: int = 0
    n_image_bytes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def left_out(cls, source_id: str, reason: str) -> EpisodePart:
        """An episode that was set aside, and why."""
        return cls(left_out(source_id, reason))

    @property
    def source_id(self) -> str:
        """The episode's name in its source."""
        return self.entry["quarantine"] if self.folder is None else self.entry["source_id"]

    @property
    def n_bytes(self) -> int:
        """Size of all files together [bytes]."""
        return self.n_row_bytes + sum(self.n_image_bytes.values())

    @property
    def rows(self) -> Path:
        """File that begins with the record of rows."""
        return self._in_folder(_ROWS)

    def images(self, name: str) -> Path:
        """File that begins with the frames of an image feature."""
        return self._in_folder(name)

    def _in_folder(self, name: str) -> Path:
        assert self.folder is not None, "an episode that was set aside has no bytes"
        return self.folder / name


class PartWriter:
    """Takes in episodes for a store that another process writes."""

    def __init__(self, spec: StoreSpec) -> None:
        self._spec = spec
        self._blocks = record_blocks(spec)

    def write(self, episode: Episode, folder: Path) -> EpisodePart:
        """Write one episode into `folder`, over what is there.

        Raises:
            EpisodeError: The episode cannot be used.
            OSError: The folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            sinks = {n: _Counted(stack, folder / n) for n in self._spec.image_features}
            record = take_in(episode, self._spec, sinks)
            rows = _Counted(stack, folder / _ROWS)
            rows.write(encode_record(self._blocks, record.arrays, record.n_steps))
        return EpisodePart(record.entry, folder, rows.size, {n: sink.size for n, sink in sinks.items()})


class _Counted:
    """A file that is written from its beginning, and how much of it was."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._file = stack.enter_context(open_at_end(path))
        self._file.seek(0)
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data` to what was written since opening."""
        write_all(self._file, data)
        self.size += len(data)
