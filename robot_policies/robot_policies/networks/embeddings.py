"""Embeddings of the denoising step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """Sine and cosine of a scalar at geometrically spaced frequencies (Vaswani et al., 2017).

    Maps (B,) to (B, dim). Wavelengths run from 2 pi to 20,000 pi, so the scalar should span tens of
    units: denoising processes here scale their time to about 0..100.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        exponents = torch.arange(half, dtype=torch.float32) / max(half - 1, 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000.0) * exponents), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, dim)."""
        angles = time.float()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
