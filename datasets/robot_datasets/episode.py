"""One demonstration, as importers yield it and the episode store takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_datasets.errors import DatasetError


class EpisodeError(DatasetError):
    """One episode cannot be used; conversion sets it aside with this reason and goes on."""


@dataclass(frozen=True)
class Segment:
    """A labelled part of an episode.

    Attributes:
        start: First step.
        end: One past the last step.
        tag: Short machine-readable label, e.g. ``"grasp"``.
        text: The same in words.
    """

    start: int
    end: int
    tag: str = ""
    text: str = ""

    @classmethod
    def of(cls, value: Segment | Mapping[str, Any]) -> Segment:
        """Accept a `Segment` or a mapping with its fields."""
        if isinstance(value, Segment):
            return value
        unknown = set(value) - set(cls.__dataclass_fields__)
        if unknown or not {"start", "end"} <= set(value):
            raise DatasetError(f"a segment has start, end, tag and text, got {sorted(value)}")
        return cls(
            int(value["start"]), int(value["end"]), str(value.get("tag", "")), str(value.get("text", ""))
        )


@dataclass
class Episode:
    """One demonstration of T steps.

    Attributes:
        source_id: Stable name of the episode within its source, e.g. a relative path.
        data: Low-dimensional features by name, each (T, ...).
        images: Image features by name: T encoded frames (JPEG, PNG, or raw pixels), consumed once, in order.
        task: The instruction in words; empty if none is known.
        success: Whether the demonstration reached its goal; None if unknown.
        split: ``"train"``, ``"val"`` or empty, if the source makes a split.
        segments: Labelled parts, `Segment` or mappings with its fields.
        warnings: What is wrong with an episode that is kept nevertheless, each naming the feature and what
            was done about it. May grow while the images are read. Listed in the store and in the report.
    """

    source_id: str
    data: dict[str, np.ndarray]
    images: dict[str, Iterable[bytes]] = field(default_factory=dict)
    task: str = ""
    success: bool | None = None
    split: str = ""
    segments: list[Segment | dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def n_steps(self) -> int:
        """Number of steps T, taken from the low-dimensional features, which must agree."""
        if not self.data:
            raise EpisodeError(
                f"episode '{self.source_id}' has no low-dimensional feature; it needs at least one"
            )
        lengths = {name: len(array) for name, array in self.data.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{name}={n}" for name, n in sorted(lengths.items()))
            raise EpisodeError(
                f"episode '{self.source_id}' has features of different lengths: {listed}; expected one row per step"
            )
        return next(iter(lengths.values()))
