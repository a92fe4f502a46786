"""The data commands: exit codes, JSON, one-line errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.testing import write_example_store
from robot_policies.cli.main import main


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A small sound store."""
    write_example_store(tmp_path / "s.zarr", [3, 2], image_size=8)
    return tmp_path / "s.zarr"


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    """A replay buffer of two episodes that is not PushT."""
    import zarr

    root = zarr.create_group(str(tmp_path / "buffer.zarr"), zarr_format=2)
    action = np.arange(10, dtype=np.float32).reshape(5, 2)
    root.create_group("data").create_array("action", shape=(5, 2), dtype="f4", fill_value=0)[...] = action
    root.create_group("meta").create_array("episode_ends", shape=(2,), dtype="i8", fill_value=0)[...] = [2, 5]
    return tmp_path / "buffer.zarr"


def test_convert_reports_and_is_idempotent(
    buffer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run writes, the second says that there is nothing to do; both succeed."""
    command = ["convert", str(buffer), str(tmp_path / "out.zarr"), "--option", "fps=10"]
    assert main(command) == 0
    assert "2 episodes, 5 steps, 0 set aside; written in" in capsys.readouterr().out
    assert main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_convert_prints_json(buffer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the report is one line on standard output."""
    assert main(["convert", str(buffer), str(tmp_path / "out.zarr"), "--option", "fps=10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n_episodes"], report["n_steps"], report["format"]) == (2, 5, "diffusion_policy_zarr")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "absent", "out.zarr"], "absent does not exist"),
        (["convert", "{buffer}", "out.zarr"], "--option fps="),
        (["convert", "{buffer}", "out.zarr", "--option", "fps"], "expected NAME=VALUE"),
        (["convert", "{buffer}", "out.zarr", "--option", "fsp=1"], "did you mean 'fps'"),
        (["convert", "{buffer}", "out.zarr", "--format", "openx"], "unknown format 'openx'"),
        (["inspect", "absent.zarr"], "absent.zarr does not exist"),
        (["check", "{buffer}"], "is not an episode store"),
        (["stats", "{store}", "--feature", "acton"], "did you mean 'action'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, buffer: Path, store: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every wrong input ends in one line that says what to do, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    filled = [a.format(buffer=buffer, store=store) for a in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out.zarr").exists()
    assert not (tmp_path / "out.zarr.staging").exists()


def test_inspect_shows_features(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary lists episodes and features."""
    assert main(["inspect", str(store)]) == 0
    text = capsys.readouterr().out
    assert "5 at 10 Hz" in text
    assert "observation.images.top" in text
    assert main(["inspect", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_episodes"] == 2


def test_check_exits_with_1_if_something_is_wrong(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sound stores exit with 0, others with 1 and the problem."""
    assert main(["check", str(store)]) == 0
    assert "no problems in 2 episodes, 5 steps, 5 frames" in capsys.readouterr().out
    shutil.rmtree(store / "meta" / "tasks")
    assert main(["check", str(store)]) == 1
    assert "lacks meta/tasks" in capsys.readouterr().out
    assert main(["check", str(store), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["n_problems"] == 1


def test_stats_prints_components(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statistics are listed per named component, and as numbers in JSON."""
    assert main(["stats", str(store), "--feature", "action"]) == 0
    assert "vx" in capsys.readouterr().out
    assert main(["stats", str(store), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["observation.state"]["q50"]) == 3


@pytest.mark.parametrize("command", ["convert", "inspect", "check", "stats"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself with an example that can be copied."""
    assert main([command, "--help"]) == 0
    assert f"robot-policies {command} " in capsys.readouterr().out.split("example:")[1]


def test_interrupted_conversion_says_how_to_go_on(
    buffer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends with status 130; the same command then finishes the store."""
    from robot_datasets.store import EpisodeStoreWriter

    def interrupt(writer: EpisodeStoreWriter) -> None:
        raise KeyboardInterrupt

    command = ["convert", str(buffer), str(tmp_path / "out.zarr"), "--option", "fps=10"]
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStoreWriter, "publish", interrupt)
        assert main(command) == 130
    assert "2 episodes are safe, run the same command again" in capsys.readouterr().err
    assert main(command) == 0
    assert "2 of them by an earlier run" in capsys.readouterr().out
