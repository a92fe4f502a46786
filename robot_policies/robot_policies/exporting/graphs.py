"""The two graphs of a policy, and writing them in each format."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from robot_datasets.features import Feature, is_image
from robot_datasets.goals import GOAL_PREFIX
from robot_policies.exporting.program import ExportError
from robot_policies.policies.base import NetworkPolicy
from robot_policies.spec import PolicySpec

Arguments = tuple[Tensor, ...]


class EncoderGraph(nn.Module):
    """From the observation (and goal) features, in the spec's order, to what the network is given."""

    def __init__(self, policy: NetworkPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.names = encoder_inputs(policy.spec)

    def forward(self, *features: Tensor) -> Tensor:
        """(1, T_o, ...) each, goals (1, G, ...); images (1, T_o, C, H, W) uint8."""
        return self.policy.encode(dict(zip(self.names, features, strict=True)))


class NetworkGraph(nn.Module):
    """The policy's network, alone."""

    def __init__(self, policy: NetworkPolicy) -> None:
        super().__init__()
        self.network = policy.network

    def forward(self, noisy: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        """(1, T_p, A), (1,), encoded observation -> (1, T_p, A)."""
        return self.network(noisy, time, encoded).float()


def encoder_inputs(spec: PolicySpec) -> tuple[str, ...]:
    """Names of the encoder's inputs, in order."""
    return (*spec.observation, *(GOAL_PREFIX + name for name in spec.goal))


def example_arguments(policy: NetworkPolicy, *, seed: int = 0) -> tuple[Arguments, Arguments]:
    """Random arguments of the encoder's and the network's graph, uniform in the range of the training data."""
    spec, generator = policy.spec, torch.Generator().manual_seed(seed)

    def draw(name: str, feature: Feature, steps: int) -> Tensor:
        if is_image(name):
            height, width, channels = feature.shape
            size = (1, steps, channels, height, width)
            return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        even = 2.0 * torch.rand(1, steps, *feature.shape, generator=generator) - 1.0
        return policy.normalizer[name].unnormalize(even)

    seen = tuple(draw(name, feature, spec.n_obs_steps) for name, feature in spec.observation.items())
    goal = tuple(draw(name, feature, spec.n_goal_steps) for name, feature in spec.goal.items())
    with torch.no_grad():
        encoded = EncoderGraph(policy)(*seen, *goal)
    noisy = torch.randn(1, spec.horizon, spec.action_dim, generator=generator)
    return (*seen, *goal), (noisy, torch.full((1,), 7.0), encoded)


def write_onnx(graph: nn.Module, arguments: Arguments, path: Path) -> None:
    """Write an ONNX file with its weights inside.

    Raises:
        ExportError: A package is missing, or torch cannot translate the network.
    """
    try:
        importlib.import_module("onnxscript")  # torch's exporter needs it and says so late
    except ModuleNotFoundError as error:
        raise ExportError(
            "exporting ONNX needs onnx and onnxscript; install them with: pip install 'robot-policies[export]'"
        ) from error
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it lists operators of packages that are not used here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = [f"input_{i}" for i in range(len(arguments))]
            torch.onnx.export(
                graph,
                arguments,
                str(path),
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=names,
                output_names=["output"],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch cannot write this network as ONNX: {_first_line(error)}") from error
    finally:
        logging.disable(before)


def write_torchscript(graph: nn.Module, arguments: Arguments, path: Path) -> None:
    """Write a TorchScript file by tracing.

    Raises:
        ExportError: torch cannot trace the network.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # TorchScript is deprecated in torch, and traces tell of fixed shapes.
            warnings.simplefilter("ignore")
            plain = torch.export.export(graph, arguments).module(check_guards=False)  # sizes become constants
            torch.jit.save(torch.jit.trace(plain, arguments, check_trace=False), str(path))
    except (RuntimeError, TypeError) as error:
        raise ExportError(f"torch cannot write this network as TorchScript: {_first_line(error)}") from error


def write_aotinductor(graph: nn.Module, arguments: Arguments, path: Path) -> None:
    """Compile to machine code of this machine's processor; needs a C++ compiler.

    Raises:
        ExportError: There is no compiler, or it failed.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            aoti_compile_and_package(torch.export.export(graph, arguments), package_path=str(path))
    except (InvalidCxxCompiler, CppCompileError, RuntimeError) as error:
        raise ExportError(
            f"AOTInductor could not compile this network ({_first_line(error)}); it needs a C++ compiler (g++), "
            "or leave the format aotinductor out"
        ) from error


WRITERS: dict[str, Callable[[nn.Module, Arguments, Path], None]] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "aotinductor": write_aotinductor,
}


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
