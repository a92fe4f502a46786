"""Every YAML file of the configuration composes into something that can be built."""

from pathlib import Path
from typing import Any

import pytest
import torch

from robot_datasets.features import Feature
from robot_policies.checkpoint import policy_config
from robot_policies.cli.config_groups import CONFIG_FOLDER, default_groups, find_groups, fitting_options
from robot_policies.cli.hydra_app import compose_config
from robot_policies.configuration import to_mapping
from robot_policies.execution import build_executor, executors
from robot_policies.policies import build_policy
from robot_policies.spec import PolicySpec
from robot_policies.training.config import RunConfig
from robot_sim.registry import task_defaults

GROUPS = find_groups()
PRIMARIES = sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))
# Values that have no default, by command.
REQUIRED = {
    "train": ["dataset.path=demos.zarr"],
    "eval": ["checkpoint=runs/x"],
    "generate": ["output=demos.zarr"],
}
FEATURES = {
    "observation.state": Feature(dtype="float32", shape=(9,)),
    "observation.environment_state": Feature(dtype="float32", shape=(10,)),
    "observation.images.top": Feature(dtype="uint8", shape=(96, 96, 3)),
}


def _compose(command: str, *overrides: str) -> dict[str, Any]:
    mixture = {"dataset=mixture", "dataset=retrieval"} & set(overrides)
    required = ["dataset.mixture=[{path: a.zarr, weight: 1}]"] if mixture else REQUIRED[command]
    return compose_config(command, [*required, *overrides])


def _build(config: dict[str, Any]) -> torch.nn.Module:
    """Build the policy of a training configuration without allocating its weights."""
    run = RunConfig.parse(config)
    spec = PolicySpec(
        observation={name: FEATURES[name] for name in run.dataset.observation},
        action=Feature(dtype="float32", shape=(7,)),
        n_obs_steps=run.window.n_obs_steps,
        horizon=run.window.horizon,
        n_action_steps=run.window.n_action_steps,
        fps=10,
        future=run.dataset.future,
    )
    with torch.device("meta"):
        return build_policy(policy_config(config), spec, None)


def _training_choices() -> list[str]:
    groups = sorted(default_groups("train"))
    chosen = [f"{group}={option}" for group in groups for option in fitting_options(group, "train")]
    return [*chosen, *(f"+experiment={option}" for option in fitting_options("experiment", "train"))]


@pytest.mark.parametrize("command", PRIMARIES)
def test_every_command_composes(command: str):
    """Each primary configuration resolves once its mandatory values are given."""
    assert _compose(command)


@pytest.mark.parametrize("task", fitting_options("task", "generate"))
def test_every_task_exists(task: str):
    """Every task preset names a task of the simulation and options it has; evaluation knows it, too."""
    config = _compose("generate", f"task={task}")["task"]
    assert set(config) - {"name"} <= set(task_defaults(config["name"]))
    assert _compose("eval", f"task={task}")["task"] == config


@pytest.mark.parametrize("choice", _training_choices())
def test_every_training_choice_builds(choice: str):
    """Every dataset, policy, sampler, trainer and experiment makes a run whose policy can be built."""
    image = ["dataset=image"] if choice.startswith("policy=") and "image" in choice else []
    if choice.startswith(("policy=pad", "policy=uwm")):
        image = ["dataset=video"]
    if choice == "policy=consistency":  # its network is the teacher's
        student = "{type: diffusion, network: {type: mlp}, process: {type: edm}, sampler: {type: ddim}}"
        image = ["policy.teacher=runs/teacher", f"policy.student={student}"]
    encoder = ["policy=diffusion_unet_image_small"] if choice in ("dataset=image", "dataset=video") else []
    policy = _build(_compose("train", *image, *encoder, choice))
    assert sum(p.numel() for p in policy.parameters()) > 0


@pytest.mark.parametrize("executor", fitting_options("executor", "eval"))
def test_every_executor_builds(executor: str):
    """Every executor preset is complete, and fits a policy of the usual horizons."""
    vector = Feature(dtype="float32", shape=(7,))
    spec = PolicySpec(
        observation={"observation.state": vector}, action=vector,
        n_obs_steps=2, horizon=16, n_action_steps=8, fps=10,
    )  # fmt: skip
    values = _compose("eval", f"executor={executor}")["executor"]
    assert build_executor(values, spec).planned().shape == (0, 7)
    assert set(values) - {"type"} == set(to_mapping(executors.config(values, where="executor")))


def test_every_file_is_reached():
    """No YAML file is an orphan: each is a command, or an option that fits at least one command."""
    reached = {(g, o) for command in PRIMARIES for g in GROUPS for o in fitting_options(g, command)}
    assert {(group, option) for group, options in GROUPS.items() for option in options} - reached == set()


def test_every_file_says_what_it_is_for():
    """Every YAML file begins with a comment that the help page or a reader can use."""
    bare = []
    for path in CONFIG_FOLDER.rglob("*.yaml"):
        lines = [x for x in path.read_text(encoding="utf-8").splitlines() if not x.startswith("# @package")]
        if not lines or not lines[0].startswith("# "):
            bare.append(path.relative_to(CONFIG_FOLDER).as_posix())
    assert bare == []


def test_configuration_never_names_python_objects():
    """No `_target_`: reading a configuration cannot run code."""
    assert [p.name for p in Path(CONFIG_FOLDER).rglob("*.yaml") if "_target_" in p.read_text("utf-8")] == []
