"""The schema command."""

import json
from pathlib import Path

import pytest

from robot_datasets.schemas import schema_names
from robot_policies.cli.main import main


def test_schemas_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name all schemas are listed, with their sizes."""
    assert main(["schema", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries] == schema_names()
    pusht = next(entry for entry in entries if entry["name"] == "pusht")
    assert (pusht["state_dim"], pusht["action_dim"]) == (2, 2)
    assert main(["schema"]) == 0
    assert "pusht" in capsys.readouterr().out


@pytest.mark.parametrize("name", schema_names())
def test_every_schema_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A schema prints its features, actions and notes."""
    assert main(["schema", name]) == 0
    text = capsys.readouterr().out
    assert "the default" in text
    assert "observation.state" in text


def test_a_schema_prints_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the whole schema is one line."""
    assert main(["schema", "pusht", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["actions"]["target"]["meaning"] == "absolute position"


def test_check_says_whether_a_file_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A valid file ends with 0, a wrong one with 1 and what is wrong with it."""
    import robot_datasets.schemas as package

    text = (Path(package.__file__).parent / "robomind_franka_3rgb.yaml").read_text(encoding="utf-8")
    good, bad, slot = (tmp_path / f"{name}.yaml" for name in ("good", "bad", "slot"))
    good.write_text(text, encoding="utf-8")
    bad.write_text(text.replace("robot: franka", "robto: franka"), encoding="utf-8")
    slot.write_text(text.replace("right_gripper:", "right_griper:"), encoding="utf-8")
    assert main(["schema", "check", str(good)]) == 0
    assert "valid; franka for robomind, state 8, action 8, 3 cameras" in capsys.readouterr().out
    assert main(["schema", "check", str(bad)]) == 1
    assert "did you mean 'robot'" in capsys.readouterr().out
    assert main(["schema", "check", str(slot), "--json"]) == 1
    assert "did you mean 'right_gripper'" in json.loads(capsys.readouterr().out)["problem"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schema", "pushd"], "did you mean 'pusht'"),
        (["schema", "check"], "needs a file"),
        (["schema", "check", "absent.yaml"], "does not exist"),
        (["schema", "pusht", "robosuite"], "takes one name"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong names and files end with status 2 and one line."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
