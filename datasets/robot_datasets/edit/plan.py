"""An edit: which pieces of which stores make up a new one. Planned first, written afterwards, never in place.

Every tool (`merge`, `split`, `trim`, `drop`, `rename`) returns an `Edit`; `apply` writes it. Numbers and encoded frames
are copied as they are, so nothing is decoded or encoded again but the few frames that statistics are taken of; an edit
that changes values says so for each feature.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError, storage_error
from robot_datasets.features import Feature, is_image
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.store.staging import remove_stale_staging

VERSION = 2
"""Raised when the same edit would give another store; recorded."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Steps [start, end) of one episode.

    Attributes:
        store: Which of the edit's sources it is from.
        episode: Its number there.
        start: First step.
        end: One past the last.
        source_id: Its name in the new store.
        task: Its instruction.
        split: ``"train"``, ``"val"`` or empty.
    """

    store: int = 0
    episode: int
    start: int
    end: int
    source_id: str
    task: str
    split: str

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A store to be written.

    Attributes:
        operation: Name of the tool.
        options: What it was told, JSON-ready; recorded in the store.
        sources: The stores read, at least one.
        pieces: The episodes of the new store, in order.
        features: Its features, by their new names.
        old_names: New name -> name in the sources, for features that are renamed.
        transforms: New name -> what becomes of its values (T, ...), for features that are not copied.
        frame_transforms: New name -> what becomes of an encoded frame, for cameras that are not copied.
        embodiment: Robot name.
        dropped: Source id -> reason of the episodes left out; listed in the new store as set aside.
        prefixes: For each source, what precedes the names of episodes that it had set aside; empty if nothing does.
    """

    operation: str
    options: Mapping[str, Any]
    sources: Sequence[EpisodeStore]
    pieces: Sequence[Piece]
    features: Mapping[str, Feature]
    embodiment: str
    old_names: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    frame_transforms: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    prefixes: Sequence[str] = ()

    @property
    def n_steps(self) -> int:
        """Steps of the new store."""
        return sum(piece.n_steps for piece in self.pieces)


@dataclass(frozen=True, kw_only=True)
class EditReport:
    """What an edit did.

    Attributes:
        operation: Name of the tool.
        store: Path of the new store.
        n_episodes: Its episodes.
        n_steps: Its steps.
        n_dropped: Episodes left out by this edit.
        unchanged: The store was there already, made by the same edit of the same stores.
        fingerprint: Its fingerprint.
        seconds: Wall time [s].
    """

    operation: str
    store: str
    n_episodes: int
    n_steps: int
    n_dropped: int
    unchanged: bool
    fingerprint: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def whole_episodes(store: EpisodeStore, *, source: int = 0) -> list[Piece]:
    """Return all episodes of a store, whole."""
    lengths = (store.episode_ends - store.episode_starts).tolist()
    columns = (store.episodes[key] for key in ("source_id", "task_index", "split"))
    return [
        Piece(
            store=source,
            episode=i,
            start=0,
            end=length,
            source_id=source_id,
            task=store.tasks[int(task)],
            split=split,
        )
        for i, (length, source_id, task, split) in enumerate(zip(lengths, *columns, strict=True))
    ]


def apply(
    edit: Edit,
    target: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EditReport:
    """Write the store of an edit. It appears whole or not at all; an interrupted edit goes on where it stopped.

    Args:
        edit: What to write.
        target: Where; with `overwrite` it may be a source itself, which is swapped in one step at the end.
        overwrite: Replace the store at `target`.
        progress: Called with (episodes written, episodes) after each.

    Raises:
        DatasetError: No episode is left, or `target` exists and is not to be replaced.
    """
    began = time.monotonic()
    if not edit.pieces:
        raise DatasetError(f"{edit.operation} would leave no episode; nothing was written, choose less")
    path, conversion = Path(target), _conversion(edit)
    if path.exists() and not overwrite:
        existing = EpisodeStore.open(path)
        if existing.attributes["conversion"] != conversion:
            raise DatasetError(f"{path} already exists; choose another path or pass --overwrite")
        remove_stale_staging(path)
        return _report(edit, existing, began, unchanged=True)
    try:
        _write(edit, path, conversion, overwrite=overwrite, progress=progress)
    except OSError as error:
        raise storage_error(error, path, "the same command again, it goes on where it stopped") from error
    return _report(edit, EpisodeStore.open(path), began, unchanged=False)


def _write(
    edit: Edit,
    path: Path,
    conversion: Mapping[str, Any],
    *,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    with EpisodeStoreWriter(
        path,
        features=edit.features,
        fps=edit.sources[0].fps,
        embodiment=edit.embodiment,
        source=_provenance(edit),
        conversion=conversion,
        image_encodings=_encodings(edit),
        overwrite=overwrite,
    ) as writer:
        try:
            for name, reason in _set_aside(edit).items():
                if name not in writer.quarantined:
                    writer.quarantine(name, reason)
            readers = [_Reader(store) for store in edit.sources]
            for i, piece in enumerate(edit.pieces):
                if piece.source_id not in writer.done:
                    writer.add_episode(readers[piece.store].episode(edit, piece))
                if progress is not None:
                    progress(i + 1, len(edit.pieces))
            writer.publish()
        finally:
            if not writer.n_episodes:  # nothing to go on with
                writer.discard()


class _Reader:
    """Reads pieces of one source; what belongs to all episodes is read once."""

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._starts = store.episode_starts
        self._warnings = store.warnings
        self._success = store.episodes["success"]
        self._segments = store.episodes["segments"]

    def episode(self, edit: Edit, piece: Piece) -> Episode:
        """Return the episode of a piece; its frames are read when they are consumed."""
        store, first = self._store, int(self._starts[piece.episode])
        start, end = first + piece.start, first + piece.end
        old = {name: edit.old_names.get(name, name) for name in edit.features}
        success = int(self._success[piece.episode])
        return Episode(
            piece.source_id,
            {
                name: edit.transforms.get(name, _same)(store.column(old[name])[start:end])
                for name in edit.features
                if not is_image(name)
            },
            {
                name: map(edit.frame_transforms.get(name, _same), _frames(store, old[name], start, end))
                for name in edit.features
                if is_image(name)
            },
            task=piece.task,
            success=None if success < 0 else bool(success),
            split=piece.split,
            segments=[*_cut(self._segments[piece.episode], piece)],
            warnings=list(self._warnings.get(piece.episode, [])),
        )


def _same(value: Any) -> Any:
    return value


def _frames(store: EpisodeStore, name: str, start: int, end: int) -> Iterator[bytes]:
    column = store.images(name)
    return (bytes(column.encoded(step)) for step in range(start, end))


def _cut(segments: Sequence[Segment], piece: Piece) -> Iterator[Segment]:
    """Return what of the segments lies within the piece, counted from its start."""
    for segment in segments:
        start, end = max(segment.start, piece.start), min(segment.end, piece.end)
        if start < end:
            yield Segment(start - piece.start, end - piece.start, segment.tag, segment.text)


def _set_aside(edit: Edit) -> dict[str, str]:
    """Return what the sources had set aside already, and what this edit leaves out."""
    kept = {piece.source_id for piece in edit.pieces}
    prefixes = edit.prefixes or [""] * len(edit.sources)
    earlier = {
        prefix + name: reason
        for store, prefix in zip(edit.sources, prefixes, strict=True)
        for name, reason in store.quarantined.items()
    }
    return {name: reason for name, reason in {**earlier, **edit.dropped}.items() if name not in kept}


def _encodings(edit: Edit) -> dict[str, str]:
    spec = edit.sources[0].spec
    return {name: spec.encodings[edit.old_names.get(name, name)] for name in edit.features if is_image(name)}


def _conversion(edit: Edit) -> dict[str, Any]:
    """Return what the store's attributes say about how it was made."""
    digest = hashlib.blake2b(digest_size=16)
    for store in edit.sources:
        digest.update(store.fingerprint.encode())
    return {
        "importer": f"edit.{edit.operation}",
        "version": VERSION,
        "options": dict(edit.options),
        "checksum": digest.hexdigest(),
    }


def _provenance(edit: Edit) -> dict[str, Any]:
    """Return where the data came from: each source with what it said of itself."""
    made_from = [
        {
            "name": Path(store.path).name,
            "fingerprint": store.fingerprint,
            "source": store.attributes["source"],
            "conversion": store.attributes["conversion"],
        }
        for store in edit.sources
    ]
    names = "+".join(str(entry["source"].get("name", entry["name"])) for entry in made_from)
    return {"name": names, "made_from": made_from}


def _report(edit: Edit, store: EpisodeStore, began: float, *, unchanged: bool) -> EditReport:
    return EditReport(
        operation=edit.operation,
        store=store.path,
        n_episodes=store.n_episodes,
        n_steps=store.n_steps,
        n_dropped=len(edit.dropped),
        unchanged=unchanged,
        fingerprint=store.fingerprint,
        seconds=time.monotonic() - began,
    )
