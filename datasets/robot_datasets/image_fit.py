"""Frames of one size: scaled as a whole, with black bars where the shape differs."""

from __future__ import annotations

import numpy as np

from robot_datasets.errors import DatasetError

_FORMATS = {(np.dtype(np.uint8), 3): "rgb24", (np.dtype(np.uint16), 1): "gray16le"}


def fit_image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a frame to fit `size`, keeping its proportions, in the middle of black.

    Colours are averaged over the area of each new pixel; depth is taken from the nearest one, because the mean of two
    distances is the distance of neither.

    Args:
        pixels: (H, W, 3) uint8 or (H, W, 1) uint16.
        size: Height and width wanted [px].

    Returns:
        (height, width, C) of the same type; `pixels` itself if it has that size.

    Raises:
        DatasetError: The frame is of another kind.
    """
    if pixels.shape[:2] == size:
        return pixels
    kind = (pixels.dtype, pixels.shape[2])
    if kind not in _FORMATS:
        raise DatasetError(
            f"frame is {pixels.dtype} {pixels.shape}; expected uint8 (H, W, 3) or uint16 (H, W, 1)"
        )
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (max(1, round(n * scale)) for n in pixels.shape[:2])
    colour = kind[1] == 3
    scaled = _scaled(pixels, height, width) if colour else _nearest(pixels, height, width)
    fitted = np.zeros((*size, pixels.shape[2]), dtype=pixels.dtype)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    fitted[top : top + height, left : left + width] = scaled
    return fitted


def _scaled(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    import av
    from av.video.reformatter import Interpolation

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    shrinks = height < pixels.shape[0]
    interpolation = Interpolation.AREA if shrinks else Interpolation.BILINEAR
    return frame.reformat(width, height, "rgb24", interpolation=interpolation).to_ndarray()


def _nearest(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = ((np.arange(height) + 0.5) * pixels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * pixels.shape[1] / width).astype(int)
    return pixels[rows[:, None], columns]
