"""The conversion engine: repeatable, resumable after a kill, and honest about what it left out."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from robot_datasets.convert import Progress, convert
from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, STATE
from robot_datasets.importers import detect_importer, detect_source, get_importer, importer_names
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing import example_features, tree_digest


class CountingImporter(Importer):
    """Reads a text file with one episode length per line; ``x`` is an episode that cannot be read."""

    name = "counting"
    version = 1
    summary = "a text file of lengths"
    options = (Option("offset", "0", "added to every number"),)

    def probe(self, path: Path) -> Probe | None:
        return Probe(self.name, "suffix") if path.suffix == ".lengths" else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        lines = path.read_text().split()
        return Plan(
            source=path,
            options=options,
            refs=[EpisodeRef(f"line {i}", line) for i, line in enumerate(lines)],
            features=example_features(),
            fps=10.0,
            embodiment="",
            checksum=" ".join(lines),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for ref in refs:
            if ref.locator == "x":
                yield Rejected(ref.source_id, "crossed out")
                continue
            n, offset = int(ref.locator), float(plan.options["offset"])
            yield Episode(ref.source_id, {STATE: np.full((n, 3), offset), ACTION: np.full((n, 2), float(n))})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four episodes, one of which cannot be read."""
    path = tmp_path / "three.lengths"
    path.write_text("3 x 1 2")
    return path


def test_the_report_counts_and_names(source: Path, tmp_path: Path) -> None:
    """What was written and what was set aside, with reasons, is in the report and in the store."""
    seen: list[Progress] = []
    report = convert(source, tmp_path / "s.zarr", format=CountingImporter(), progress=seen.append)
    assert (report.n_episodes, report.n_steps, report.unchanged, report.n_resumed) == (3, 6, False, 0)
    assert report.quarantined == {"line 1": "crossed out"}
    store = EpisodeStore.open(tmp_path / "s.zarr")
    assert store.quarantined == report.quarantined
    assert store.fingerprint == report.fingerprint
    assert [(p.done, p.total, p.n_steps, p.quarantined) for p in seen] == [
        (1, 4, 3, 0),
        (2, 4, 3, 1),
        (3, 4, 4, 1),
        (4, 4, 6, 1),
    ]


class WarningImporter(CountingImporter):
    """Warns of every episode of one step."""

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for result in super().episodes(plan, refs):
            if isinstance(result, Episode) and result.n_steps == 1:
                result.warnings.append(f"{STATE} has one step")
            yield result


def test_warnings_of_kept_episodes_survive_an_interruption(source: Path, tmp_path: Path) -> None:
    """What is wrong with an episode that is kept is in the store, and in the report of a resumed run too."""

    def stop(progress: Progress) -> None:
        if progress.source_id == "line 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "s.zarr", format=WarningImporter(), progress=stop)
    expected = {"line 2": ["observation.state has one step"]}
    assert convert(source, tmp_path / "s.zarr", format=WarningImporter()).warnings == expected
    again = convert(source, tmp_path / "s.zarr", format=WarningImporter())
    assert (again.unchanged, again.warnings) == (True, expected)
    assert EpisodeStore.open(tmp_path / "s.zarr").warnings == {1: expected["line 2"]}


def test_the_store_says_how_it_was_made(source: Path, tmp_path: Path) -> None:
    """Importer, version, every option in force and the source's checksum are recorded; no folder is."""
    convert(source, tmp_path / "s.zarr", format=CountingImporter())
    attributes = EpisodeStore.open(tmp_path / "s.zarr").attributes
    assert attributes["conversion"] == {
        "importer": "counting",
        "version": 1,
        "options": {"offset": "0"},
        "checksum": "3 x 1 2",
    }
    assert attributes["source"] == {"name": "three.lengths", "n_episodes": 4}


def test_converting_again_does_nothing(source: Path, tmp_path: Path) -> None:
    """The same source and options find the store up to date and do not touch it."""
    convert(source, tmp_path / "s.zarr", format=CountingImporter())
    before = (tmp_path / "s.zarr" / "zarr.json").stat().st_mtime_ns
    report = convert(source, tmp_path / "s.zarr", format=CountingImporter())
    assert report.unchanged
    assert report.n_episodes == 3
    assert (tmp_path / "s.zarr" / "zarr.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["options", "source"])
def test_another_conversion_is_not_overwritten_silently(change: str, source: Path, tmp_path: Path) -> None:
    """Other options or a changed source need --overwrite, which then replaces the store."""
    convert(source, tmp_path / "s.zarr", format=CountingImporter())
    options = {"offset": "5"} if change == "options" else {}
    if change == "source":
        source.write_text("3 x 1 2 2")
    with pytest.raises(DatasetError, match="another source or with other options"):
        convert(source, tmp_path / "s.zarr", format=CountingImporter(), options=options)
    report = convert(source, tmp_path / "s.zarr", format=CountingImporter(), options=options, overwrite=True)
    assert not report.unchanged
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.zarr", "three.lengths"]


def test_nothing_converted_is_an_error(tmp_path: Path) -> None:
    """Zero episodes end in an error that says why, and leave nothing."""
    (tmp_path / "bad.lengths").write_text("x x")
    with pytest.raises(DatasetError, match=r"no episode could be converted.*2 were set aside.*crossed out"):
        convert(tmp_path / "bad.lengths", tmp_path / "s.zarr", format=CountingImporter())
    (tmp_path / "empty.lengths").write_text("")
    with pytest.raises(DatasetError, match="no usable episode found"):
        convert(tmp_path / "empty.lengths", tmp_path / "s.zarr", format=CountingImporter())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.lengths", "empty.lengths"]


def test_a_failure_before_the_first_episode_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nothing was written there is nothing to go on with, so no staging directory stays."""

    def fail(*arguments: object) -> Iterator[EpisodeResult]:
        raise DatasetError("the source went away")
        yield

    monkeypatch.setattr(CountingImporter, "episodes", fail)
    with pytest.raises(DatasetError, match="went away"):
        convert(source, tmp_path / "s.zarr", format=CountingImporter())
    assert [p.name for p in tmp_path.iterdir()] == ["three.lengths"]


def test_a_full_disk_is_one_clear_line(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full the message says what to do, and the next run goes on."""
    add = EpisodeStoreWriter.add_episode

    def full(writer: EpisodeStoreWriter, episode: Episode) -> None:
        if writer.n_episodes == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(writer, episode)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStoreWriter, "add_episode", full)
        with pytest.raises(
            DatasetError, match=r"No space left on device; free some space .* after the 2 episodes"
        ):
            convert(source, tmp_path / "s.zarr", format=CountingImporter())
    assert not (tmp_path / "s.zarr").exists()
    assert convert(source, tmp_path / "s.zarr", format=CountingImporter()).n_resumed == 2


def test_leftovers_of_a_kill_after_the_swap_are_removed(source: Path, tmp_path: Path) -> None:
    """A staging directory without its store is stale; converting again clears it."""
    convert(source, tmp_path / "s.zarr", format=CountingImporter())
    staging = tmp_path / "s.zarr.staging"
    staging.mkdir()
    (staging / "rows.bin").write_bytes(b"leftover")
    assert convert(source, tmp_path / "s.zarr", format=CountingImporter()).unchanged
    assert not staging.exists()


def test_a_source_some_levels_deeper_is_found(tmp_path: Path) -> None:
    """Pointing too high finds the only source below; of several, the error says where they are."""
    for number, place in enumerate(("a/b/c", "a/d")):
        (tmp_path / "in" / place).mkdir(parents=True)
        with h5py.File(tmp_path / "in" / place / "demo.hdf5", "w") as file:
            file["data/demo_1/actions"] = np.full((3, 2), float(number))
            file["data/demo_1/states"] = np.arange(12.0).reshape(3, 4)
        if not number:
            assert convert(tmp_path / "in", tmp_path / "s.zarr", options={"fps": "10"}).n_episodes == 1
            assert detect_source(tmp_path / "in")[1] == tmp_path / "in" / "a/b/c"
    with pytest.raises(
        DatasetError, match=r"convert one at a time: .*a/d \(robomimic_hdf5\), .*a/b/c \(robom"
    ):
        detect_source(tmp_path / "in")


def test_unknown_formats_and_paths_are_one_clear_line(tmp_path: Path) -> None:
    """A wrong path, data of no known format, and a format that does not exist are told apart."""
    with pytest.raises(DatasetError, match="absent does not exist"):
        convert(tmp_path / "absent", tmp_path / "s.zarr")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DatasetError, match=r"of no known format. Known: .*diffusion_policy_zarr"):
        detect_importer(tmp_path / "notes.txt")
    with pytest.raises(DatasetError, match="unknown format 'robomin'; did you mean 'robomind'"):
        convert(tmp_path / "notes.txt", tmp_path / "s.zarr", format="robomin")
    for name in importer_names():
        with pytest.raises(DatasetError):
            convert(tmp_path / "notes.txt", tmp_path / "s.zarr", format=name)
        assert get_importer(name).name == name
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_killed_conversion_ends_in_the_same_bytes(
    tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """SIGKILL in the middle, again, and while publishing; the finished store is byte-identical."""
    lengths = tuple(random.Random(0).choices(range(1, 9), k=150))
    source = write_replay_buffer(tmp_path / "buffer.zarr", lengths, chunk=200)
    convert(source, tmp_path / "whole.zarr")
    target = tmp_path / "killed.zarr"
    staging = tmp_path / "killed.zarr.staging"
    journal = staging / "journal.jsonl"
    reached = [
        lambda: journal.exists() and journal.read_bytes().count(b"\n") > 20,
        lambda: journal.exists() and journal.read_bytes().count(b"\n") > 90,
        lambda: (staging / "store" / "zarr.json").exists(),
    ]
    for moment in reached:
        assert _run_and_kill(source, target, moment), "the conversion ended before it could be killed"
        assert not target.exists()
    convert(source, target)
    assert tree_digest(target) == tree_digest(tmp_path / "whole.zarr")
    assert not staging.exists()


def _run_and_kill(source: Path, target: Path, moment: Callable[[], bool]) -> bool:
    program = "import sys; from robot_datasets.convert import convert; convert(sys.argv[1], sys.argv[2])"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(source), str(target)], env=environment
    ) as process:
        while process.poll() is None and not moment():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
