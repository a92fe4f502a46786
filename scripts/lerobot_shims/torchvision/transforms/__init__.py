"""From an image to a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torchvision.transforms import v2

__all__ = ["ToTensor", "v2"]


class ToTensor:
    """A PIL image as (C, H, W): 0..1 for 8-bit colours, unscaled otherwise."""

    def __call__(self, image: Any) -> torch.Tensor:
        """Convert one image."""
        array = np.array(image)
        scale = 255 if array.dtype == np.uint8 else 1
        array = array[..., None] if array.ndim == 2 else array
        return torch.from_numpy(array.astype(np.float32) / scale).permute(2, 0, 1).contiguous()
