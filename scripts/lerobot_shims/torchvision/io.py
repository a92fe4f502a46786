"""Reading videos frame by frame, as torchvision did up to 0.23."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import torch


class VideoReader:
    """Frames from a place on, as (C, H, W) uint8 tensors with their time [s]."""

    def __init__(self, path: str, stream: str = "video") -> None:
        self.container = av.open(path)

    def seek(self, time_s: float, keyframes_only: bool = False) -> VideoReader:
        """Go to the key frame before a time."""
        self.container.seek(round(time_s * 1_000_000), backward=True)
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for frame in self.container.decode(video=0):
            yield {
                "data": torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1),
                "pts": frame.time,
            }
