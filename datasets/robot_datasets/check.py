"""Reading every byte of a store and listing what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.statistics import STATISTICS
from robot_datasets.store import EpisodeStore, layout
from robot_datasets.store.checksum import CHECKSUM_BYTES, Checksum, new_checksum
from robot_datasets.store.frames import decode_as
from robot_datasets.store.images import ImageColumn

_MAX_PER_KIND = 100


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        kind: ``"structure"``, ``"values"``, ``"frame"``, ``"checksum"``, ``"statistics"`` or ``"metadata"``.
        detail: What was found and what was expected.
        episode: Episode number, if it concerns one.
        source_id: That episode's name in its source.
        feature: Feature name, if it concerns one.
    """

    kind: str
    detail: str
    episode: int | None = None
    source_id: str = ""
    feature: str = ""

    def __str__(self) -> str:
        who = f"episode {self.episode} ({self.source_id})" if self.episode is not None else "store"
        return f"{who}{', ' + self.feature if self.feature else ''}: {self.detail}"


@dataclass(frozen=True)
class CheckReport:
    """Outcome of `check_store`.

    Attributes:
        store: The store's address.
        n_episodes: Episodes read.
        n_steps: Steps read.
        n_frames: Frames decoded, all cameras together.
        problems: What is wrong; of each kind at most 100 are listed.
        n_problems: How many there are.
    """

    store: str
    n_episodes: int
    n_steps: int
    n_frames: int
    n_problems: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.n_problems == 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def check_store(store: EpisodeStore, *, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Read everything: values, every frame decoded, checksums, boundaries, statistics, metadata.

    Args:
        store: An open store.
        progress: Called with (episodes read, episodes) after each.
    """
    found: list[Problem] = []
    found.extend(_metadata_problems(store))
    columns, broken = _load_columns(store)
    found.extend(broken)
    images, broken = _load_images(store)
    found.extend(broken)
    for name, column in columns.items():
        found.extend(_statistics_problems(store, name, column))
    whole = len(columns) == len(store.spec.low_dim) and len(images) == len(store.spec.image_features)
    checksums = _column_or_none(store, "checksum")
    source_ids = _column_or_none(store, "source_id")
    n_frames = 0
    starts = store.episode_starts
    for episode in range(store.n_episodes):
        start, stop = int(starts[episode]), int(store.episode_ends[episode])
        digest = new_checksum(CHECKSUM_BYTES if checksums is None else checksums.shape[1])
        problems = list(_column_problems(columns, start, stop, digest))
        for name, column in images.items():
            problems.extend(_frame_problems(name, column, start, stop, digest))
            n_frames += stop - start
        if whole and checksums is not None and digest.digest() != checksums[episode].tobytes():
            problems.append(
                Problem("checksum", "content differs from what was written; copy or convert it again")
            )
        source_id = source_ids[episode] if problems and source_ids is not None else ""
        found.extend(Problem(p.kind, p.detail, episode, source_id, p.feature) for p in problems)
        if progress is not None:
            progress(episode + 1, store.n_episodes)
    return CheckReport(store.path, store.n_episodes, store.n_steps, n_frames, len(found), _limited(found))


def _load_columns(store: EpisodeStore) -> tuple[dict[str, np.ndarray], list[Problem]]:
    columns, problems = {}, []
    for name in store.spec.low_dim:
        try:
            columns[name] = store.column(name)
        except DatasetError as error:
            problems.append(Problem("structure", str(error), feature=name))
    return columns, problems


def _load_images(store: EpisodeStore) -> tuple[dict[str, ImageColumn], list[Problem]]:
    images, problems = {}, []
    for name in store.spec.image_features:
        try:
            images[name] = store.images(name)
        except DatasetError as error:
            problems.append(Problem("structure", str(error), feature=name))
    return images, problems


def _column_or_none(store: EpisodeStore, key: str) -> Any:
    """Return an episode column, or None if it is damaged, which is listed elsewhere."""
    try:
        column = store.episodes[key]
    except DatasetError:
        return None
    return column if len(column) == store.n_episodes else None


def _column_problems(
    columns: dict[str, np.ndarray], start: int, stop: int, digest: Checksum
) -> Iterator[Problem]:
    for name, column in columns.items():
        part = np.ascontiguousarray(column[start:stop])
        digest.update(name.encode() + b"\0" + part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes())
        if part.dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(axis=1))
            if len(bad):
                detail = f"NaN or infinity in {len(bad)} of {len(part)} steps, first at step {bad[0]}"
                yield Problem("values", detail, feature=name)


def _frame_problems(
    name: str, column: ImageColumn, start: int, stop: int, digest: Checksum
) -> Iterator[Problem]:
    digest.update(name.encode() + b"\0")
    for step in range(start, stop):
        frame = column.encoded(step)
        digest.update(frame)
        try:
            pixels = decode_as(frame, column.feature, column.encoding)
        except DatasetError as error:
            yield Problem("frame", f"step {step - start}: {error}", feature=name)
            continue
        size = column.feature.shape[:2]
        if any(want and want != have for want, have in zip(size, pixels.shape[:2], strict=True)):
            yield Problem(
                "frame", f"step {step - start} is {pixels.shape[:2]} px, expected {size}", feature=name
            )
    digest.update(np.diff(column.offsets[start : stop + 1]).astype("<i8").tobytes())


def _statistics_problems(store: EpisodeStore, name: str, column: np.ndarray) -> Iterator[Problem]:
    try:
        stats = store.stats(name)
    except DatasetError:
        return  # the metadata's problem, listed there
    low, high = column.min(axis=0), column.max(axis=0)
    if not (np.array_equal(stats.min, low) and np.array_equal(stats.max, high)):
        yield Problem(
            "statistics", f"stored min and max differ from the data's {low} and {high}", feature=name
        )


def _metadata_problems(store: EpisodeStore) -> Iterator[Problem]:
    """Read everything below ``meta``, then compare what can be compared."""
    broken = []
    for label, (read, rows) in _metadata_parts(store).items():
        try:
            length = len(read())
        except DatasetError as error:
            broken.append(label)
            yield Problem("structure", str(error))
            continue
        if rows is not None and length != rows:
            yield Problem("metadata", f"{label} has {length} rows, expected {rows}")
    if "task_index" not in broken and "tasks" not in broken:
        index = store.episodes["task_index"]
        if index.min() < 0 or index.max() >= len(store.tasks):
            yield Problem(
                "metadata", f"task_index reaches {index.max()}, but there are {len(store.tasks)} tasks"
            )
    if "n_steps" not in broken and not np.array_equal(
        store.episodes["n_steps"], np.diff(store.episode_ends, prepend=0)
    ):
        yield Problem("metadata", "n_steps differs from the distances of episode_ends")


def _metadata_parts(store: EpisodeStore) -> dict[str, tuple[Callable[[], Sized], int | None]]:
    """Return label -> (how to read it, how many rows it must have)."""
    episodes = store.n_episodes
    parts: dict[str, tuple[Callable[[], Sized], int | None]] = {
        key: (partial(store.episodes.__getitem__, key), episodes) for key in store.episodes
    }
    parts["tasks"] = (lambda: store.tasks, None)
    parts["quarantine"] = (lambda: store.quarantined, None)
    parts["warnings"] = (lambda: store.warnings, None)
    for name in sorted(store.features):
        tables = {"total": len(STATISTICS), "episodes": episodes}
        if name in store.spec.image_features:
            tables["histogram"] = episodes
        for table, rows in tables.items():
            path = f"{layout.stats_path(name)}/{table}"
            parts[path] = (partial(store.read_array, path), rows)
    return parts


def _limited(problems: list[Problem]) -> list[Problem]:
    counts: dict[str, int] = {}
    kept = []
    for problem in problems:
        counts[problem.kind] = counts.get(problem.kind, 0) + 1
        if counts[problem.kind] <= _MAX_PER_KIND:
            kept.append(problem)
    return kept
