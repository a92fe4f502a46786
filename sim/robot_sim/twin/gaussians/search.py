"""Finding a planar object that the twin has lost: where the pictures differ from the empty cell, in any orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robot_sim.twin.gaussians.moving_picture import Solid
from robot_sim.twin.gaussians.photometric import PLANAR, FitConfig, PoseFit, View, fit_pose
from robot_sim.twin.geometry import turned

DIFFERENT = 0.08  # from the background, as a share of full brightness
FEWEST = 12  # different pixels that are worth a search
YAWS = 8
ITERATIONS = 10


def search_pose(
    solid: Solid, position: np.ndarray, quaternion: np.ndarray, views: Sequence[View], *, config: FitConfig
) -> PoseFit | None:
    """Fit from the middle of what is different, in several orientations; return the fit that explains most.

    Args:
        solid: The object, whose body frame should be near its middle.
        position: (3,) the height is taken from here [m].
        quaternion: (4,) wxyz; roll and pitch are taken from here.
        views: What the cameras saw; the search starts from the one that shows most.
        config: Of the fits.
    """
    masks = [(np.abs(v.observed - v.background).max(axis=2) > DIFFERENT) & v.valid for v in views]
    counts = [int(mask.sum()) for mask in masks]
    if not counts or max(counts) < FEWEST:
        return None
    most = int(np.argmax(counts))
    rows, columns = np.nonzero(masks[most])
    # The median: an arm's rim or a shadow far away does not pull it.
    middle = np.array([np.median(columns), np.median(rows)]) + 0.5
    start = views[most].camera.on_plane(middle, float(position[2]))
    longer = replace(config, iterations=ITERATIONS)
    fits = [
        fit_pose(
            solid, start, turned(quaternion, np.array([0.0, 0.0, yaw])), views, motions=PLANAR, config=longer
        )
        for yaw in 2 * np.pi * np.arange(YAWS) / YAWS
    ]
    found = [fit for fit in fits if fit is not None]
    return max(found, key=lambda fit: fit.gain, default=None)
