"""Composition of configurations: overrides, presets, and errors with the nearest match."""

import os
from pathlib import Path

import pytest

from robot_policies.cli.config_groups import find_groups
from robot_policies.cli.hydra_app import compose_config
from robot_policies.configuration import ConfigError

FILES = {
    "toy.yaml": """
# Train a toy.
defaults:
  - network: small
  - _self_
path: ???
trainer: {steps: 5, lr: 0.1}
copy: ${trainer.steps}
""",
    "network/small.yaml": "type: mlp\nwidth: 8\n",
    "network/large.yaml": "type: mlp\nwidth: 512\ndepth: 3\n",
    "preset/quick.yaml": """# @package _global_
defaults:
  - override /network: large
trainer: {steps: 1}
""",
    "preset/foreign.yaml": "# @package _global_\nrobot: panda\n",
}


@pytest.fixture
def toy(tmp_path: Path):
    """A function that composes a small configuration tree of its own from overrides."""
    for name, text in FILES.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"), encoding="utf-8")

    def run(*argv: str):
        return compose_config("toy", ["--config-dir", str(tmp_path / "configs"), *argv], examples=("seed=1",))

    return run


def test_plain_tree_with_overrides(toy):
    """Overrides and interpolations are resolved into plain Python values."""
    config = toy("path=a/b", "trainer.steps=7", "network.width=16")
    assert config == {
        "network": {"type": "mlp", "width": 16},
        "path": "a/b",
        "trainer": {"steps": 7, "lr": 0.1},
        "copy": 7,
    }
    assert type(config["trainer"]) is dict


@pytest.mark.parametrize("spelling", ["preset=quick", "+preset=quick"])
def test_preset_with_and_without_plus(toy, spelling: str):
    """A preset applies in both spellings; it may switch other groups; the command line still wins."""
    config = toy("path=x", spelling, "network.depth=4")
    assert config["network"] == {"type": "mlp", "width": 512, "depth": 4}
    assert config["trainer"]["steps"] == 1


def test_group_choice_with_needless_plus(toy):
    """A group of the defaults list may be written with a plus, too."""
    assert toy("path=x", "+network=large")["network"]["width"] == 512


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("trainer.stpes=1", "unknown key 'trainer.stpes'; did you mean 'trainer.steps'?"),
        ("trainr.lr=1", "did you mean 'trainer.lr'?"),
        ("netwrok=large", "did you mean 'network'?"),
        (
            "network=lrage",
            "unknown option of 'network' 'lrage'; did you mean 'large'? Available: large, small",
        ),
        ("+preset=quik", "did you mean 'quick'?"),
        ("+preset=foreign", "preset of another command"),
        ("trainer.steps=1,2", "asks for several runs"),
        ("path=a(b", "quote values with special characters"),
        ("steps", "is not an override; expected key=value"),
        ("--confg", "did you mean '--cfg'?"),
        ("~trainer.mo", "unknown key 'trainer.mo'"),
    ],
)
def test_wrong_override(toy, override: str, hint: str):
    """Every kind of wrong override is one line that says what to type instead."""
    with pytest.raises(ConfigError) as caught:
        toy("path=x", override)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_value(toy):
    """A value without default that was not given is named, with how to give it."""
    with pytest.raises(ConfigError, match=r"no value for path; give it: robot-policies toy path="):
        toy()


def test_missing_config_folder(toy):
    """A --config-dir that is no folder is an error, not an empty one."""
    with pytest.raises(ConfigError, match="is not a folder"):
        toy("--config-dir", "absent")


def test_help(toy, capsys: pytest.CaptureFixture[str]):
    """--help shows the file's head comment, groups, fitting presets, keys, defaults and examples."""
    with pytest.raises(SystemExit) as stop:
        toy("--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for part in (
        "Train a toy.",
        "large, small",
        "quick",
        "steps: 5",
        "path: ???",
        "robot-policies toy seed=1",
    ):
        assert part in out
    assert "foreign" not in out


def test_cfg_prints_the_resolved_configuration(toy, capsys: pytest.CaptureFixture[str]):
    """--cfg prints YAML and stops, even while a value is still missing."""
    with pytest.raises(SystemExit):
        toy("--cfg", "trainer.steps=9")
    assert "copy: 9" in capsys.readouterr().out


def test_nothing_is_written_or_moved(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Composition neither changes the working directory nor leaves Hydra's output folders."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert toy("path=rel/ative")["path"] == "rel/ative"
    assert Path(os.getcwd()) == here
    assert not list(here.iterdir())


def test_groups_of_the_project_are_found():
    """The built-in configuration has the groups that the documentation promises."""
    assert {"policy", "task", "experiment"} <= set(find_groups())


@pytest.mark.parametrize("spelling", ["task=metaworld/reach-v3", "+task=metaworld/reach-v3"])
def test_a_value_may_have_the_name_of_a_group(spelling: str):
    """`task` chooses a preset of "eval", and is a word in the checkpoint for "train"."""
    arguments = [spelling, "+experiment=lift_demo"]
    assert compose_config("train", arguments)["task"] == "metaworld/reach-v3"
    assert compose_config("eval", [spelling, "checkpoint=run"])["task"]["name"] == "metaworld/reach-v3"


def test_such_a_value_may_be_a_tree():
    """Options of the task come along."""
    composed = compose_config("train", ["task={name: tabletop_stack, arm: ur5e}", "dataset.path=x"])
    assert composed["task"] == {"name": "tabletop_stack", "arm": "ur5e"}
