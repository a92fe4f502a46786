"""From an observation window to one vector per time step: what every denoising network is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robot_datasets.features import is_image
from robot_policies.configuration import ConfigError
from robot_policies.networks.vision import image_encoders
from robot_policies.normalizer import Normalizer
from robot_policies.spec import PolicySpec


class ObservationEncoder(nn.Module):
    """Concatenate normalised low-dimensional features and one encoder's output per camera.

    Cameras do not share weights. Features are taken in the spec's order. In training, noise on the
    low-dimensional features makes up for states that no demonstration passes through.

    Attributes:
        out_dim: D, width of one encoded observation.
    """

    def __init__(
        self, spec: PolicySpec, image_config: Mapping[str, Any] | None, *, noise: float = 0.0
    ) -> None:
        super().__init__()
        if noise < 0:
            raise ConfigError(f"policy.observation_noise is {noise}; expected 0 or more (normalised units)")
        self.noise = noise
        self.low_dim = [name for name in spec.observation if not is_image(name)]
        self.cameras = [name for name in spec.observation if is_image(name)]
        self.out_dim: int = sum(spec.observation[name].shape[0] for name in self.low_dim)
        self.image_encoders = nn.ModuleDict()
        for name in self.cameras:
            encoder = image_encoders.build(
                image_config or {}, where="policy.image_encoder", channels=spec.observation[name].shape[2]
            )
            self.image_encoders[name.replace(".", "/")] = encoder
            self.out_dim += encoder.out_dim

    def forward(self, observation: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Encode observations (B, T_o, ...) in physical units to (B, T_o, D)."""
        parts = [normalizer[name].normalize(observation[name].float()) for name in self.low_dim]
        if self.training and self.noise:
            parts = [part + self.noise * torch.randn_like(part) for part in parts]
        for name in self.cameras:
            images = observation[name]
            encoded = self.image_encoders[name.replace(".", "/")](images.flatten(0, 1))
            parts.append(encoded.unflatten(0, images.shape[:2]))
        return torch.cat(parts, dim=-1)
