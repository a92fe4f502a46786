"""Writes an exported policy and compares it with the checkpoint it came from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robot_datasets.errors import unknown_name
from robot_datasets.features import ACTION, is_image
from robot_datasets.goals import GOAL_PREFIX
from robot_policies import __version__
from robot_policies.checkpoint import LoadedPolicy
from robot_policies.exporting.folder import (
    ENDINGS,
    FORMAT,
    NORMALIZER,
    POLICY,
    SCHEDULE,
    SPEC,
    graph_file,
    write_json,
    write_manifest,
)
from robot_policies.exporting.graphs import (
    WRITERS,
    EncoderGraph,
    NetworkGraph,
    encoder_inputs,
    example_arguments,
)
from robot_policies.exporting.program import ExportError
from robot_policies.exporting.runner import ExportedPolicy
from robot_policies.exporting.tracing import network_policy, trace_program
from robot_policies.policies.base import NetworkPolicy
from robot_policies.policy import Policy

TOLERANCE = 1e-3
"""Largest error of a chunk that is accepted, as a share of the range of each action component."""


def export_policy(
    loaded: LoadedPolicy,
    out: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    sampler: Mapping[str, Any] | None = None,
    parity_samples: int = 8,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Write a folder that runs without this checkpoint, and check that it gives the same chunks.

    Args:
        loaded: The policy, on the CPU.
        out: Folder to make.
        formats: ``onnx``, ``torchscript``, ``aotinductor``.
        sampler: Replaces the policy's sampler, e.g. ``{"type": "ddim", "steps": 5}``; it is fixed in the export.
        parity_samples: Random inputs on which every format is compared with the checkpoint.
        progress: Told what is being done.

    Returns:
        Largest difference of a chunk by format, in normalised units.

    Raises:
        ExportError: The policy or a format cannot be exported, `out` exists, or a format does not agree.
    """
    final = Path(out)
    for format in formats:
        if format not in ENDINGS:
            raise ExportError(unknown_name("format", format, ENDINGS))
    if not formats or final.exists():
        raise ExportError(f"{final} exists; choose a new folder" if formats else "no format given; e.g. onnx")
    policy = loaded.policy.eval()
    inner = network_policy(policy)
    program = trace_program(policy, sampler)
    staging = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        write_json(staging / SPEC, inner.spec.to_dict())
        action = inner.normalizer[ACTION]
        scaling = {"scale": action.scale.tolist(), "offset": action.offset.tolist()}
        write_json(staging / NORMALIZER, {"action": scaling})
        write_json(staging / SCHEDULE, program.to_dict())
        about = {
            "format": FORMAT,
            "version": __version__,
            "policy": type(policy).__name__,
            "checkpoint_sha256": loaded.sha256,
            "inputs": list(encoder_inputs(inner.spec)),
            "sampler": dict(sampler) if sampler else "the checkpoint's",
            "network_calls": len(program.calls),
            "formats": list(formats),
        }
        write_json(staging / POLICY, about)
        _write_graphs(inner, staging, formats, progress)
        write_manifest(staging)
        errors: dict[str, float] = {}
        for format in formats:
            progress(f"comparing {format} with the checkpoint")
            exported = ExportedPolicy.load(staging, format=format)
            errors[format] = largest_error(policy, exported, sampler, samples=parity_samples)
            if not errors[format] <= TOLERANCE:
                raise ExportError(
                    f"{format} differs from the checkpoint by {errors[format]:.2g} of the action range, allowed "
                    f"{TOLERANCE:g}; please report this network"
                )
        write_json(staging / POLICY, {**about, "largest_error": errors, "parity_samples": parity_samples})
        write_manifest(staging)
        os.rename(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return errors


def _write_graphs(
    inner: NetworkPolicy, folder: Path, formats: Sequence[str], progress: Callable[[str], None]
) -> None:
    encoder_arguments, network_arguments = example_arguments(inner)
    parts: list[tuple[str, nn.Module, tuple[Tensor, ...]]] = [
        ("encoder", EncoderGraph(inner).eval(), encoder_arguments),
        ("network", NetworkGraph(inner).eval(), network_arguments),
    ]
    for format in formats:
        for part, graph, arguments in parts:
            progress(f"writing the {part} as {format}")
            WRITERS[format](graph, arguments, folder / graph_file(part, format))


def largest_error(
    policy: Policy, exported: ExportedPolicy, sampler: Mapping[str, Any] | None, *, samples: int
) -> float:
    """Largest difference of chunks for the same inputs and noise, in normalised units (the range is about 2).

    Args:
        policy: The checkpoint's policy.
        exported: The exported one.
        sampler: What `exported` was exported with.
        samples: Random inputs, uniform in the range of the training data.
    """
    inner, errors = network_policy(policy), [0.0]
    scale = inner.normalizer[ACTION].scale.numpy()
    for seed in range(samples):
        inputs, _ = example_arguments(inner, seed=seed + 1)
        noise, ours = checkpoint_chunk(policy, inputs, sampler, n_draws=exported.program.n_draws, seed=seed)
        seen, goal = arrays_of(inner, inputs)
        theirs = exported.predict(seen, goal=goal, noise=noise)
        errors.append(float(np.abs((theirs - ours) * scale).max()))
    return float(np.max(errors))  # NaN stays NaN


def checkpoint_chunk(
    policy: Policy, inputs: Sequence[Tensor], sampler: Mapping[str, Any] | None, *, n_draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The noise that a seed gives, (n_draws, T_p, A), and the checkpoint's chunk (T_p, A) with it.

    Args:
        policy: The checkpoint's policy.
        inputs: As the encoder's graph takes them, (1, T_o, ...).
        sampler: Replaces the policy's sampler.
        n_draws: How often the sampler draws noise.
        seed: Of the noise.
    """
    spec = policy.spec
    generator = torch.Generator().manual_seed(seed)
    shape = (1, spec.horizon, spec.action_dim)
    drawn = [torch.randn(shape, generator=generator)[0].numpy() for _ in range(n_draws)]
    noise = np.stack(drawn) if drawn else np.zeros((0, *shape[1:]), dtype=np.float32)
    values = dict(zip(encoder_inputs(spec), inputs, strict=True))
    goal = {name: values[GOAL_PREFIX + name] for name in spec.goal}
    chunk = policy.predict_chunk(
        {name: values[name] for name in spec.observation},
        goal=goal or None,
        generator=generator.manual_seed(seed),
        sampler=sampler,
    )
    return noise, chunk.actions[0].numpy()


def arrays_of(
    policy: NetworkPolicy, inputs: Sequence[Tensor]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Observation and goal as the runner takes them, (T_o, ...) and (G, ...); images (T_o, H, W, C)."""
    seen: dict[str, np.ndarray] = {}
    goal: dict[str, np.ndarray] = {}
    for name, tensor in zip(encoder_inputs(policy.spec), inputs, strict=True):
        array = tensor[0].numpy()
        plain = name.removeprefix(GOAL_PREFIX)
        (goal if plain != name else seen)[plain] = np.moveaxis(array, 1, -1) if is_image(plain) else array
    return seen, goal
