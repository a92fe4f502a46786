"""Frames that workers write to their place themselves: the same store, whoever dies when, without any process."""

import errno
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.engine.assembly import assemble
from robot_datasets.engine.dispatch import Dispatcher, Event, Finished, Lost, Task, Withdrawn, Written
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import EpisodeRef
from robot_datasets.store import EpisodeStoreWriter
from robot_datasets.store.parts import EpisodePart, PartWriter
from robot_datasets.store.staging import writing_for_another
from robot_datasets.testing import example_episodes, example_features, tree_digest

LENGTHS = [5, 9, 2, 40, 7, 3, 1, 12]
LEFT_OUT = (2, 5)
CHUNK_BYTES = 700
"""Most episodes cross the end of a payload file, some several."""

HOLD_BYTES = 12_000
"""Two short episodes, and never the longest."""


class Pretended:
    """An executor whose workers do one step at a time, in an order that the test chooses."""

    def __init__(
        self, writer: EpisodeStoreWriter, n_workers: int, choices: Iterable[int], *, first: int = 0
    ) -> None:
        self._first = first  # episode that has index 0
        self._writer, self._n_workers, self._choices = writer, n_workers, iter(choices)
        self._parts = writer.parts_folder()
        self.was_held: list[bool] = []
        self.n_deaths = 0
        self.is_closed = False
        self._begin()

    def _begin(self) -> None:
        self._tasks: list[list[Task]] = [[] for _ in range(self._n_workers)]
        self._granted: list[list[tuple[int, Mapping[str, int]]]] = [[] for _ in range(self._n_workers)]
        self._takers = [PartWriter(self._writer.spec, hold_bytes=HOLD_BYTES) for _ in range(self._n_workers)]
        self._holder: dict[int, int] = {}

    def has_room(self) -> bool:
        return min(map(len, self._tasks)) < 2

    def submit(self, tasks: tuple[Task, ...]) -> None:
        min(self._tasks, key=len).extend(tasks)

    def place(self, index: int, starts: Mapping[str, int]) -> None:
        self._granted[self._holder.pop(index)].append((index, starts))

    def events(self) -> list[Event]:
        busy = [w for w in range(self._n_workers) if self._tasks[w] or self._granted[w]]
        assert busy, "nobody has anything to do, and nobody is told to do anything"
        choice = next(self._choices, 0)
        worker = busy[choice // 10 % len(busy)]
        if choice % 10 == 9:
            return self._die(worker)
        if self._granted[worker] and (choice % 2 or not self._tasks[worker]):
            return [self._write(worker)]
        return [self._read(worker, self._tasks[worker].pop(0))]

    def close(self) -> None:
        self.is_closed = True

    def _read(self, worker: int, task: Task) -> Finished:
        known = self._writer.done | set(self._writer.quarantined)
        assert task.ref.source_id not in known, "read again though it counts"
        if task.index + self._first in LEFT_OUT:
            return Finished(task, EpisodePart.left_out(task.ref.source_id, "crossed out"), 1.0)
        episode = list(example_episodes(LENGTHS, image_size=8))[task.index + self._first]
        part = self._takers[worker].write(episode, self._parts / str(task.slot), task.index)
        self.was_held.append(part.is_held)
        if part.is_held:
            self._holder[task.index] = worker
        return Finished(task, part, 1.0)

    def _write(self, worker: int) -> Written:
        index, starts = self._granted[worker].pop(0)
        for name, blocks in self._takers[worker].let_go(index).items():
            self._writer.places()[name].write(starts[name], blocks)
        return Written(index)

    def _die(self, worker: int) -> list[Event]:
        """Die, in the middle of writing if there is something to write."""
        self.n_deaths += 1
        for index, starts in self._granted[worker][:1]:
            for name, blocks in self._takers[worker].let_go(index).items():
                half = b"".join(blocks)[:-1]
                self._writer.places()[name].write(starts[name], [half])
        tasks = tuple(self._tasks[worker])
        self._begin()
        return [Lost(tasks, "killed", culprit_known=False), Withdrawn()]


def open_writer(path: Path) -> EpisodeStoreWriter:
    return EpisodeStoreWriter(
        path,
        features=example_features(image_size=8),
        fps=10.0,
        embodiment="example",
        image_chunk_bytes=CHUNK_BYTES,
    )


def refs() -> list[EpisodeRef]:
    return [EpisodeRef(f"episode_{i:04d}") for i in range(len(LENGTHS))]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store that one process writes."""
    path = tmp_path_factory.mktemp("expected") / "s.zarr"
    with open_writer(path) as writer:
        for index, episode in enumerate(example_episodes(LENGTHS, image_size=8)):
            if index in LEFT_OUT:
                writer.quarantine(episode.source_id, "crossed out")
            else:
                writer.add_episode(episode)
        writer.publish()
    return tree_digest(path)


@settings(max_examples=25)
@given(st.integers(1, 3), st.lists(st.integers(0, 29), max_size=60))
def test_the_bytes_do_not_depend_on_who_does_what_when(
    expected: str, n_workers: int, choices: list[int]
) -> None:
    """Workers read, write and die in any order; episodes come to lie, and are reported, in that of the plan."""
    with TemporaryDirectory() as folder, open_writer(Path(folder) / "s.zarr") as writer:
        reported: list[str] = []
        executor = Pretended(writer, n_workers, choices)
        try:
            assemble(executor, Dispatcher(refs(), workers=n_workers), writer, reported.extend)
        except DatasetError:
            assert executor.n_deaths > 2 * n_workers + 2
            return
        assert reported == [ref.source_id for ref in refs()]
        assert executor.is_closed
        writer.publish()
        assert tree_digest(Path(folder) / "s.zarr") == expected


def test_what_is_too_much_to_hold_goes_through_files(tmp_path: Path, expected: str) -> None:
    """The longest episode is never held, and those that waited for it are once there is room again."""
    with open_writer(tmp_path / "s.zarr") as writer:
        executor = Pretended(writer, 1, [1] * 100)  # writes as soon as it may
        assemble(executor, Dispatcher(refs(), workers=1), writer, lambda names: None)
        writer.publish()
    assert executor.was_held == [True, True, False, True, True, True]
    assert tree_digest(tmp_path / "s.zarr") == expected


@pytest.mark.parametrize("n_events", [1, 3, 6, 9])
def test_a_disk_that_fills_up_while_a_worker_writes_keeps_what_counts(
    n_events: int, tmp_path: Path, expected: str
) -> None:
    """The error reaches the caller once the workers are ended; going on later gives the same store."""

    class Full(Pretended):
        left = n_events

        def events(self) -> list[Event]:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().events()

    with open_writer(tmp_path / "s.zarr") as writer:
        executor = Full(writer, 2, [10, 0, 10, 0])
        with pytest.raises(OSError, match="No space left"):
            assemble(executor, Dispatcher(refs(), workers=2), writer, lambda names: None)
        assert executor.is_closed
    with open_writer(tmp_path / "s.zarr") as writer:
        left: Sequence[EpisodeRef] = [
            ref for ref in refs() if ref.source_id not in writer.done | set(writer.quarantined)
        ]
        first = len(LENGTHS) - len(left)
        executor = Pretended(writer, 2, [], first=first)
        assemble(executor, Dispatcher(left, workers=2), writer, lambda names: None)
        writer.publish()
    assert tree_digest(tmp_path / "s.zarr") == expected


def test_the_next_writer_waits_for_the_workers_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is still writing would write into what the next writer has cut off."""
    with open_writer(tmp_path / "s.zarr") as writer:
        lock = writer.workers_lock
    monkeypatch.setattr("robot_datasets.store.staging._ENDING_SECONDS", 0.05)
    with writing_for_another(lock), pytest.raises(DatasetError, match="worker processes of an earlier"):
        open_writer(tmp_path / "s.zarr")
    open_writer(tmp_path / "s.zarr").close()
