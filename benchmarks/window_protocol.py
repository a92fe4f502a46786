"""How `dataset_windows.py` talks to readers that need a Python of their own: one JSON line each way.

A reader prints ``{"windows": N}`` when it is ready. ``{"draw": n, "seed": s}`` makes it read n random windows and
answer with the CPU seconds that took (all threads); ``{"show": [i, ...]}`` returns actions and frames of windows, by
which the readers are compared. The end of its input ends it. Needs numpy alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

T_O, T_P, T_A = 2, 16, 8
"""Observed, predicted and executed steps of a window, as in the Diffusion Policy paper."""


def serve(
    n_windows: int,
    draw: Callable[[np.ndarray], object],
    show: Callable[[int], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Answer requests until the input ends.

    Args:
        n_windows: Windows there are.
        draw: Reads the windows of these numbers (N,), however it does that best.
        show: Returns actions (T_p, A) and frames (T_o, H, W, 3) in 0..255 of one window.
    """
    _say({"windows": n_windows})
    for line in sys.stdin:
        request = json.loads(line)
        if "show" in request:
            _say({"shown": [_summary(*show(number)) for number in request["show"]]})
            continue
        numbers = np.random.default_rng(request["seed"]).integers(0, n_windows, request["draw"])
        cpu, wall = time.process_time(), time.perf_counter()
        draw(numbers)
        _say({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall})


def _summary(actions: np.ndarray, frames: np.ndarray) -> dict[str, Any]:
    """Return what two readers must agree in: all actions, and the mean of every 8th of each frame and channel."""
    frames = np.asarray(frames, dtype=np.float64)
    n, height, width, channels = frames.shape
    blocks = frames[:, : height // 8 * 8, : width // 8 * 8].reshape(
        n, 8, height // 8, 8, width // 8, channels
    )
    return {"actions": np.asarray(actions, np.float64).tolist(), "frames": blocks.mean(axis=(2, 4)).tolist()}


def difference(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the largest difference of an action and of a mean grey level."""
    largest = [
        max(
            float(np.abs(np.asarray(a[key]) - np.asarray(b[key])).max())
            for a, b in zip(one, other, strict=True)
        )
        for key in ("actions", "frames")
    ]
    return largest[0], largest[1]


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
