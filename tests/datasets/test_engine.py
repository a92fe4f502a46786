"""Conversion by several processes: the same bytes, whatever dies, fails or is interrupted on the way."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.convert import NothingConvertedError, Progress, convert
from robot_datasets.engine.work import Job, work
from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, STATE
from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Plan, Probe, Rejected
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import EXAMPLE_IMAGE, example_features, tree_digest


class LinesImporter(Importer):
    """Reads a text file of one word per episode: a number of steps, or something that goes wrong."""

    name = "lines"
    version = 1
    summary = "a text file of words"

    def probe(self, path: Path) -> Probe | None:
        return Probe(self.name, "suffix") if path.suffix == ".lines" else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        words = path.read_text().split()
        return Plan(
            source=path,
            options=options,
            refs=[EpisodeRef(f"line {i}", word) for i, word in enumerate(words)],
            features=example_features(image_size=8),
            fps=10.0,
            embodiment="",
            checksum=" ".join(words),
            notes={"warnings": ["a source of words"]},
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for ref in refs:
            word = str(ref.locator)
            if word == "rejected":
                yield Rejected(ref.source_id, "crossed out")
                continue
            _go_wrong(word, plan.source.parent)
            n = int(word) if word.isdecimal() else 2
            rows = np.arange(n, dtype=np.float32)[:, None]
            yield Episode(
                ref.source_id,
                {STATE: np.repeat(rows, 3, axis=1), ACTION: np.repeat(rows, 2, axis=1) + n},
                {EXAMPLE_IMAGE: _frames(word, n)},
                warnings=["short"] if n == 1 else [],
            )


def _go_wrong(word: str, folder: Path) -> None:
    """Do what the word says, to the process that reads it."""
    if word == "bug":
        raise KeyError("never thought of")
    if word == "refused":
        raise EpisodeError("state is of wood, expected metal")
    if word == "gone":
        raise OSError(errno.ESTALE, "Stale file handle")
    if word == "unreadable":
        raise OSError("checksum of a block is wrong")
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "unlucky" and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "slow":
        (folder / "begun").touch()
        time.sleep(60)


def _frames(word: str, n: int) -> Iterator[bytes]:
    for i in range(n):
        if word == "badframe":
            raise ValueError("frame of stone")
        yield encode_frame(np.full((8, 8, 3), i % 256, np.uint8), "png")


MIXED = "3 rejected 1 7 bug 2 unreadable 5 badframe 4 refused 6 1 2 3 9 8"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Healthy episodes among those that fail in every way but taking the process with them."""
    path = tmp_path / "mixed.lines"
    path.write_text(MIXED)
    return path


def test_bad_episodes_never_stop_those_behind_them(mixed: Path, tmp_path: Path) -> None:
    """Refusals, damaged frames, read errors and errors nobody thought of are set aside with a reason."""
    report = convert(mixed, tmp_path / "s.zarr", format=LinesImporter())
    assert (report.n_source, report.n_episodes, len(report.quarantined)) == (17, 12, 5)
    assert "unexpected KeyError in test_engine.py, line" in report.quarantined["line 4"]
    assert "checksum of a block is wrong; copy it again" in report.quarantined["line 6"]
    assert f"{EXAMPLE_IMAGE}: unexpected ValueError" in report.quarantined["line 8"]
    assert report.quarantined["line 10"] == "state is of wood, expected metal"
    assert report.warnings == {"line 2": ["short"], "line 12": ["short"]}


def test_two_processes_give_the_same_bytes(mixed: Path, tmp_path: Path) -> None:
    """The store is in the plan's order, what was set aside included; progress counts up to all."""
    seen: list[Progress] = []
    convert(mixed, tmp_path / "one.zarr", format=LinesImporter())
    report = convert(mixed, tmp_path / "two.zarr", format=LinesImporter(), workers=2, progress=seen.append)
    assert tree_digest(tmp_path / "two.zarr") == tree_digest(tmp_path / "one.zarr")
    assert (report.executor, report.workers, report.n_lost_workers) == ("process", 2, 0)
    assert (seen[-1].done, seen[-1].total, seen[-1].quarantined) == (17, 17, 5)
    assert seen[-1].n_bytes == report.n_bytes > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mixed.lines", "one.zarr", "two.zarr"]


def test_a_worker_that_dies_costs_at_most_its_episode(tmp_path: Path) -> None:
    """One that is killed once is read again; one that kills its reader twice is set aside, and said so."""
    source = tmp_path / "s.lines"
    source.write_text("3 4 unlucky 5 killed 6 2")
    report = convert(source, tmp_path / "s.zarr", format=LinesImporter(), workers=2)
    assert report.n_lost_workers == 3
    assert list(report.quarantined) == ["line 4"]
    assert "died 2 times (killed by SIGKILL)" in report.quarantined["line 4"]
    expected = ["line 0", "line 1", "line 2", "line 3", "line 5", "line 6"]
    assert EpisodeStore.open(tmp_path / "s.zarr").episodes["source_id"] == expected


def test_one_process_can_be_guarded_too(tmp_path: Path) -> None:
    """With executor 'process', even a single worker that dies does not take the conversion with it."""
    source = tmp_path / "s.lines"
    source.write_text("3 killed 4")
    report = convert(source, tmp_path / "s.zarr", format=LinesImporter(), executor="process")
    assert (report.n_episodes, list(report.quarantined)) == (2, ["line 1"])


def test_a_source_that_goes_away_ends_the_conversion(tmp_path: Path) -> None:
    """Episodes are not set aside because a network drive was lost; what is done stays."""
    source = tmp_path / "s.lines"
    source.write_text("3 4 gone 5 6")
    with pytest.raises(DatasetError, match=r"cannot be read any more .*Stale.* run the same command again"):
        convert(source, tmp_path / "s.zarr", format=LinesImporter(), workers=2)
    assert (tmp_path / "s.zarr.staging" / "journal.jsonl").exists()
    assert not (tmp_path / "s.zarr.staging" / "parts").exists()


def test_an_error_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    """An importer that breaks its contract is a bug: the worker's traceback reaches the user."""
    source = tmp_path / "s.lines"
    source.write_text("3 4")
    with pytest.raises(Exception, match=r"yielded 'line 0' for 'line 1'") as caught:
        convert(source, tmp_path / "s.zarr", format=RepeatingImporter(), executor="process")
    assert "Traceback" in str(caught.value)


class RepeatingImporter(LinesImporter):
    """Yields the first episode again and again."""

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for _ in refs:
            yield Rejected("line 0", "again")


def test_nothing_converted_lists_the_reasons(tmp_path: Path) -> None:
    """The error carries a report, with workers as without."""
    source = tmp_path / "s.lines"
    source.write_text("rejected refused")
    with pytest.raises(NothingConvertedError, match="2 were set aside") as caught:
        convert(source, tmp_path / "s.zarr", format=LinesImporter(), workers=2)
    assert caught.value.report.quarantined["line 1"] == "state is of wood, expected metal"
    assert [p.name for p in tmp_path.iterdir()] == ["s.lines"]


@pytest.mark.parametrize(
    ("workers", "executor", "message"),
    [(0, None, "at least 1"), (2, "serial", "has one worker"), (2, "proces", "did you mean 'process'")],
)
def test_impossible_executors_are_refused(
    workers: int, executor: str | None, message: str, mixed: Path, tmp_path: Path
) -> None:
    """Numbers and names are checked before anything is read."""
    with pytest.raises(DatasetError, match=message):
        convert(mixed, tmp_path / "s.zarr", format=LinesImporter(), workers=workers, executor=executor)


def test_a_full_disk_in_a_worker_is_one_clear_line(
    tmp_path: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that cannot be written is no fault of its episode."""

    def full(file: FileIO, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = LinesImporter().plan(mixed, {})
    from robot_datasets.engine.dispatch import Task
    from robot_datasets.store.layout import StoreSpec

    spec = StoreSpec(
        features=plan.features,
        fps=10.0,
        embodiment="",
        source={},
        conversion={},
        encodings={EXAMPLE_IMAGE: "png"},
    )
    monkeypatch.setattr("robot_datasets.store.parts.write_all", full)
    with pytest.raises(OSError, match="No space left"):
        list(work(Job.of(LinesImporter(), plan, spec, tmp_path), [Task(0, plan.refs[0], 0)]))


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from robot_datasets.convert import convert
from test_engine import LinesImporter
if __name__ == "__main__":
    try:
        convert(sys.argv[1], sys.argv[2], format=LinesImporter(), workers=2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(kill: signal.Signals, tmp_path: Path) -> None:
    """After Ctrl-C and after a kill no worker is left, and the conversion can be finished."""
    source, target = tmp_path / "s.lines", tmp_path / "s.zarr"
    source.write_text("3 4 slow 5 6")
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, str(script), str(source), str(target), str(Path(__file__).parent)]
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT) if kill is signal.SIGINT else process.kill()
        assert process.wait() == (130 if kill is signal.SIGINT else -signal.SIGKILL)
        deadline = time.monotonic() + 30
        while _group_exists(process.pid):
            assert time.monotonic() < deadline, "a worker is still there"
            time.sleep(0.01)
    source.write_text("3 4 2 5 6")  # not the same source any more, so only begin again
    report = convert(source, target, format=LinesImporter(), overwrite=True)
    assert report.n_episodes == 5


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
