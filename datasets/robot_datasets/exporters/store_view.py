"""A store seen under the names of another format: some columns computed from its own, cameras renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.features import IMAGE_PREFIX, Feature
from robot_datasets.statistics import FeatureStats
from robot_datasets.store import EpisodeStore
from robot_datasets.store.images import ImageColumn


@dataclass(frozen=True)
class Computed:
    """A column that is made when it is asked for.

    Attributes:
        feature: What it is.
        values: Returns it for all steps of the store, (T, ...) of the feature's type.
    """

    feature: Feature
    values: Callable[[], np.ndarray]


@dataclass(frozen=True)
class ViewNames:
    """Names of a view's columns and cameras, sorted."""

    low_dim: Sequence[str]
    image_features: Sequence[str]


class StoreView:
    """The columns and cameras of an export, episode by episode as the store has them; a `LeRobotSource`.

    Attributes:
        spec: Names of columns and cameras.
        embodiment: Robot name, as the other format says it.
    """

    def __init__(
        self,
        store: EpisodeStore,
        *,
        columns: Mapping[str, Computed],
        cameras: Mapping[str, str],
        embodiment: str,
    ) -> None:
        """View a store.

        Args:
            store: The store.
            columns: Name -> column of numbers; the store's own are not seen.
            cameras: Name -> colour camera of the store, without ``observation.images.``.
            embodiment: Robot name.
        """
        self.spec = ViewNames(sorted(columns), sorted(cameras))
        self.embodiment = embodiment
        self._store = store
        self._columns = dict(columns)
        self._cameras = {name: IMAGE_PREFIX + camera for name, camera in cameras.items()}
        self._made: dict[str, np.ndarray] = {}

    @property
    def features(self) -> dict[str, Feature]:
        """Columns and cameras by name."""
        seen = {name: column.feature for name, column in self._columns.items()}
        return seen | {name: self._store.features[source] for name, source in self._cameras.items()}

    @property
    def fps(self) -> float:
        """Rate of the steps [Hz]."""
        return self._store.fps

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return self._store.n_episodes

    @property
    def n_steps(self) -> int:
        """Number of steps T."""
        return self._store.n_steps

    @property
    def episode_starts(self) -> np.ndarray:
        """First step of every episode, (E,)."""
        return self._store.episode_starts

    @property
    def episode_ends(self) -> np.ndarray:
        """One past the last step of every episode, (E,)."""
        return self._store.episode_ends

    @property
    def episodes(self) -> Mapping[str, Any]:
        """The store's columns per episode."""
        return self._store.episodes

    @property
    def tasks(self) -> list[str]:
        """Distinct instructions."""
        return self._store.tasks

    @property
    def warnings(self) -> dict[int, list[str]]:
        """Episode -> what was found wrong with it."""
        return self._store.warnings

    def column(self, name: str) -> np.ndarray:
        """Return a column, (T, ...), computed at the first call and kept."""
        if name not in self._made:
            self._made[name] = self._columns[name].values()
        return self._made[name]

    def images(self, name: str) -> ImageColumn:
        """Return the frames of a camera."""
        return self._store.images(self._cameras[name])

    def episode_stats(self, name: str) -> np.ndarray:
        """Return the statistics of every episode, (E, 10, ...)."""
        if name in self._cameras:
            return self._store.episode_stats(self._cameras[name])
        column, bounds = self.column(name), zip(self.episode_starts, self.episode_ends, strict=True)
        return np.stack([FeatureStats.of(column[start:end]).to_array() for start, end in bounds])

    def stats(self, name: str) -> FeatureStats:
        """Return the statistics over all episodes."""
        if name in self._cameras:
            return self._store.stats(self._cameras[name])
        return FeatureStats.of(self.column(name))
