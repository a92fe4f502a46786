"""The commands that make a new store of old ones, and check with its rules."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_policies.cli.main import main


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes; the second has a spike and failed."""
    path = tmp_path_factory.mktemp("edit_commands") / "demos.zarr"
    feature = Feature(dtype="float32", shape=(1,), names=("x",), units=("m",))
    with EpisodeStoreWriter(
        path, features={STATE: feature, ACTION: feature}, fps=10, embodiment="arm"
    ) as writer:
        for i in range(3):
            x = np.sin(np.arange(41) / 5 + i)[:, None].astype(np.float32)
            state = x[:-1].copy()
            if i == 1:
                state[20] += 4
            writer.add_episode(
                Episode(f"e{i}", {STATE: state, ACTION: x[1:]}, task=f"task {i}", success=i != 1)
            )
        writer.publish()
    return path


@pytest.fixture(autouse=True)
def _in_a_folder(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds a copy of the store."""
    shutil.copytree(example, tmp_path / "demos.zarr")
    monkeypatch.chdir(tmp_path)


def _ids(path: str) -> list[str]:
    return EpisodeStore.open(path).episodes["source_id"]


def test_every_tool_writes_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command does what it says and reports it in one line."""
    assert main(["drop", "demos.zarr", "good.zarr", "--failed"]) == 0
    assert "good.zarr: 2 episodes, 80 steps, 1 left out; written in" in capsys.readouterr().out
    assert main(["trim", "demos.zarr", "short.zarr", "--steps", "5:", "--episode", "0=:10"]) == 0
    assert EpisodeStore.open("short.zarr").episodes["n_steps"].tolist() == [10, 35, 35]
    assert main(["rename", "demos.zarr", "named.zarr", "--task", "task 0=lift", "--embodiment", "panda"]) == 0
    assert EpisodeStore.open("named.zarr").tasks[0] == "lift"
    assert main(["split", "demos.zarr", "train.zarr", "val.zarr", "--val-ratio", "0.34"]) == 0
    assert sorted(_ids("train.zarr") + _ids("val.zarr")) == ["e0", "e1", "e2"]
    assert main(["merge", "train.zarr", "val.zarr", "--out", "again.zarr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n_episodes"] == 3
    assert main(["drop", "demos.zarr", "--in-place", "--episode", "0,2-2"]) == 0
    assert _ids("demos.zarr") == ["e1"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would go is listed, and no store appears."""
    assert (
        main(["drop", "demos.zarr", "out.zarr", "--where", "n_steps > 3 and episode != 1", "--dry-run"]) == 0
    )
    out = capsys.readouterr().out
    assert "e0: dropped: n_steps > 3 and episode != 1" in out
    assert "would have 1 episodes, 40 steps, 2 left out; nothing was written" in out
    assert [p.name for p in tmp_path.iterdir()] == ["demos.zarr"]


def test_findings_are_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What check prints as JSON is what drop takes as a list; a list of names works as well."""
    assert main(["check", "demos.zarr", "--json", "--only", "spike"]) == 0
    (tmp_path / "found.json").write_text(capsys.readouterr().out)
    assert main(["drop", "demos.zarr", "out.zarr", "--list", "found.json", "--code", "spike"]) == 0
    assert _ids("out.zarr") == ["e0", "e2"]
    assert EpisodeStore.open("out.zarr").quarantined == {"e1": "dropped: spike"}
    (tmp_path / "names.txt").write_text("e0\n\ne2\n")
    assert main(["drop", "demos.zarr", "other.zarr", "--list", "names.txt"]) == 0
    assert _ids("other.zarr") == ["e1"]


def test_check_fails_on_warnings_if_strict(capsys: pytest.CaptureFixture[str]) -> None:
    """A suspicion is shown and ends with 0, with --strict with 1; a rule that is left out says nothing."""
    assert main(["check", "demos.zarr"]) == 0
    out = capsys.readouterr().out
    assert "no problems in 3 episodes, 120 steps, 0 frames" in out
    assert "episode 1 (e1): x jumps by" in out
    assert main(["check", "demos.zarr", "--strict"]) == 1
    capsys.readouterr()
    assert main(["check", "demos.zarr", "--skip", "spike", "--skip", "integrity", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "spike" not in report["counts"]
    assert "n_problems" not in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drop", "demos.zarr", "--failed"], "give either the store to make, or --in-place"),
        (["drop", "demos.zarr", "out.zarr", "--in-place", "--failed"], "give either the store to make"),
        (["drop", "demos.zarr", "out.zarr", "--episode", "one"], "'one' is no episode number"),
        (["drop", "demos.zarr", "out.zarr", "--where", "success = 1"], "is no condition"),
        (["drop", "demos.zarr", "out.zarr", "--list", "absent"], "absent cannot be read"),
        (["drop", "demos.zarr", "demos.zarr", "--failed"], "already exists; choose another path"),
        (["trim", "demos.zarr", "out.zarr", "--steps", "5"], "'5' are no steps; expected A:B"),
        (["trim", "demos.zarr", "out.zarr", "--episode", "5:6"], "--episode got '5:6'"),
        (["rename", "demos.zarr", "out.zarr", "--feature", "action"], "--feature got 'action'"),
        (["merge", "demos.zarr", "--out", "out.zarr"], "give two or more"),
        (["merge", "demos.zarr", "absent.zarr", "--out", "out.zarr"], "absent.zarr does not exist"),
        (["split", "demos.zarr", "a.zarr", "b.zarr", "--val-ratio", "2"], "val_ratio must lie in"),
        (["split", "demos.zarr", "a.zarr", "./a.zarr"], "both parts would be written to a.zarr"),
        (["check", "demos.zarr", "--only", "spikes"], "did you mean 'spike'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every wrong input ends with status 2 and one line, and writes nothing."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["demos.zarr"]


def test_lists_that_are_no_lists_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON of another kind, an unknown code, or a code for a plain list are errors."""
    (tmp_path / "bad.json").write_text('{"findings": [{"source_id": "e1"}]}')
    (tmp_path / "broken.json").write_text('{"findings"')
    (tmp_path / "names.txt").write_text("e1\n")
    for name, message in (
        ("bad.json", "is not what check --json prints"),
        ("broken.json", "is not what check --json prints"),
        ("names.txt", "is a plain list; --code is for"),
    ):
        assert main(["drop", "demos.zarr", "out.zarr", "--list", name, "--code", "spike"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["merge", "split", "trim", "drop", "rename", "check", "schema"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself with an example that can be copied."""
    assert main([command, "--help"]) == 0
    assert f"robot-policies {command} " in capsys.readouterr().out.split("example:")[1]
