"""Runs an exported policy with NumPy and ONNX Runtime only: no torch, for the computer on the arm.

>>> policy = ExportedPolicy.load("exports/lift")
>>> chunk = policy.predict(window, rng=np.random.default_rng(0))     # (T_p, A), physical units

Given the same noise it answers with the chunk that the checkpoint answers with, up to rounding. The formats
``torchscript`` and ``aotinductor`` need torch, which is then imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.features import is_image
from robot_policies.exporting.folder import (
    ENDINGS,
    NORMALIZER,
    POLICY,
    SCHEDULE,
    SPEC,
    check_manifest,
    graph_file,
    read_json,
)
from robot_policies.exporting.program import ExportError, SamplingProgram
from robot_policies.spec import PolicySpec

Graph = Callable[..., np.ndarray]
"""From arrays to one array."""


class ExportedPolicy:
    """An exported policy, ready to predict.

    Attributes:
        spec: Features, horizons and rate.
        program: The sampler.
        about: What ``policy.json`` says: policy type, hash of the checkpoint, parity.
        format: The format that runs.
    """

    def __init__(
        self,
        *,
        spec: PolicySpec,
        program: SamplingProgram,
        scale: np.ndarray,
        offset: np.ndarray,
        about: Mapping[str, Any],
        format: str,
        encoder: Graph,
        network: Graph,
    ) -> None:
        """Put the parts together; `load` is the usual way."""
        self.spec, self.program, self.about, self.format = spec, program, about, format
        self._scale, self._offset = scale, offset
        self._encoder, self._network = encoder, network

    @classmethod
    def load(cls, folder: str | Path, *, format: str = "onnx", threads: int = 1) -> ExportedPolicy:
        """Open an exported folder.

        Args:
            folder: Written by ``robot-policies export-policy``.
            format: ``onnx``, ``torchscript`` or ``aotinductor``.
            threads: Threads of one graph.

        Raises:
            ExportError: The folder or format is missing, or a file is damaged.
        """
        folder = Path(folder)
        check_manifest(folder)
        about = read_json(folder / POLICY)
        if format not in ENDINGS or format not in about["formats"]:
            raise ExportError(
                f"{folder} was not exported as '{format}'; there is {', '.join(about['formats'])}"
            )
        open_graph = _open_onnx if format == "onnx" else _open_torch
        encoder, network = (
            open_graph(folder / graph_file(part, format), format, threads) for part in ("encoder", "network")
        )
        normalizer = read_json(folder / NORMALIZER)["action"]
        return cls(
            spec=PolicySpec.from_dict(read_json(folder / SPEC)),
            program=SamplingProgram.from_dict(read_json(folder / SCHEDULE)),
            scale=np.array(normalizer["scale"], dtype=np.float64),
            offset=np.array(normalizer["offset"], dtype=np.float64),
            about=about,
            format=format,
            encoder=encoder,
            network=network,
        )

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(draws, T_p, A) of the noise that a chunk needs; 0 draws for a deterministic policy."""
        return self.program.n_draws, self.spec.horizon, self.spec.action_dim

    def predict(
        self,
        observation: Mapping[str, np.ndarray],
        *,
        goal: Mapping[str, np.ndarray] | None = None,
        noise: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Predict a chunk.

        Args:
            observation: The spec's features (T_o, ...) in physical units; images (T_o, H, W, C) uint8.
            goal: The spec's goal features (G, ...), the same way, if it has any.
            noise: Standard normal numbers of `noise_shape`; None draws them.
            rng: Where noise is drawn from if none is given.

        Returns:
            The chunk (T_p, A) float32 in physical units; index T_o - 1 is the action for now.

        Raises:
            ExportError: A feature is missing or has another shape, or there is neither noise nor `rng`.
        """
        encoded = self._encoder(*self._inputs(observation, goal or {}))
        if noise is None:
            if rng is None and self.program.n_draws:
                raise ExportError("a sampled chunk needs noise, or an rng to draw it from")
            noise = np.zeros(self.noise_shape) if rng is None else rng.standard_normal(self.noise_shape)
        if np.shape(noise) != self.noise_shape:
            raise ExportError(f"noise has shape {np.shape(noise)}, expected {self.noise_shape}")
        chunk = self.program.run(lambda x, time: self._network(x, time, encoded), np.asarray(noise))
        return ((chunk - self._offset) / self._scale).astype(np.float32)

    def _inputs(
        self, observation: Mapping[str, np.ndarray], goal: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        spec = self.spec
        wanted = [
            *(
                ("observation", observation, name, f, spec.n_obs_steps)
                for name, f in spec.observation.items()
            ),
            *(("goal", goal, name, f, spec.n_goal_steps) for name, f in spec.goal.items()),
        ]
        inputs: list[np.ndarray] = []
        for kind, given, name, feature, steps in wanted:
            if name not in given:
                raise ExportError(f"{kind} '{name}' is missing; got {', '.join(sorted(given)) or 'nothing'}")
            value = np.asarray(given[name])
            if value.shape != (steps, *feature.shape):
                raise ExportError(
                    f"{kind} '{name}' has shape {value.shape}, expected {(steps, *feature.shape)}"
                )
            if is_image(name):
                value = np.ascontiguousarray(np.moveaxis(value.astype(np.uint8, casting="safe"), -1, 1))
            else:
                value = value.astype(np.float32)
                if not np.isfinite(value).all():
                    raise ExportError(f"{kind} '{name}' holds NaN or infinity; expected finite numbers")
            inputs.append(value[None])
        return inputs


def _open_onnx(path: Path, format: str, threads: int) -> Graph:
    del format
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ExportError(
            "running ONNX needs onnxruntime; install it with: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*arrays: np.ndarray) -> np.ndarray:
        # A graph drops inputs that it does not read, which positions would then miss.
        return np.asarray(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return run


def _open_torch(path: Path, format: str, threads: int) -> Graph:
    import torch

    torch.set_num_threads(threads)
    if format == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated in torch
            graph = torch.jit.load(str(path), map_location="cpu")
    else:
        graph = torch._inductor.aoti_load_package(str(path))

    def run(*arrays: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return graph(*(torch.from_numpy(array) for array in arrays)).numpy()

    return run
