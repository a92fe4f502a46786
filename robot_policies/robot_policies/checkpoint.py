"""A checkpoint: a directory of safetensors, JSON and YAML that another machine can read without running code.

Layout::

    policy.safetensors   weights that act (the averaged ones), with the normaliser
    config.yaml          resolved configuration of the run
    spec.json            features, horizons and rate (`robot_policies.spec.PolicySpec`)
    stats.json           statistics of the training data, by feature
    dataset_card.json    which data, identified by fingerprint
    manifest.json        size and SHA-256 of the files above
    trainer/             what training needs to continue, with its own manifest; only in a run's newest checkpoint

A checkpoint appears whole or not at all: it is written beside its place, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from robot_policies.checkpoint_folder import MANIFEST, CheckpointError, find_checkpoint
from robot_policies.configuration import ConfigError
from robot_policies.policy import Policy
from robot_policies.spec import PolicySpec

WEIGHTS = "policy.safetensors"
CONFIG = "config.yaml"
SPEC = "spec.json"
STATS = "stats.json"
CARD = "dataset_card.json"
FORMAT = 1

Stats = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class LoadedPolicy:
    """A policy read from disk and what is known about it.

    Attributes:
        policy: In evaluation mode, on the device asked for.
        config: Resolved configuration of the training run.
        spec: Features, horizons and rate.
        stats: Statistics of the training data by feature, each a mapping of arrays.
        dataset_card: Which data it was trained on.
        sha256: Hash of the weights file, which identifies the checkpoint.
        path: The checkpoint directory that was read.
    """

    policy: Policy
    config: dict[str, Any]
    spec: PolicySpec
    stats: dict[str, dict[str, np.ndarray]]
    dataset_card: dict[str, Any]
    sha256: str
    path: Path


def save_policy(
    directory: str | Path,
    policy: Policy,
    *,
    config: Mapping[str, Any],
    stats: Stats,
    dataset_card: Mapping[str, Any],
    write_extra: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint directory atomically and return its path.

    Args:
        directory: Where; it must not exist.
        policy: The policy that acts.
        config: Resolved run configuration; ``config["policy"]`` (and ``config["sampler"]``) rebuild the policy.
        stats: Statistics by feature.
        dataset_card: Which data it was trained on.
        write_extra: Called with the unfinished directory, to write more files into it.

    Raises:
        CheckpointError: `directory` exists.
    """
    final = Path(directory)
    if final.exists():
        raise CheckpointError(f"{final} exists; expected a new directory; remove it or choose another")
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir()
    write_tensors(staging / WEIGHTS, policy.state_dict())
    (staging / CONFIG).write_text(yaml.safe_dump(_plain(config), sort_keys=False), encoding="utf-8")
    write_json(staging / SPEC, policy.spec.to_dict())
    write_json(staging / STATS, stats)
    write_json(staging / CARD, dataset_card)
    write_manifest(staging)
    if write_extra is not None:
        write_extra(staging)
    _sync_tree(staging)
    os.rename(staging, final)
    _sync(final.parent)
    return final


def load_policy(
    path: str | Path, *, device: str | torch.device = "cpu", embodiment: str | None = None
) -> LoadedPolicy:
    """Read a policy from a checkpoint directory, or from a run directory (its best checkpoint, else its last).

    Args:
        path: The directory.
        device: Where the policy shall run.
        embodiment: Of a policy that was trained on several: the one to act for, by the name of its store or of
            its robot. None returns the policy in the shared layout.

    Raises:
        CheckpointError: There is no checkpoint, a file is damaged or missing, or the weights do not fit.
        ConfigError: The configuration names parts that this version does not know, or there is no such embodiment.
    """
    from robot_policies.embodiments import EmbodimentPolicy, find_embodiment
    from robot_policies.policies import build_policy

    folder = find_checkpoint(path)
    hashes = verify_manifest(folder)
    config = _read_yaml(folder / CONFIG)
    values = read_json(folder / SPEC)
    try:
        spec = PolicySpec.from_dict(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / SPEC} is not a policy spec ({error!r}); restore the file"
        ) from error
    policy = build_policy(policy_config(config), spec, None)
    _load_weights(policy, folder / WEIGHTS)
    stats = {
        name: {key: np.asarray(value) for key, value in entry.items()}
        for name, entry in read_json(folder / STATS).items()
    }
    card = read_json(folder / CARD)
    if embodiment is not None:
        policy = EmbodimentPolicy(policy, find_embodiment(card, embodiment))
    return LoadedPolicy(
        policy=policy.to(device).eval(),
        config=config,
        spec=policy.spec,
        stats=stats,
        dataset_card=card,
        sha256=hashes[WEIGHTS],
        path=folder,
    )


def policy_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The policy section of a run configuration, with the run's sampler as the policy's default."""
    if not isinstance(config.get("policy"), Mapping):
        raise ConfigError(f"policy: expected a mapping with 'type', got {config.get('policy')!r}")
    sampler = config.get("sampler")
    return {**config["policy"], **({} if sampler is None else {"sampler": sampler})}


def default_sampler(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the policy of a run configuration samples with unless it is told otherwise.

    Energy policies keep theirs in ``policy.inference`` and do not use the run's sampler.
    """
    policy = policy_config(config)
    return policy.get("inference") or policy.get("sampler")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; tensors that share memory are written separately."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.numel() and value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        plain[name] = value
    safetensors.torch.save_file(plain, path, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected safetensors; restore the file"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; arrays become lists, and NaN is an error."""
    path.write_text(json.dumps(_plain(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected JSON; restore the file") from error


def write_manifest(folder: Path) -> None:
    """Record size and hash of the files (not folders) in `folder`."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files})


def verify_manifest(folder: Path) -> dict[str, str]:
    """Check every file against the manifest of `folder`; return the hashes by file name.

    Raises:
        CheckpointError: A file is missing, truncated or changed, or the manifest is of another format.
    """
    manifest = read_json(folder / MANIFEST)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{folder / MANIFEST} has format {found!r}, expected {FORMAT}; update robot-policies or train again"
        )
    hashes: dict[str, str] = {}
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; the checkpoint is incomplete; copy it again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise CheckpointError(
                f"{path} has {size} bytes, expected {entry['bytes']}; it is truncated or changed; copy it again"
            )
        hashes[name] = file_sha256(path)
        if hashes[name] != entry["sha256"]:
            raise CheckpointError(
                f"{path} does not match its checksum; it is damaged or changed; copy it again"
            )
    return hashes


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected YAML; restore the file") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {type(values).__name__}; expected a mapping; restore the file")
    return values


def _load_weights(policy: Policy, path: Path) -> None:
    tensors = read_tensors(path)
    expected = policy.state_dict()
    problems = [f"'{n}' is missing" for n in expected if n not in tensors]
    problems += [f"'{n}' is unknown to the policy" for n in tensors if n not in expected]
    problems += [
        f"'{n}' has shape {tuple(tensors[n].shape)}, the policy expects {tuple(t.shape)}"
        for n, t in expected.items()
        if n in tensors and tensors[n].shape != t.shape
    ]
    if problems:
        raise CheckpointError(
            f"{path} does not fit its {CONFIG} and {SPEC}: {problems[0]} ({len(problems)} such differences); "
            f"use the files of one training run"
        )
    policy.load_state_dict(tensors)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
