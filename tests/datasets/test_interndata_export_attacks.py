"""Exports to InternData-A1's layout that go wrong: nothing appears that looks finished, and the message says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, IMAGE_PREFIX
from robot_datasets.importers.interndata import InternData
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import tree_digest
from robot_datasets.testing.joint_store import JOINT_LENGTHS, JOINT_POSITION, write_joint_store

_KILLED = """
import os, signal, sys
from robot_datasets.exporters import export
from robot_datasets.store import EpisodeStore

def stop(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

export(EpisodeStore.open(sys.argv[1]), sys.argv[2], format="interndata", overwrite=True, progress=stop)
"""


def _run_until_killed(store: EpisodeStore, target: Path) -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", _KILLED, store.path, str(target)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def test_a_killed_export_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    """SIGKILL after the first of two episodes: nothing the importer takes for a set, and the next run is whole."""
    store = write_joint_store(tmp_path / "in.zarr", "panda")
    export(store, tmp_path / "whole", format="interndata")
    _run_until_killed(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert InternData().probe(tmp_path / "out.staging") is None
    with pytest.raises(DatasetError):
        convert(tmp_path / "out.staging", tmp_path / "half.zarr")
    export(store, tmp_path / "out", format="interndata")
    assert tree_digest(tmp_path / "out") == tree_digest(tmp_path / "whole")
    assert not (tmp_path / "out.staging").exists()


def test_a_killed_replacement_leaves_the_old_set(tmp_path: Path) -> None:
    """What stood there before stays as it was."""
    store = write_joint_store(tmp_path / "in.zarr", "panda")
    export(store, tmp_path / "out", format="interndata")
    before = tree_digest(tmp_path / "out")
    _run_until_killed(store, tmp_path / "out")
    assert tree_digest(tmp_path / "out") == before


def test_a_target_that_exists_is_not_touched(tmp_path: Path) -> None:
    """Neither a set nor a file of the user's is replaced without being asked."""
    store = write_joint_store(tmp_path / "in.zarr", "ur5e")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="already exists; choose another path or pass --overwrite"):
        export(store, tmp_path / "notes.txt", format="interndata")
    with pytest.raises(DatasetError, match="not a dataset of this format"):
        export(store, tmp_path / "notes.txt", format="interndata", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("robot", ["ur5e", "panda+panda"])
def test_a_store_without_pictures_is_refused(robot: str, tmp_path: Path) -> None:
    """With the option that makes them."""
    store = write_joint_store(tmp_path / "in.zarr", robot, cameras=())
    with pytest.raises(DatasetError, match=r"no colour camera.*generate with task.images=true"):
        export(store, tmp_path / "out", format="interndata")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["interndata", "robomind"])
@pytest.mark.parametrize(("name", "value"), [(JOINT_POSITION, np.nan), (ACTION, np.inf)])
def test_numbers_that_are_none_are_refused(format: str, name: str, value: float, tmp_path: Path) -> None:
    """A damaged column is named with episode, step and remedy before anything is written."""
    write_joint_store(tmp_path / "in.zarr", "panda", cameras=("top",))
    zarr.open_array(tmp_path / "in.zarr" / "data" / name, mode="r+")[JOINT_LENGTHS[0] + 2, 3] = value
    store = EpisodeStore.open(tmp_path / "in.zarr")
    message = rf"{name} has NaN or infinity in 1 steps, first in episode 1 at step 2; .*drop --episode 1"
    with pytest.raises(DatasetError, match=message):
        export(store, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_several_tasks_stay_apart(tmp_path: Path) -> None:
    """Every episode keeps its own words, and the table of tasks has each once."""
    store = write_joint_store(tmp_path / "in.zarr", "ur5e")
    export(store, tmp_path / "out", format="interndata")
    convert(tmp_path / "out", tmp_path / "back.zarr")
    back = EpisodeStore.open(tmp_path / "back.zarr")
    assert [back.tasks[int(i)] for i in back.episodes["task_index"]] == ["hand it over", "take it back"]
    assert (tmp_path / "out" / "meta" / "tasks.jsonl").read_text().count("\n") == 2


def test_pictures_survive_the_video(tmp_path: Path) -> None:
    """Every frame is that of its step, but for what the codec loses."""
    store = write_joint_store(tmp_path / "in.zarr", "panda+panda")
    export(store, tmp_path / "out", format="interndata", options={"crf": "1"})
    convert(tmp_path / "out", tmp_path / "back.zarr", options={"image_encoding": "png"})
    back, steps = EpisodeStore.open(tmp_path / "back.zarr"), np.arange(sum(JOINT_LENGTHS))
    before = store.images(IMAGE_PREFIX + "agentview").decode(steps).astype(int)
    after = back.images(IMAGE_PREFIX + "head").decode(steps).astype(int)
    for step in steps:
        assert np.abs(after[step] - before[step]).mean() < 4
