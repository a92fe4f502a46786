"""What the LeRobot writers read: an `EpisodeStore`, or anything that shows itself like one under other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from robot_datasets.features import Feature
from robot_datasets.statistics import FeatureStats
from robot_datasets.store.images import ImageColumn


class FeatureNames(Protocol):
    """Which features are columns of numbers and which are cameras."""

    @property
    def low_dim(self) -> Sequence[str]:
        """Names of the columns of numbers."""
        ...

    @property
    def image_features(self) -> Sequence[str]:
        """Names of the cameras."""
        ...


class LeRobotSource(Protocol):
    """The part of `EpisodeStore` that the LeRobot writers use; its members are documented there."""

    @property
    def spec(self) -> FeatureNames:
        """Names of the features by kind."""
        ...

    @property
    def features(self) -> Mapping[str, Feature]:
        """All features by name."""
        ...

    @property
    def fps(self) -> float:
        """Rate of the steps [Hz]."""
        ...

    @property
    def embodiment(self) -> str:
        """Robot name, as ``robot_type`` is to say it."""
        ...

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        ...

    @property
    def n_steps(self) -> int:
        """Number of steps T of all episodes."""
        ...

    @property
    def episode_starts(self) -> np.ndarray:
        """First step of every episode, (E,)."""
        ...

    @property
    def episode_ends(self) -> np.ndarray:
        """One past the last step of every episode, (E,)."""
        ...

    @property
    def episodes(self) -> Mapping[str, Any]:
        """Columns per episode."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """Distinct instructions."""
        ...

    @property
    def warnings(self) -> Mapping[int, Sequence[str]]:
        """Episode -> what was found wrong with it."""
        ...

    def column(self, name: str) -> np.ndarray:
        """Return a column of numbers, (T, ...)."""
        ...

    def images(self, name: str) -> ImageColumn:
        """Return the frames of a camera."""
        ...

    def episode_stats(self, name: str) -> np.ndarray:
        """Return the statistics of every episode, (E, 10, ...), rows as `FeatureStats.to_array` orders them."""
        ...

    def stats(self, name: str) -> FeatureStats:
        """Return the statistics over all episodes."""
        ...
