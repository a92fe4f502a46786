"""The export command: exit codes, JSON, one-line errors."""

import json
from pathlib import Path

import pytest

from robot_datasets.testing import write_example_store
from robot_policies.cli.main import main


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A small store with a camera."""
    return write_example_store(tmp_path / "s.zarr", [3, 2], image_size=16).path


def test_export_writes_a_dataset(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what it wrote; --json says it to programs."""
    command = ["export", store, str(tmp_path / "out"), "--format", "lerobot-v3", "--option", "images=image"]
    assert main(command) == 0
    assert "2 episodes, 5 steps as lerobot-v3; written in" in capsys.readouterr().out
    assert main([*command, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["images"] == "image"
    assert (tmp_path / "out" / "meta" / "info.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "lerobot"], "unknown export format 'lerobot'; did you mean 'lerobot-v3'"),
        (["--format", "lerobot-v3", "--option", "codec=vp9"], "unknown value of option codec 'vp9'"),
        (["--format", "lerobot-v3", "--option", "images"], "expected NAME=VALUE"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be done is one line on stderr and status 2, and nothing is written."""
    assert main(["export", store, str(tmp_path / "out"), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
