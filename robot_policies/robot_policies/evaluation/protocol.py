"""What was evaluated and how: everything that one needs to repeat an evaluation, or to trust it.

Two evaluations may be mixed in one folder, or compared, only if their protocols agree where it matters;
`differences` says where they do not.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from robot_policies import __version__
from robot_policies.provenance import describe_machine, package_versions, source_revision
from robot_policies.spec import PolicySpec

if TYPE_CHECKING:
    from robot_sim.task import TaskSpec

FORMAT = 1
SOFTWARE = (
    "torch",
    "numpy",
    "diffusers",
    "gymnasium",
    "mujoco",
    "robosuite",
    "metaworld",
    "gym-pusht",
    "pymunk",
)
# Two result lines belong together only if these agree. Seeds may be added, and the machine may change.
IDENTITY = (
    "format",
    "task",
    "horizons",
    "executor",
    "sampler",
    "policy_seed",
    "checkpoint.sha256",
    "software",
)


def build_protocol(
    *,
    task: TaskSpec,
    task_options: Mapping[str, Any],
    seeds: Sequence[int],
    spec: PolicySpec,
    executor: Mapping[str, Any],
    sampler: Mapping[str, Any] | None,
    policy_seed: int,
    checkpoint: Mapping[str, Any],
    data: Mapping[str, Any],
    n_envs: int,
    workers: int,
    device: torch.device,
    command: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON-ready protocol of an evaluation.

    Args:
        task: What the task offers and how it is scored.
        task_options: Options it was built with.
        seeds: Episode seeds.
        spec: Features and horizons of the policy.
        executor: Executor configuration.
        sampler: The sampler in force: the override, else the policy's own.
        policy_seed: Seed of the policy noise beside the episodes' seeds.
        checkpoint: ``path``, ``sha256`` and what else identifies the policy.
        data: Card of the training data, with its fingerprint.
        n_envs: Largest inference batch.
        workers: Worker processes.
        device: Where the policy computed.
        command: The command line that repeats this.
    """
    return {
        "format": FORMAT,
        "task": {
            "name": task.name,
            "options": dict(task_options),
            "score": task.score,
            "max_steps": task.max_steps,
            "fps": task.fps,
            "embodiment": task.embodiment,
            "instruction": task.instruction,
            "observation": {name: f.to_dict() for name, f in task.observation.items()},
            "action": task.action.to_dict(),
        },
        "seeds": [int(seed) for seed in seeds],
        "policy_seed": policy_seed,
        "horizons": {
            "n_obs_steps": spec.n_obs_steps,
            "horizon": spec.horizon,
            "n_action_steps": spec.n_action_steps,
        },
        "executor": dict(executor),
        "sampler": None if sampler is None else dict(sampler),
        "checkpoint": dict(checkpoint),
        "data": dict(data),
        "software": {"robot-policies": __version__, **package_versions(SOFTWARE)},
        "machine": {
            **describe_machine(device),
            "source_revision": source_revision(),
            "n_envs": n_envs,
            "workers": workers,
        },
        "command": shlex.join(command),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two protocols disagree in what makes results belong together, as ``key: before -> now``."""
    found: list[str] = []
    for key in IDENTITY:
        a, b = _flatten(_at(before, key), key), _flatten(_at(now, key), key)
        found += [
            f"{name}: {a.get(name, 'absent')} -> {b.get(name, 'absent')}"
            for name in sorted(a.keys() | b.keys())
            if a.get(name) != b.get(name)
        ]
    return found


def select(protocol: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The values of dotted keys, None where there is none."""
    return {key: _at(protocol, key) for key in keys}


def _at(tree: Mapping[str, Any], path: str) -> Any:
    node: Any = tree
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _flatten(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for name, inner in value.items():
            flat.update(_flatten(inner, f"{path}.{name}"))
        return flat
    return {path: list(value) if isinstance(value, tuple) else value}
