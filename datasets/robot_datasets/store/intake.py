"""What the writer accepts: every feature there, right shape and type, finite, whole segments."""

from __future__ import annotations

import numpy as np

from robot_datasets.episode import Episode, EpisodeError, Segment
from robot_datasets.features import Feature, is_image
from robot_datasets.store.layout import StoreSpec

_SPLITS = ("", "train", "val")
_LARGEST = 1e30
"""No quantity in any unit is larger; a damaged exponent is, and its square overflows."""


def checked_columns(episode: Episode, spec: StoreSpec) -> dict[str, np.ndarray]:
    """Return the low-dimensional columns in storage type and order, or raise `EpisodeError`."""
    who = f"episode '{episode.source_id}'"
    low_dim = {name for name in episode.data if not is_image(name)}
    _require_same(who, "features", low_dim, set(spec.low_dim))
    _require_same(
        who, "image features", set(episode.images) | (set(episode.data) - low_dim), set(spec.image_features)
    )
    if not episode.source_id:
        raise EpisodeError("an episode has an empty source_id; it needs a stable name within its source")
    if episode.split not in _SPLITS:
        raise EpisodeError(f"{who} has split '{episode.split}'; expected 'train', 'val' or ''")
    if episode.n_steps < 1:
        raise EpisodeError(f"{who} has no steps; expected at least one")
    return {
        name: _checked(who, name, np.asarray(episode.data[name]), spec.features[name])
        for name in spec.low_dim
    }


def checked_segments(episode: Episode, n_steps: int) -> list[Segment]:
    """Return the segments, each within the episode, or raise `EpisodeError`."""
    segments = [Segment.of(value) for value in episode.segments]
    for s in segments:
        if not 0 <= s.start < s.end <= n_steps:
            raise EpisodeError(
                f"episode '{episode.source_id}' has a segment [{s.start}, {s.end}) outside its {n_steps} steps"
            )
    return segments


def _require_same(who: str, what: str, found: set[str], expected: set[str]) -> None:
    if found == expected:
        return
    parts = [f"lacks {', '.join(sorted(expected - found))}"] if expected - found else []
    parts += [f"has unexpected {', '.join(sorted(found - expected))}"] if found - expected else []
    raise EpisodeError(
        f"{who} {' and '.join(parts)}; the store's {what} are {', '.join(sorted(expected)) or 'none'}"
    )


def _checked(who: str, name: str, values: np.ndarray, feature: Feature) -> np.ndarray:
    if values.shape[1:] != feature.shape:
        raise EpisodeError(f"{who}: {name} has shape {values.shape[1:]} per step, expected {feature.shape}")
    target = np.dtype(feature.dtype)
    if not np.can_cast(values.dtype, target, casting="same_kind"):
        raise EpisodeError(f"{who}: {name} is {values.dtype}, expected {target}; convert it explicitly")
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(values, dtype=target.newbyteorder("<"))
    if target.kind == "f" and not np.isfinite(cast).all():
        bad = np.flatnonzero(~np.isfinite(cast.reshape(len(cast), -1)).all(axis=1))
        raise EpisodeError(
            f"{who}: {name} has NaN or infinity in {len(bad)} of {len(cast)} steps, first at step {bad[0]}; "
            "expected finite numbers"
        )
    if target.kind == "f" and np.abs(cast).max(initial=0) > _LARGEST:
        step = int(np.argmax(np.abs(cast).reshape(len(cast), -1).max(axis=1)))
        raise EpisodeError(
            f"{who}: {name} reaches {np.abs(cast).max():g} at step {step}, expected a physical quantity; "
            "the file is damaged, copy it again"
        )
    if target.kind in "iu" and not np.array_equal(cast, values):
        raise EpisodeError(f"{who}: {name} has values outside {target}; choose a wider type")
    return cast
