"""A disk that is really full or read-only: one clear line, an untouched source, and the same store afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robot_datasets.convert import convert
from robot_datasets.testing import tree_digest
from robot_datasets.testing.words import WordsImporter

WORDS = "400 500 rejected 300 400 200 100"

PROGRAM = """
import json, os, subprocess, sys
from pathlib import Path
from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.testing import tree_digest
from robot_datasets.testing.words import WordsImporter

def attempt():
    try:
        report = convert(source, disk / "s.zarr", format=WordsImporter(), workers=workers)
        return f"done, {report.n_resumed} resumed"
    except DatasetError as error:
        return str(error)

if __name__ == "__main__":
    source, disk, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if sys.argv[4] == "readonly":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        print(json.dumps([[attempt()], ""]))
        sys.exit()
    outcomes = []
    for free in json.loads(sys.argv[4]):
        filler = disk / "filler"
        filler.write_bytes(bytes(max(0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free)))
        outcomes.append(attempt())
        filler.unlink()
    outcomes.append(attempt())
    print(json.dumps([outcomes, tree_digest(disk / "s.zarr")]))
"""


def _on_small_disk(tmp_path: Path, *, workers: int, free: str) -> tuple[list[str], str]:
    """Convert on a disk of 3 MiB that exists for this call alone; return the outcomes and the store's digest."""
    source, disk, script = tmp_path / "s.words", tmp_path / "disk", tmp_path / "script.py"
    source.write_text(WORDS)
    script.write_text(PROGRAM)
    disk.mkdir()
    mounted = f"mount -t tmpfs -o size=3m tmpfs '{disk}'"
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mounted], capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here; it needs user namespaces")
    command = f"{mounted} && exec '{sys.executable}' '{script}' '{source}' '{disk}' {workers} '{free}'"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([*inside, command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert source.read_text() == WORDS
    outcomes, digest = json.loads(done.stdout)
    return outcomes, digest


@pytest.mark.parametrize(("workers", "free"), [(1, [0, 4096, 70_000, 90_000, 250_000]), (2, [110_000])])
def test_a_full_disk_is_survived(workers: int, free: list[int], tmp_path: Path) -> None:
    """Full from the start, in the middle and while publishing: said in one line, and then gone on with."""
    outcomes, digest = _on_small_disk(tmp_path, workers=workers, free=json.dumps(free))
    *failures, last = outcomes
    for failure in failures:
        assert "No space left on device; free some space and run the same command again" in failure
        assert "\n" not in failure
    assert last.startswith("done")
    safe = [int(failure.rpartition("after the ")[2].split()[0]) for failure in failures]
    if workers == 1:
        assert safe[:3] == [0, 0, 1]
        assert 1 < safe[3] < safe[4] == 6
    convert(tmp_path / "s.words", tmp_path / "whole.zarr", format=WordsImporter())
    assert digest == tree_digest(tmp_path / "whole.zarr")


def test_a_read_only_disk_is_one_clear_line(tmp_path: Path) -> None:
    """Nothing can be written: the message names the folder and what to do."""
    outcomes, _ = _on_small_disk(tmp_path, workers=1, free="readonly")
    assert outcomes == [
        f"cannot write to {tmp_path / 'disk'}: Read-only file system; choose a folder you may write to"
    ]
