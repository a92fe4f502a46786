"""What a foreign format has no place for, kept beside its data as JSON so that nothing is lost on the way back.

Other readers ignore it. Ours uses it only while it fits the data: arrays that were changed by others are read
like those of any stranger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.store import EpisodeStore

KEY = "robot_policies"
"""Name of the attribute, array or file that holds the record."""

_FORMAT = 1


@dataclass(frozen=True)
class Placement:
    """Where a feature is: components `start` to `stop` of the flattened steps of arrays put side by side.

    A `stop` of None means all of them.
    """

    arrays: tuple[str, ...]
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class SideRecord:
    """The record of one export.

    Attributes:
        fps: Rate [Hz].
        embodiment: Robot name.
        features: Every feature that was written.
        placements: Where each of them is.
        made_up: Arrays that the format demands and the store did not have.
        labels: Per episode: source_id, task, success (or None), split, segments.
    """

    fps: float
    embodiment: str
    features: Mapping[str, Feature]
    placements: Mapping[str, Placement]
    made_up: Sequence[str]
    labels: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls, store: EpisodeStore, placements: Mapping[str, Placement], made_up: Sequence[str] = ()
    ) -> SideRecord:
        """Describe the export of a store that puts its features into these places."""
        episodes, tasks = store.episodes, store.tasks
        labels = [
            {
                "source_id": episodes["source_id"][e],
                "task": tasks[int(episodes["task_index"][e])],
                "success": None if episodes["success"][e] < 0 else bool(episodes["success"][e]),
                "split": episodes["split"][e],
                "segments": [[s.start, s.end, s.tag, s.text] for s in episodes["segments"][e]],
            }
            for e in range(store.n_episodes)
        ]
        features = {name: store.features[name] for name in placements}
        return cls(store.fps, store.embodiment, features, dict(placements), tuple(made_up), labels)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        features = {
            name: {**vars(self.placements[name]), "feature": feature.to_dict()}
            for name, feature in self.features.items()
        }
        return {
            "format": _FORMAT,
            "fps": self.fps,
            "embodiment": self.embodiment,
            "features": features,
            "made_up": list(self.made_up),
            "episodes": [dict(label) for label in self.labels],
        }

    @classmethod
    def from_dict(cls, values: Any) -> SideRecord | None:
        """Read `to_dict`'s mapping; None if it is not one, or of another version."""
        try:
            if values["format"] != _FORMAT:
                return None
            entries = values["features"]
            return cls(
                float(values["fps"]),
                str(values["embodiment"]),
                {n: Feature.from_dict(e["feature"]) for n, e in entries.items()},
                {n: Placement(tuple(e["arrays"]), int(e["start"]), e["stop"]) for n, e in entries.items()},
                [str(name) for name in values["made_up"]],
                [_label(label) for label in values["episodes"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError, DatasetError):
            return None

    def misfit(self, shapes: Mapping[str, Sequence[int]], n_episodes: int) -> str:
        """Say how the data differs from what the record describes; empty if it does not.

        Args:
            shapes: Shape of one step of every array there is.
            n_episodes: Episodes there are.
        """
        if n_episodes != len(self.labels):
            return f"{n_episodes} episodes instead of {len(self.labels)}"
        for name, place in self.placements.items():
            size = sum(math.prod(shapes.get(array, (0,))) for array in place.arrays)
            taken = min(size, size if place.stop is None else place.stop) - place.start
            if any(array not in shapes for array in place.arrays) or taken != math.prod(
                self.features[name].shape
            ):
                found = ", ".join(str(tuple(shapes[a])) if a in shapes else "nothing" for a in place.arrays)
                return f"{', '.join(place.arrays)} holds {found}, not {name} {self.features[name].shape}"
        return ""

    def label(self, episode: Episode, number: int) -> Episode:
        """Give an episode what the record says of number `number`; return it."""
        label = self.labels[number]
        episode.task, episode.success = label["task"], label["success"]
        episode.split, episode.segments = label["split"], list(label["segments"])
        return episode


def _label(values: Mapping[str, Any]) -> dict[str, Any]:
    success = values["success"]
    return {
        "source_id": str(values["source_id"]),
        "task": str(values["task"]),
        "success": None if success is None else bool(success),
        "split": str(values["split"]),
        "segments": [Segment(int(a), int(b), str(tag), str(text)) for a, b, tag, text in values["segments"]],
    }
