"""From NumPy batches to tensors on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def to_tensors(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move a loader's arrays to `device`; what is no array (instructions) stays as it is."""
    return {
        name: torch.from_numpy(value).to(device, non_blocking=True)
        if isinstance(value, np.ndarray)
        else value
        for name, value in batch.items()
    }
