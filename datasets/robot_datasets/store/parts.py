"""Episodes that another process takes in: held in its memory until their place is known, or left in files.

Frames that a worker holds are written once, by the worker, to where they belong in the store. What is too much to
hold becomes a part: a folder with one file per camera and one with the record of rows, which the writer appends. The
folders are used again and again: their pages stay in memory, which makes writing them several times cheaper than
new files, so a file may be longer than its part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import FileIO
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
        folder: Where the bytes are; None if they are held, or if there are none.
        n_row_bytes: Size of the record of rows [bytes].
        n_image_bytes: Size of all frames by image feature [bytes].
        record: The record of rows, if the process that took the episode in holds its frames.
    """

    entry: Mapping[str, Any]
    folder: Path | None = None
    n_row_bytes: int = 0
    n_image_bytes: Mapping[str, int] = field(default_factory=dict)
    record: bytes | None = None

    @classmethod
    def left_out(cls, source_id: str, reason: str) -> EpisodePart:
        """An episode that was set aside, and why."""
        return cls(left_out(source_id, reason))

    @property
    def is_left_out(self) -> bool:
        """Whether the episode was set aside; it has no bytes then."""
        return "quarantine" in self.entry

    @property
    def is_held(self) -> bool:
        """Whether its frames are in the memory of the process that took it in."""
        return self.record is not None

    @property
    def source_id(self) -> str:
        """The episode's name in its source."""
        return self.entry["quarantine"] if self.is_left_out else self.entry["source_id"]

    @property
    def n_bytes(self) -> int:
        """Size of frames and rows together [bytes]."""
        return self.n_row_bytes + sum(self.n_image_bytes.values())

    @property
    def rows(self) -> Path:
        """File that begins with the record of rows."""
        return self._in_folder(_ROWS)

    def images(self, name: str) -> Path:
        """File that begins with the frames of an image feature."""
        return self._in_folder(name)

    def _in_folder(self, name: str) -> Path:
        assert self.folder is not None, "the bytes of this episode are not in files"
        return self.folder / name


class PartWriter:
    """Takes in episodes for a store that another process writes."""

    def __init__(self, spec: StoreSpec, *, hold_bytes: int = 0) -> None:
        """Hold up to `hold_bytes` of frames and rows of all episodes together; the others go to files."""
        self._spec = spec
        self._blocks = record_blocks(spec)
        self._room = hold_bytes
        self._held: dict[int, tuple[dict[str, list[bytes]], int]] = {}

    def write(self, episode: Episode, folder: Path, index: int = 0) -> EpisodePart:
        """Take in one episode; what cannot be held is written into `folder`, over what is there.

        Args:
            episode: Its images are consumed.
            folder: Made if needed.
            index: Name of the episode for `let_go`.

        Raises:
            EpisodeError: The episode cannot be used.
            OSError: The folder cannot be written.
        """
        with _Taken(folder, (*self._spec.image_features, _ROWS), self._room) as taken:
            sinks = {name: _Sink(taken, name) for name in self._spec.image_features}
            record = take_in(episode, self._spec, sinks)
            taken.write(_ROWS, encode_record(self._blocks, record.arrays, record.n_steps))
            n_image_bytes = dict(taken.sizes)
            n_row_bytes = n_image_bytes.pop(_ROWS)
            if not taken.is_held:
                return EpisodePart(record.entry, folder, n_row_bytes, n_image_bytes)
            rows = b"".join(taken.blocks.pop(_ROWS))
            self._held[index] = taken.blocks, taken.n_bytes
            self._room -= taken.n_bytes
            return EpisodePart(record.entry, None, n_row_bytes, n_image_bytes, rows)

    def let_go(self, index: int) -> Mapping[str, Iterable[bytes]]:
        """Return the frames held of an episode by image feature, and make room for others."""
        blocks, n_bytes = self._held.pop(index)
        self._room += n_bytes
        return blocks


class _Taken:
    """The bytes of one episode: in memory while there is room, then in files."""

    def __init__(self, folder: Path, names: Iterable[str], room: int) -> None:
        self._folder, self._room = folder, room
        self._files = ExitStack()
        self._file: dict[str, FileIO] = {}
        self.blocks: dict[str, list[bytes]] = {name: [] for name in names}
        self.sizes = dict.fromkeys(self.blocks, 0)
        self.is_held = True

    @property
    def n_bytes(self) -> int:
        """Size of all of it [bytes]."""
        return sum(self.sizes.values())

    def write(self, name: str, data: bytes) -> None:
        """Append to what is there under this name."""
        self.sizes[name] += len(data)
        if self.is_held and self.n_bytes >= self._room:
            self._move_to_files()
        if self.is_held:
            self.blocks[name].append(data)
        else:
            write_all(self._file[name], data)

    def _move_to_files(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.is_held = False
        for name, blocks in self.blocks.items():
            file = self._file[name] = self._files.enter_context(open_at_end(self._folder / name))
            file.seek(0)
            for block in blocks:
                write_all(file, block)
            blocks.clear()

    def __enter__(self) -> _Taken:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()


@dataclass(frozen=True)
class _Sink:
    """Where the frames of one image feature go."""

    taken: _Taken
    name: str

    def write(self, data: bytes) -> None:
        """Append the bytes of some frames."""
        self.taken.write(self.name, data)
