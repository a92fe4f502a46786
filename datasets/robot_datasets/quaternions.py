"""The order of quaternion components in features that hold poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot_datasets.features import Feature

_LEADING = ("qw", "qx", "qy", "qz")
_WXYZ, _XYZW = "quat_wxyz", "quat_xyzw"


def to_xyzw(feature: Feature) -> tuple[Feature, np.ndarray]:
    """Describe a feature with its quaternions in the order x, y, z, w, and say how to get there.

    Args:
        feature: A feature of rotation ``quat_wxyz`` whose components are named ``..qw, ..qx, ..qy, ..qz``.

    Returns:
        The feature, and the index of every new component among the old ones, (D,) int64. Anything but
        ``quat_wxyz`` stays as it is.
    """
    order = np.arange(feature.shape[0] if feature.shape else 0)
    if feature.rotation != _WXYZ:
        return feature, order
    for first in range(len(feature.names) - 3):
        four = feature.names[first : first + 4]
        if all(name.endswith(end) for name, end in zip(four, _LEADING, strict=True)):
            order[first : first + 4] = [first + 1, first + 2, first + 3, first]
    names = tuple(feature.names[i] for i in order)
    units = tuple(feature.units[i] for i in order) if len(feature.units) > 1 else feature.units
    return replace(feature, names=names, units=units, rotation=_XYZW), order
