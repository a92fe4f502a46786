"""The part of a report that shows predicted frames beside what happened."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robot_datasets.features import camera_name
from robot_policies.evaluation.foresight import FOLDER, Foresight, read_seen

ROWS = 6
SIDE = 128


def foresight_section(folder: Path) -> str:
    """Pictures of the episodes whose predictions were kept and that were filmed; empty if there are none."""
    parts = []
    for path in sorted((folder / FOLDER).glob("*.npz")):
        if path.stem.isdigit():
            seen = read_seen(folder, int(path.stem))
            if seen:
                parts.append(_episode(int(path.stem), Foresight.load(path), seen))
    if not parts:
        return ""
    note = (
        '<p class="note">For some chunks of an episode: what the policy saw, and for each predicted frame what it '
        "expected and what was there so many steps later.</p>"
    )
    return note + "".join(parts)


def _episode(seed: int, foresight: Foresight, seen: dict[int, NDArray[np.uint8]]) -> str:
    n = len(foresight.steps)
    chosen = np.unique(np.linspace(0, n - 1, min(n, ROWS)).round().astype(np.int64))
    columns = 1 + 2 * len(foresight.offsets)
    cells = []
    for index in chosen:
        step = int(foresight.steps[index])
        cells.append(_cell(seen.get(step), f"step {step}"))
        for k, offset in enumerate(foresight.offsets.tolist()):
            cells.append(_cell(foresight.predicted[index, k], f"expected at {step + offset}"))
            cells.append(_cell(seen.get(step + offset), f"step {step + offset}"))
    grid = f"display:grid;grid-template-columns:repeat({columns},minmax(0,{SIDE + 12}px));gap:10px"
    return (
        f'<figure class="card" style="margin:0 0 14px"><div style="{grid}">{"".join(cells)}</div>'
        f"<figcaption>seed {seed} &middot; camera {escape(camera_name(foresight.camera))}</figcaption></figure>"
    )


def _cell(frame: NDArray[Any] | None, label: str) -> str:
    if frame is None:
        return f'<figure style="margin:0"><figcaption>{escape(label)}: the episode was over</figcaption></figure>'
    return (
        '<figure style="margin:0"><img alt="" style="width:100%;border-radius:6px;display:block;'
        f'image-rendering:pixelated" src="data:image/png;base64,{_png(frame)}">'
        f"<figcaption>{escape(label)}</figcaption></figure>"
    )


def _png(frame: NDArray[Any]) -> str:
    grey = frame[..., 0] if frame.shape[-1] == 1 else frame
    if grey.dtype != np.uint8:  # depth
        grey = (grey.astype(np.float32) / max(float(grey.max()), 1.0) * 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
