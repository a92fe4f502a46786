"""Contact sheets: a few frames of a few episodes of a camera, embedded in the page."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.features import IMAGE_PREFIX, camera_name
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore

_EPISODES, _MOMENTS = 4, 5
_LARGEST = 260
"""Width of a thumbnail [px]."""


def contact_sheet(store: EpisodeStore, name: str) -> str:
    """Return frames from beginning to end of a few episodes, one row each.

    Args:
        store: The store.
        name: An image feature; depth is drawn grey, near dark and far bright.
    """
    chosen = np.unique(
        np.linspace(0, store.n_episodes - 1, min(store.n_episodes, _EPISODES)).round().astype(int)
    )
    cells = []
    for episode in chosen.tolist():
        first, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
        for step in np.linspace(first, end - 1, _MOMENTS).round().astype(int).tolist():
            seconds = (step - first) / store.fps
            cells.append(
                f"<figure>{_picture(store, name, step)}"
                f"<figcaption>episode {episode}, {seconds:.1f} s</figcaption></figure>"
            )
    feature = store.features[name]
    size = " x ".join(str(n or "any") for n in feature.shape[:2])
    kind = "colour" if name.startswith(IMAGE_PREFIX) else "depth"
    return (
        f"<h3>{escape(camera_name(name))} <small>{kind}, {size}, {escape(store.spec.encodings[name])}</small></h3>"
        f'<div class="card frames" style="--columns:{_MOMENTS}">{"".join(cells)}</div>'
    )


def _picture(store: EpisodeStore, name: str, step: int) -> str:
    try:
        pixels = store.images(name).decode([step])[0]
    except DatasetError as error:
        return f'<p class="warning">{escape(str(error))}</p>'
    image = _as_rgb(_smaller(pixels))
    data = base64.b64encode(encode_frame(image, "jpeg", quality=80)).decode()
    return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">'


def _smaller(pixels: np.ndarray) -> np.ndarray:
    """Shrink by a whole factor, averaging, to at most `_LARGEST` wide."""
    factor = -(-pixels.shape[1] // _LARGEST)
    if factor == 1:
        return pixels
    height, width = (size // factor * factor for size in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, -1)
    return blocks.mean(axis=(1, 3)).astype(pixels.dtype)


def _as_rgb(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    depth = pixels[..., 0].astype(np.float64)
    seen = depth[depth > 0]
    far = float(np.quantile(seen, 0.98)) if seen.size else 1.0
    grey = np.clip(255 * depth / max(far, 1.0), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
