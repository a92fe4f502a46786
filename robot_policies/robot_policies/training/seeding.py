"""Noise as a pure function of (seed, step, rank), so that resuming needs no generator state."""

from __future__ import annotations

import torch

_MASK = (1 << 64) - 1


def mix_seed(*parts: int) -> int:
    """Hash integers into one seed of 63 bits (splitmix64 over the parts)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (part & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def seed_noise(device: torch.device, *parts: int) -> None:
    """Seed the global generators that a policy's loss draws from."""
    seed = mix_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
