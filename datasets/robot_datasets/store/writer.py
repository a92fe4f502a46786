"""Writing an episode store: one episode at a time into a staging directory, published whole or not at all.

Beside the target ``NAME.zarr`` lies ``NAME.zarr.staging`` while the store is unfinished: the journal, the row
spool, and the store being built, whose image payload is already in its final files. An episode counts once
its journal line is on disk; a writer that was killed goes on after the last one that does. The finished store
depends on the episodes and their order alone, so an interrupted run ends in the same bytes as a whole one.
"""

from __future__ import annotations

import contextlib
import shutil
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature, is_image
from robot_datasets.store.arrays import require_zarr
from robot_datasets.store.blob import BlobPlace, BlobWriter
from robot_datasets.store.checksum import CHECKSUM_BYTES
from robot_datasets.store.journal import Journal
from robot_datasets.store.layout import IMAGE_CHUNK_BYTES, StoreSpec, image_path, storable_text
from robot_datasets.store.parts import EpisodePart
from robot_datasets.store.publish import publish_store
from robot_datasets.store.record import take_in
from robot_datasets.store.rows import RowSpool, record_blocks
from robot_datasets.store.staging import Staging


class EpisodeStoreWriter:
    """Builds one episode store; use as a context manager and call `publish` at the end.

    >>> with EpisodeStoreWriter("demos.zarr", features=features, fps=10, embodiment="panda") as writer:
    ...     for episode in episodes:
    ...         if episode.source_id not in writer.done:
    ...             writer.add_episode(episode)
    ...     writer.publish()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        features: Mapping[str, Feature],
        fps: float,
        embodiment: str,
        source: Mapping[str, Any] | None = None,
        conversion: Mapping[str, Any] | None = None,
        image_encodings: Mapping[str, str] | None = None,
        overwrite: bool = False,
        image_chunk_bytes: int = IMAGE_CHUNK_BYTES,
    ) -> None:
        """Start a store, or go on with an unfinished one that was started with the same arguments.

        Args:
            path: Where the store shall appear; nothing is there before `publish`.
            features: Every feature, images included.
            fps: Rate of the steps [Hz].
            embodiment: Robot name; empty if unknown.
            source: Where the data came from, JSON-ready; no absolute paths, they are not reproducible.
            conversion: How it is made (importer, version, options, checksum), JSON-ready.
            image_encodings: One of `STORED_ENCODINGS` per image feature; ``"png"`` if left out.
                Frames may mix JPEG and PNG; raw is for all frames or none.
            overwrite: Replace a finished store at `path`, and discard an unfinished one of other arguments.
            image_chunk_bytes: Size of the payload files [bytes].

        Raises:
            DatasetError: `path` exists, cannot be written, or is being written by another process.
        """
        encodings = dict.fromkeys((n for n in features if is_image(n)), "png") | dict(image_encodings or {})
        self.spec = StoreSpec(
            features=dict(features),
            fps=float(fps),
            embodiment=embodiment,
            source=dict(source or {}),
            conversion=dict(conversion or {}),
            encodings=encodings,
        )
        require_zarr()
        # The width of checksums keeps a store that another version began from being finished with two kinds.
        header = self.spec.to_attributes() | {
            "image_chunk_bytes": image_chunk_bytes,
            "checksum_bytes": CHECKSUM_BYTES,
        }
        self._staging = Staging(Path(path), overwrite=overwrite)
        try:
            self._journal: Journal = self._staging.open_journal(header)
            self._open_files(image_chunk_bytes)
        except BaseException:
            self._staging.close()
            raise

    @property
    def path(self) -> Path:
        """Where the store appears when published."""
        return self._staging.target

    @property
    def done(self) -> set[str]:
        """Source ids of the episodes written so far, earlier interrupted runs included."""
        return self._done

    @property
    def quarantined(self) -> dict[str, str]:
        """Source id -> reason of the episodes set aside so far."""
        return self._quarantined

    @property
    def n_episodes(self) -> int:
        """Number of episodes written so far."""
        return len(self._lengths)

    @property
    def n_steps(self) -> int:
        """Number of steps written so far."""
        return self._n_steps

    @property
    def n_bytes(self) -> int:
        """Bytes of frames and rows written so far."""
        return self._counted.n_bytes

    def add_episode(self, episode: Episode) -> None:
        """Append one episode; when this returns, it survives a power cut.

        Raises:
            EpisodeError: The episode does not fit the features, has non-finite values or damaged frames;
                nothing of it is kept and the writer can go on.
        """
        self._require_new([storable_text(episode.source_id)])
        with self._undone_on_error():
            record = take_in(episode, self.spec, self._blobs)
            self._rows.append(record.arrays, record.n_steps)
            self._note(record.entry)
            self.commit(1)

    def add_parts(self, parts: Sequence[EpisodePart]) -> None:
        """Append episodes that other processes left in files or set aside, all of them or none.

        Raises:
            OSError: A part cannot be read, or the store cannot be written.
        """
        with self._undone_on_error():
            for part in parts:
                self.lay(part)
            self.commit(len(parts))

    def lay(self, part: EpisodePart) -> dict[str, int]:
        """Append what another process took in or set aside; it does not count before `commit`.

        Returns:
            Image feature -> position of its frames in the payload. If they are held, whoever holds them has to
            write them there (see `places`) before `commit`.

        Raises:
            OSError: A part cannot be read, or the store cannot be written; `take_back` undoes that.
        """
        self._require_new([part.source_id])
        starts = {name: blob.size for name, blob in self._blobs.items()}
        if not part.is_left_out:
            for name, blob in self._blobs.items():
                if part.is_held:
                    blob.reserve(part.n_image_bytes[name])
                else:
                    blob.append_file(part.images(name), part.n_image_bytes[name])
            if part.record is not None:
                self._rows.append_record(part.record)
            else:
                self._rows.append_file(part.rows, part.entry["n_steps"])
        self._note(part.entry)
        return starts

    def commit(self, n_events: int) -> None:
        """Make the oldest of what was laid count: first the bytes reach the disk, then the journal says so."""
        events = [self._laid[number] for number in range(n_events)]
        if not events:
            return
        if any("quarantine" not in event.entry for event in events):
            for name, blob in self._blobs.items():
                blob.sync(self._counted.images[name], events[-1].ends.images[name])
            self._rows.sync()
        self._journal.append(*(event.entry for event in events))
        self._counted = events[-1].ends
        self._n_counted_journal_bytes = self._journal.size
        for event in events:
            self._laid.popleft()
            self._laid_names.discard(event.source_id)
            self._count(event.entry)

    def take_back(self) -> None:
        """Cut off what was laid and does not count; no other process may write any more."""
        if self._journal.size != self._n_counted_journal_bytes:
            return  # interrupted right after the journal had it: it counts, as the next run will see
        self._laid.clear()
        self._laid_names.clear()
        for name, blob in self._blobs.items():
            blob.truncate(self._counted.images[name])
        self._rows.truncate(self._counted.rows)

    def places(self) -> dict[str, BlobPlace]:
        """Where the frames of each image feature are written."""
        return {name: blob.place for name, blob in self._blobs.items()}

    def quarantine(self, source_id: str, reason: str) -> None:
        """Record that an episode was set aside, and why; it is listed in the finished store."""
        self.add_parts([EpisodePart.left_out(source_id, reason)])

    def parts_folder(self) -> Path:
        """Return an empty folder in which other processes leave parts; it is gone when the store is closed."""
        shutil.rmtree(self._staging.parts, ignore_errors=True)
        self._staging.parts.mkdir()
        return self._staging.parts

    @property
    def workers_lock(self) -> Path:
        """File that another process locks while it writes frames; see `writing_for_another`."""
        return self._staging.workers_lock

    def publish(self) -> Path:
        """Finish the store and make it appear at `path` in one step.

        Raises:
            DatasetError: There is no episode to publish.
        """
        if not self._lengths:
            raise DatasetError(f"no episode was written to {self.path}; an episode store needs at least one")
        self.close(keep_lock=True)
        publish_store(self._staging, self.spec, self._journal.events(), self._rows, self._blobs)
        self._staging.close()
        return self.path

    def discard(self) -> None:
        """Delete the unfinished store, if there still is one."""
        self.close(keep_lock=True)
        if self._staging.root.exists():
            self._staging.remove()

    def close(self, *, keep_lock: bool = False) -> None:
        """Close all files; what was written stays for the next run."""
        if not self._closed:
            self._closed = True
            for blob in self._blobs.values():
                blob.close()
            self._rows.close()
            self._journal.close()
            shutil.rmtree(self._staging.parts, ignore_errors=True)
        if not keep_lock:
            self._staging.close()

    def __enter__(self) -> EpisodeStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_files(self, image_chunk_bytes: int) -> None:
        self._closed = False
        self._lengths = array("q")
        self._n_steps = 0
        self._done: set[str] = set()
        self._quarantined: dict[str, str] = {}
        sizes = dict.fromkeys(self.spec.image_features, 0)
        for entry in self._journal.events():
            self._count(entry)
            sizes.update(entry.get("image_bytes", {}))
        self._blobs = {
            name: BlobWriter(
                self._staging.store / image_path(name) / "bytes",
                chunk_bytes=image_chunk_bytes,
                size=sizes[name],
            )
            for name in self.spec.image_features
        }
        self._rows = RowSpool(self._staging.rows, record_blocks(self.spec), self._lengths)
        self._laid: deque[_Event] = deque()
        self._laid_names: set[str] = set()
        self._counted = self._ends()
        self._n_counted_journal_bytes = self._journal.size

    def _count(self, entry: dict[str, Any]) -> None:
        if "quarantine" in entry:
            self._quarantined[entry["quarantine"]] = entry["reason"]
            return
        self._lengths.append(entry["n_steps"])
        self._n_steps += entry["n_steps"]
        self._done.add(entry["source_id"])

    def _require_new(self, source_ids: Sequence[str]) -> None:
        for name in source_ids:
            if name in self._done or name in self._quarantined or name in self._laid_names:
                raise DatasetError(f"episode '{name}' is already in the store; source ids must be unique")

    def _note(self, entry: Mapping[str, Any]) -> None:
        """Remember an event that does not count yet, and where it ends."""
        ends = self._ends()
        located = dict(entry) if "quarantine" in entry else dict(entry) | {"image_bytes": ends.images}
        event = _Event(located, ends)
        self._laid.append(event)
        self._laid_names.add(event.source_id)

    def _ends(self) -> _Ends:
        return _Ends({name: blob.size for name, blob in self._blobs.items()}, self._rows.size)

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Cut off what was appended within, unless the journal has it; an interruption may come at any time."""
        try:
            yield
        except BaseException:
            self.take_back()
            raise


@dataclass(frozen=True)
class _Ends:
    """How far the files are written [bytes]: the payload by image feature, and the rows."""

    images: dict[str, int]
    rows: int

    @property
    def n_bytes(self) -> int:
        return self.rows + sum(self.images.values())


@dataclass(frozen=True)
class _Event:
    """A journal line that does not count yet, and how far the files are written with it."""

    entry: dict[str, Any]
    ends: _Ends

    @property
    def source_id(self) -> str:
        return self.entry["quarantine"] if "quarantine" in self.entry else self.entry["source_id"]
