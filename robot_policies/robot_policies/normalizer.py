"""Affine normalisation of features, fitted once on the training data and stored with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robot_datasets.errors import unknown_name
from robot_policies.configuration import ConfigError

Mode = Literal["min_max", "z_score", "identity"]
MODES = ("min_max", "z_score", "identity")
Stats = Mapping[str, Mapping[str, np.ndarray]]


class FeatureNormalizer(nn.Module):
    """Map one feature between physical and normalised units: ``y = x * scale + offset``.

    A component whose range is below `constant_range` is shifted to 0 and not scaled, so that a sensor
    that never moved in the data cannot blow up when it does on the robot (Diffusion Policy's rule).
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("offset", torch.zeros(dim))

    def fit(self, stats: Mapping[str, np.ndarray], mode: Mode, *, constant_range: float = 1e-4) -> None:
        """Set scale and offset from a feature's statistics (``min``, ``max``, ``mean``, ``std``; each (D,))."""
        low, high = (np.asarray(stats[k], np.float64).reshape(-1) for k in ("min", "max"))
        if low.shape != self.scale.shape:
            raise ConfigError(f"statistics have {low.size} components, the feature has {self.scale.numel()}")
        constant = self.constant(stats, constant_range=constant_range).numpy()
        if mode == "min_max":
            scale = np.where(constant, 1.0, 2.0 / np.where(constant, 1.0, high - low))
            offset = np.where(constant, -low, -1.0 - scale * low)
        elif mode == "z_score":
            mean, std = (np.asarray(stats[k], np.float64).reshape(-1) for k in ("mean", "std"))
            scale = np.where(constant, 1.0, 1.0 / np.where(constant, 1.0, std))
            offset = -mean * scale
        else:
            scale, offset = np.ones_like(low), np.zeros_like(low)
        self.scale.copy_(torch.as_tensor(scale, dtype=torch.float32))
        self.offset.copy_(torch.as_tensor(offset, dtype=torch.float32))

    @staticmethod
    def constant(stats: Mapping[str, np.ndarray], *, constant_range: float = 1e-4) -> Tensor:
        """(D,) bool: which components never move in the data."""
        low, high = (np.asarray(stats[k], np.float64).reshape(-1) for k in ("min", "max"))
        return torch.as_tensor((high - low) < constant_range)

    def normalize(self, x: Tensor) -> Tensor:
        """Physical (..., D) to normalised units."""
        return x * self.scale + self.offset

    def unnormalize(self, y: Tensor) -> Tensor:
        """Normalised (..., D) back to physical units."""
        return (y - self.offset) / self.scale


class Normalizer(nn.Module):
    """One `FeatureNormalizer` per low-dimensional feature.

    Args:
        dims: Number of components of each feature, by name.
        modes: Mode by feature name; ``"default"`` holds for the others.
        stats: Statistics by feature name; None leaves the identity, for weights loaded afterwards.
    """

    def __init__(self, dims: Mapping[str, int], modes: Mapping[str, Mode], stats: Stats | None) -> None:
        super().__init__()
        for name, mode in modes.items():
            if mode not in MODES:
                raise ConfigError(f"policy.normalization.{name}: {unknown_name('mode', mode, MODES)}")
            if name != "default" and name not in dims:
                raise ConfigError(f"policy.normalization: {unknown_name('feature', name, dims)}")
        # Module names may not hold dots.
        self._keys = {name: name.replace(".", "/") for name in dims}
        self.features = nn.ModuleDict(
            {self._keys[name]: FeatureNormalizer(dim) for name, dim in dims.items()}
        )
        if stats is None:
            return
        for name in dims:
            if name not in stats:
                raise ConfigError(unknown_name("feature in the statistics", name, stats))
            self[name].fit(stats[name], modes.get(name, modes.get("default", "min_max")))

    def __getitem__(self, name: str) -> FeatureNormalizer:
        module = self.features[self._keys[name]]
        assert isinstance(module, FeatureNormalizer)
        return module
