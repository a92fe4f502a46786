"""Damaged sources: a small part of ``benchmarks/fuzz_importers.py``, and the judge itself."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.features import STATE
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Plan
from robot_datasets.testing.fault_archives import ARCHIVE_FAULTS
from robot_datasets.testing.faults import Fault, damage
from robot_datasets.testing.fuzz_families import FAMILIES
from robot_datasets.testing.fuzzing import DEFECTS, Family, Fuzzer
from robot_datasets.testing.words import WordsImporter

CASES = 8


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_sources_are_refused_or_set_aside(name: str, tmp_path: Path) -> None:
    """Whatever happens to one file, nothing crashes, nothing wrong is taken for right, and the rest is read."""
    fuzzer = Fuzzer(FAMILIES[name], tmp_path / "work")
    cases = [fuzzer.run(seed) for seed in range(CASES)]
    assert [case for case in cases if case.verdict in DEFECTS] == []


class CarelessImporter(WordsImporter):
    """Reads words as every importer should not: bad ones become numbers, the word ``crash`` an error."""

    def plan(self, path: Path, options: object) -> Plan:
        if "crash" in path.read_text():
            raise ZeroDivisionError("nobody thought of that")
        if "refused" in path.read_text():
            raise DatasetError("no")
        return super().plan(path, {})

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        for ref in refs:
            for result in super().episodes(plan, [EpisodeRef(ref.source_id, str(ref.locator).lstrip("-"))]):
                if isinstance(result, Episode) and str(ref.locator).startswith("-"):
                    result.data[STATE] = -np.abs(result.data[STATE]) - 1
                yield result


def _write_words(folder: Path) -> Path:
    path = folder / "s.words"
    path.write_text("2 3 4")
    return path


def _say(text: str) -> Fault:
    def change(path: Path, random: Random) -> str:
        path.write_text(text)
        return f"now {text}"

    return Fault("edited", change)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("2 3 4 ", "unharmed"),
        ("2 bug 4", "unforeseen"),
        ("2 rejected 4", "vague"),
        ("2 -3 4", "silent"),
        ("2 3", "silent"),
        ("crash", "crash"),
        ("refused", "vague"),
        ("2 badframe 4", "unforeseen"),
    ],
)
def test_the_judge_sees_what_an_importer_does_wrong(text: str, verdict: str, tmp_path: Path) -> None:
    """Wrong numbers, lost episodes, errors nobody foresaw and reasons without a remedy are told apart."""
    family = Family("careless", "words", _write_words, CarelessImporter(), faults=(_say(text),))
    assert Fuzzer(family, tmp_path / "work").run(0).verdict == verdict


def test_healthy_episodes_lost_with_a_bad_one_are_seen(tmp_path: Path) -> None:
    """If a file belongs to one episode, damage to it must cost no other."""
    family = Family(
        "careless",
        "words",
        _write_words,
        CarelessImporter(),
        is_own=lambda name: True,
        faults=(_say("rejected bug 4"),),
    )
    assert Fuzzer(family, tmp_path / "work").run(0).verdict == "healthy lost"


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("fault", ARCHIVE_FAULTS)
def test_archives_are_hostile_or_as_they_were(kind: str, fault: str, tmp_path: Path) -> None:
    """A fault that an archive of this kind cannot have leaves it whole; nothing is left beside it."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.json").write_text("{}" * 50)
    path = Path(shutil.make_archive(str(tmp_path / "a"), kind, root_dir=tmp_path, base_dir="set"))
    beside = sorted(os.listdir(tmp_path))
    for seed in range(3):
        before = path.read_bytes()
        said = ARCHIVE_FAULTS[fault](path, Random(seed))
        assert (path.read_bytes() == before) == (said is None)
        assert sorted(os.listdir(tmp_path)) == beside
        path.write_bytes(before)


def test_faults_repeat(tmp_path: Path) -> None:
    """The same number gives the same fault, so that a case can be looked at again."""
    said = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.json").write_text('{"fps": 30, "names": ["x", "y"]}')
        (folder / "b.bin").write_bytes(bytes(range(100)))
        said.append([(f.name, p.name, text) for f, p, text in (damage(folder, Random(7)),)])
    assert said[0] == said[1]
    assert os.listdir(tmp_path / "0") == os.listdir(tmp_path / "1")
