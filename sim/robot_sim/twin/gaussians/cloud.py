"""The Gaussians of a rigid body, in its own frame, and the file that holds them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from robot_datasets.errors import UserError

FORMAT = "robot_sim.twin.gaussians/1"
_WIDTHS = {"means": 3, "scales": 3, "quaternions": 4, "colours": 3, "opacities": 0}


class GaussianError(UserError):
    """Gaussians, or a file of them, are not what they should be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianBody:
    """What a body looks like: N Gaussians that move with it. All arrays are float32.

    Attributes:
        means: (N, 3) centres, body frame [m].
        scales: (N, 3) standard deviations along the Gaussian's own axes [m].
        quaternions: (N, 4) wxyz, from the Gaussian's axes to the body's; unit length.
        colours: (N, 3) red, green, blue in [0, 1], the same from everywhere.
        opacities: (N,) in (0, 1].

    Raises:
        GaussianError: Wrong shapes, or values that are not finite or out of range.
    """

    means: np.ndarray
    scales: np.ndarray
    quaternions: np.ndarray
    colours: np.ndarray
    opacities: np.ndarray

    def __post_init__(self) -> None:
        n = len(np.atleast_1d(self.means))
        for name, width in _WIDTHS.items():
            values = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            object.__setattr__(self, name, values)
            expected = (n, width) if width else (n,)
            if values.shape != expected or n == 0:
                raise GaussianError(
                    f"gaussians: {name} have shape {values.shape}, expected {expected} with N > 0"
                )
            if not np.isfinite(values).all():
                raise GaussianError(f"gaussians: {name} are not all finite; fit or sample the body again")
        _within("scales", self.scales, 1e-7, 100.0, "metres")
        _within("colours", self.colours, 0.0, 1.0, "shares of full brightness")
        _within("opacities", self.opacities, 1e-4, 1.0, "shares")
        lengths = np.linalg.norm(self.quaternions, axis=1)
        if np.abs(lengths - 1.0).max() > 1e-3:
            raise GaussianError(
                f"gaussians: a quaternion has length {lengths.min():g} to {lengths.max():g}, expected 1"
            )

    def __len__(self) -> int:
        return len(self.means)

    @property
    def radius(self) -> float:
        """Distance from the body frame's origin that holds every Gaussian to three standard deviations [m]."""
        return float((np.linalg.norm(self.means, axis=1) + 3.0 * self.scales.max(axis=1)).max())


def joined(parts: Sequence[GaussianBody]) -> GaussianBody:
    """Return the Gaussians of several parts of one body."""
    if not parts:
        raise GaussianError("gaussians: nothing to join; the body shows no geom")
    return GaussianBody(
        **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(GaussianBody)}
    )


def save_bodies(path: Path, bodies: Mapping[str, GaussianBody]) -> None:
    """Write bodies to a safetensors file, at once or not at all."""
    arrays = {
        f"{name}/{f.name}": getattr(body, f.name) for name, body in bodies.items() for f in fields(body)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(arrays, partial, metadata={"format": FORMAT})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_bodies(path: Path) -> dict[str, GaussianBody]:
    """Read what `save_bodies` wrote.

    Raises:
        GaussianError: No such file, another kind of file, or Gaussians that are damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = (file.metadata() or {}).get("format")
            if found != FORMAT:
                raise GaussianError(
                    f"{path}: format {found!r}, expected {FORMAT!r}; write it with save_bodies"
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise GaussianError(
            f"{path}: no readable file of gaussians ({' '.join(str(error).split())})"
        ) from error
    names = sorted({key.rpartition("/")[0] for key in arrays})
    expected = {f"{name}/{part}" for name in names for part in _WIDTHS}
    if not names or set(arrays) != expected:
        raise GaussianError(
            f"{path}: the file lacks {sorted(expected - set(arrays)) or 'bodies'}; write it again"
        )
    return {name: GaussianBody(**{part: arrays[f"{name}/{part}"] for part in _WIDTHS}) for name in names}


def _within(name: str, values: np.ndarray, low: float, high: float, unit: str) -> None:
    if values.min() < low or values.max() > high:
        raise GaussianError(
            f"gaussians: {name} within {values.min():g} to {values.max():g}, expected {low:g} to {high:g} ({unit})"
        )
