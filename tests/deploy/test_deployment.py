"""Deployments: every preset is valid, mistakes are told in one line, and actions mean what joints need."""

from dataclasses import replace
from pathlib import Path

import pytest

from robot_datasets.errors import UserError
from robot_datasets.features import Feature
from robot_datasets.mapping import ConfigError
from robot_deploy.action_contract import contracted
from robot_deploy.deployment import deployment_presets, load_deployment
from robot_policies.spec import PolicySpec

JOINTS = ("a", "b")


def _spec(**action: object) -> PolicySpec:
    values: dict = {"dtype": "float32", "shape": (2,), "names": JOINTS, "units": ("rad",)}
    return PolicySpec(
        observation={}, action=Feature(**{**values, **action}),
        n_obs_steps=1, horizon=4, n_action_steps=2, fps=20.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", deployment_presets())
def test_presets_are_valid(name: str):
    """Limits, targets, streams and runtime of every preset can be built; only the demo's moves anything."""
    config = load_deployment(name)
    limits = config.limits()
    config.check_targets(limits.names)
    runtime = config.runtime_config()
    assert runtime.feedback in config.streams
    assert set(limits.names) <= set(config.streams[runtime.feedback].names)
    assert (config.mode == "live") == (name == "demo")


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cell.yaml"
    path.write_text(text)
    return path


MINIMAL = "robot: panda\nstreams: {joints: {kind: state, topic: /joint_states, names: [x]}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "targts: []", "did you mean 'targets'"),
        (MINIMAL + "runtime: {mode: live}", "runtime.mode"),
        (MINIMAL + "runtime: {comand_rate: 50.0}", "did you mean 'command_rate'"),
        (MINIMAL + "mode: fast", "mode"),
        (MINIMAL + "targets: []", "at least one controller"),
        ("robot: panda\nstreams: {joints: {kind: state, names: [x]}}", "either a topic or kinematics"),
        (
            "robot: panda\nstreams: {t: {kind: state, names: [x, y, z], kinematics: {joints: q, arm: panda}}}",
            "unknown",
        ),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "expected a YAML file"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, said: str):
    """A wrong key, value or structure names its place and what to do."""
    with pytest.raises(ConfigError) as caught:
        load_deployment(_written(tmp_path, text)).runtime_config()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_joint_has_one_controller(tmp_path: Path):
    """A joint in two controllers, in none, or unknown is refused."""
    config = load_deployment("cobot_magic")
    names = config.limits().names
    left, right = config.targets
    for targets, said in (
        ((left,), "no controller for right_joint1"),
        ((left, replace(right, joints=(*right.joints, "left_joint1"))), "more than one"),
        ((left, replace(right, joints=("right_joint9",))), "unknown joint"),
    ):
        with pytest.raises(ConfigError, match=said):
            replace(config, targets=targets).check_targets(names)


def test_paths_are_relative_to_the_file(tmp_path: Path):
    """Checkpoint, URDF and YAML files lie beside the file that names them; presets stay names."""
    config = load_deployment(_written(tmp_path, MINIMAL + "checkpoint: runs/a\nurdf: arm.urdf\n"))
    assert config.checkpoint == str(tmp_path / "runs/a")
    assert config.urdf == str(tmp_path / "arm.urdf")
    assert config.robot == "panda"


@pytest.mark.parametrize(
    ("action", "command", "said"),
    [
        ({"meaning": "delta pose"}, "position", "relative to where the robot is"),
        ({"meaning": "joint velocity"}, "position", "want a position"),
        ({"meaning": "absolute position"}, "velocity", "want a velocity"),
        ({"units": ("1",)}, "position", "expected rad or m"),
        ({"units": ()}, "position", ""),
        ({"names": ("a", "c")}, "position", "says nothing about b"),
        ({"names": (), "shape": (3,)}, "position", "without names"),
    ],
)
def test_what_cannot_be_commanded_is_refused(action: dict, command: str, said: str):
    """Deltas, other quantities, numbers without a unit of joints, and missing joints end in a clear error."""
    if not said:
        assert contracted(_spec(**action), JOINTS, {}, command=command).action.names == JOINTS
        return
    with pytest.raises(UserError, match=said):
        contracted(_spec(**action), JOINTS, {}, command=command)


def test_components_are_renamed_to_joints():
    """A policy that calls its components otherwise is told which joint each is."""
    spec = contracted(_spec(names=("b", "grip")), JOINTS, {"a": "grip"}, command="position")
    assert spec.action.names == ("b", "a")
    with pytest.raises(ConfigError, match="did you mean 'grip'"):
        contracted(_spec(names=("b", "grip")), JOINTS, {"a": "gripp"}, command="position")
