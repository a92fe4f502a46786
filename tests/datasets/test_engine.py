"""Conversion by several processes: the same bytes, whatever dies, fails or is interrupted on the way."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest

from robot_datasets.convert import NothingConvertedError, Progress, convert
from robot_datasets.engine.dispatch import Task
from robot_datasets.engine.work import Job, work
from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Plan, Rejected
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.store.parts import PartWriter
from robot_datasets.testing import EXAMPLE_IMAGE, tree_digest
from robot_datasets.testing.words import MIXED, WordsImporter


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Healthy episodes among those that fail in every way but taking the process with them."""
    path = tmp_path / "mixed.words"
    path.write_text(MIXED)
    return path


def test_bad_episodes_never_stop_those_behind_them(mixed: Path, tmp_path: Path) -> None:
    """Refusals, damaged frames, read errors and errors nobody thought of are set aside with a reason."""
    report = convert(mixed, tmp_path / "s.zarr", format=WordsImporter())
    assert (report.n_source, report.n_episodes, len(report.quarantined)) == (17, 12, 5)
    assert "unexpected KeyError in words.py, line" in report.quarantined["word 4"]
    assert "checksum of a block is wrong; copy it again" in report.quarantined["word 6"]
    assert f"{EXAMPLE_IMAGE}: unexpected ValueError" in report.quarantined["word 8"]
    assert report.quarantined["word 10"] == "state is of wood, expected metal"
    assert report.warnings == {"word 2": ["short"], "word 12": ["short"]}


def test_names_and_texts_that_are_no_unicode_are_stored_escaped(tmp_path: Path) -> None:
    """File names of another encoding and broken escapes in JSON are kept readable; resuming knows them again."""
    source = tmp_path / "s.words"
    source.write_text("2 3 rejected")
    result = convert(source, tmp_path / "s.zarr", format=ForeignImporter())
    store = EpisodeStore.open(tmp_path / "s.zarr")
    assert store.episodes["source_id"] == ["\\udcff word 0", "\\udcff word 1"]
    assert store.tasks == ["lift \\ud800"]
    assert list(result.quarantined) == ["\\udcff word 2"]
    assert convert(source, tmp_path / "s.zarr", format=ForeignImporter()).unchanged


class ForeignImporter(WordsImporter):
    """Names episodes and tasks with what is no character."""

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        plan = super().plan(path, options)
        refs = [replace(ref, source_id=f"\udcff {ref.source_id}") for ref in plan.refs]
        return replace(plan, refs=refs, embodiment="\ud800")

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for result in super().episodes(plan, refs):
            if isinstance(result, Episode):
                result.task = "lift \ud800"
            yield result


@pytest.mark.parametrize("workers", [2, 3])
def test_several_processes_give_the_same_bytes(workers: int, mixed: Path, tmp_path: Path) -> None:
    """The store is in the plan's order, what was set aside included; progress counts up to all."""
    seen: list[Progress] = []
    convert(mixed, tmp_path / "one.zarr", format=WordsImporter())
    target = tmp_path / "two.zarr"
    report = convert(mixed, target, format=WordsImporter(), workers=workers, progress=seen.append)
    assert tree_digest(tmp_path / "two.zarr") == tree_digest(tmp_path / "one.zarr")
    assert (report.executor, report.workers, report.n_lost_workers) == ("process", workers, 0)
    assert (seen[-1].done, seen[-1].total, seen[-1].quarantined) == (17, 17, 5)
    assert seen[-1].n_bytes == report.n_bytes > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mixed.words", "one.zarr", "two.zarr"]


@pytest.mark.parametrize(("word", "deaths"), [("unlucky", 1), ("killed", 3)])
def test_a_worker_that_dies_costs_at_most_its_episode(word: str, deaths: int, tmp_path: Path) -> None:
    """One that is killed once is read again; one that kills every reader is set aside, and said so."""
    words = f"3 4 {word} 5 400 6 2"
    source = tmp_path / "s.words"
    source.write_text(words)
    report = convert(source, tmp_path / "s.zarr", format=WordsImporter(), workers=2)
    assert report.n_lost_workers == deaths
    assert list(report.quarantined) == (["word 2"] if deaths == 3 else [])
    if deaths == 3:
        assert "died 3 times (killed by SIGKILL)" in report.quarantined["word 2"]
    expected = [f"word {number}" for number in range(7) if number != 2 or deaths == 1]
    assert EpisodeStore.open(tmp_path / "s.zarr").episodes["source_id"] == expected


def test_one_process_can_be_guarded_too(tmp_path: Path) -> None:
    """With executor 'process', even a single worker that dies does not take the conversion with it."""
    source = tmp_path / "s.words"
    source.write_text("3 killed 4")
    report = convert(source, tmp_path / "s.zarr", format=WordsImporter(), executor="process")
    assert (report.n_episodes, list(report.quarantined)) == (2, ["word 1"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_goes_away_ends_the_conversion(workers: int, tmp_path: Path) -> None:
    """Episodes are not set aside because a network drive was lost; what is done stays."""
    source = tmp_path / "s.words"
    source.write_text("3 4 gone 5 6")
    with pytest.raises(DatasetError, match=r"cannot be read any more .*Stale.* run the same command again"):
        convert(source, tmp_path / "s.zarr", format=WordsImporter(), workers=workers)
    assert not (tmp_path / "s.zarr").exists()
    assert not (tmp_path / "s.zarr.staging" / "parts").exists()
    if workers == 1:  # of two, the second may be there before the first has read anything
        assert (tmp_path / "s.zarr.staging" / "journal.jsonl").read_bytes().count(b"\n") == 3


def test_an_error_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    """An importer that breaks its contract is a bug: the worker's traceback reaches the user."""
    source = tmp_path / "s.words"
    source.write_text("3 4")
    with pytest.raises(Exception, match=r"yielded 'word 0' for 'word 1'") as caught:
        convert(source, tmp_path / "s.zarr", format=RepeatingImporter(), executor="process")
    assert "Traceback" in str(caught.value)


class RepeatingImporter(WordsImporter):
    """Yields the first episode again and again."""

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for _ in refs:
            yield Rejected("word 0", "again")


def test_nothing_converted_lists_the_reasons(tmp_path: Path) -> None:
    """The error carries a report, with workers as without."""
    source = tmp_path / "s.words"
    source.write_text("rejected refused")
    with pytest.raises(NothingConvertedError, match="2 were set aside") as caught:
        convert(source, tmp_path / "s.zarr", format=WordsImporter(), workers=2)
    assert caught.value.report.quarantined["word 1"] == "state is of wood, expected metal"
    assert [p.name for p in tmp_path.iterdir()] == ["s.words"]


@pytest.mark.parametrize(
    ("workers", "executor", "message"),
    [(0, None, "at least 1"), (2, "serial", "has one worker"), (2, "proces", "did you mean 'process'")],
)
def test_impossible_executors_are_refused(
    workers: int, executor: str | None, message: str, mixed: Path, tmp_path: Path
) -> None:
    """Numbers and names are checked before anything is read."""
    with pytest.raises(DatasetError, match=message):
        convert(mixed, tmp_path / "s.zarr", format=WordsImporter(), workers=workers, executor=executor)


def test_a_full_disk_in_a_worker_is_one_clear_line(
    tmp_path: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that cannot be written is no fault of its episode."""

    def full(file: FileIO, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = WordsImporter().plan(mixed, {})
    monkeypatch.setattr("robot_datasets.store.parts.write_all", full)
    with EpisodeStoreWriter(tmp_path / "s.zarr", features=plan.features, fps=10.0, embodiment="") as store:
        job = Job.of(WordsImporter(), plan, store)
        with pytest.raises(OSError, match="No space left"):
            list(work(job, [Task(0, plan.refs[0], 0)], PartWriter(job.spec)))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Workers import the script that started them, and must not start a conversion themselves."""
    source, script = tmp_path / "s.words", tmp_path / "script.py"
    source.write_text("3 4")
    script.write_text(
        "import sys\nfrom robot_datasets.convert import convert\n"
        "from robot_datasets.testing.words import WordsImporter\n"
        "convert(sys.argv[1], sys.argv[2], format=WordsImporter(), workers=2)\n"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, str(script), str(source), str(tmp_path / "s.zarr")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "put the call under: if __name__ == '__main__'" in done.stderr


# A background job of a shell starts with SIGINT ignored; a program that a person interrupts does not.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from robot_datasets.convert import convert
from robot_datasets.testing.words import WordsImporter
if __name__ == "__main__":
    try:
        convert(sys.argv[1], sys.argv[2], format=WordsImporter(), workers=2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(kill: signal.Signals, tmp_path: Path) -> None:
    """After Ctrl-C and after a kill no worker is left, and the conversion can be finished."""
    source, target = tmp_path / "s.words", tmp_path / "s.zarr"
    source.write_text("3 4 slow 5 6")
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, str(script), str(source), str(target)]
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
    report = convert(source, target, format=WordsImporter(), overwrite=True)
    assert report.n_episodes == 5


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
