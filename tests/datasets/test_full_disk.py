"""A disk that is really full or read-only: one clear line, an untouched source, and the same store afterwards."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from robot_datasets.convert import convert
from robot_datasets.testing import tree_digest
from robot_datasets.testing.words import WordsImporter

WORDS = "400 500 rejected 300 400 200 100"

FREE_BYTES = {1: [0, 4096, 70_000, 90_000, 250_000], 2: [110_000]}
"""Number of workers -> how much is free in one attempt after the other, before all of the disk is."""

PROGRAM = """
import json, os, shutil, subprocess, sys
from pathlib import Path
from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.testing import tree_digest
from robot_datasets.testing.words import WordsImporter

def attempt(workers):
    try:
        report = convert(source, disk / "s.zarr", format=WordsImporter(), workers=workers)
        return f"done, {report.n_resumed} resumed"
    except DatasetError as error:
        return str(error)

if __name__ == "__main__":
    source, disk = Path(sys.argv[1]), Path(sys.argv[2])
    found = {}
    for workers, amounts in json.loads(sys.argv[3]).items():
        outcomes = []
        for free in amounts:
            filler = disk / "filler"
            filler.write_bytes(bytes(max(0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free)))
            outcomes.append(attempt(int(workers)))
            filler.unlink()
        outcomes.append(attempt(int(workers)))
        found[workers] = [outcomes, tree_digest(disk / "s.zarr")]
        shutil.rmtree(disk / "s.zarr")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    found["read-only"] = attempt(1)
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What conversions to a disk of 3 MiB ended in; it exists for this one process alone."""
    root = tmp_path_factory.mktemp("small")
    source, disk, script = root / "s.words", root / "disk", root / "script.py"
    source.write_text(WORDS)
    script.write_text(PROGRAM)
    disk.mkdir()
    mounted = f"mount -t tmpfs -o size=3m tmpfs '{disk}'"
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*inside, mounted], capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here; it needs user namespaces")
    command = (
        f"{mounted} && exec '{sys.executable}' '{script}' '{source}' '{disk}' '{json.dumps(FREE_BYTES)}'"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([*inside, command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert source.read_text() == WORDS
    convert(source, root / "whole.zarr", format=WordsImporter())
    return {**json.loads(done.stdout), "disk": disk, "whole": tree_digest(root / "whole.zarr")}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_survived(workers: int, small_disk: dict[str, Any]) -> None:
    """Full from the start, in the middle and while publishing: said in one line, and then gone on with."""
    (*failures, last), digest = small_disk[str(workers)]
    assert len(failures) == len(FREE_BYTES[workers])
    for failure in failures:
        assert "No space left on device; free some space and run the same command again" in failure
        assert "\n" not in failure
    assert last.startswith("done")
    safe = [int(failure.rpartition("after the ")[2].split()[0]) for failure in failures]
    if workers == 1:
        assert safe[:3] == [0, 0, 1]
        assert 1 < safe[3] < safe[4] == 6
    assert digest == small_disk["whole"]


def test_a_read_only_disk_is_one_clear_line(small_disk: dict[str, Any]) -> None:
    """Nothing can be written: the message names the folder and what to do."""
    expected = (
        f"cannot write to {small_disk['disk']}: Read-only file system; choose a folder you may write to"
    )
    assert small_disk["read-only"] == expected
