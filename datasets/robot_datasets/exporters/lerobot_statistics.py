"""Statistics in LeRobot's units and shapes: pixels in 0..1, depth in its own unit, (C, 1, 1) per camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_datasets.exporters.lerobot_source import LeRobotSource
from robot_datasets.exporters.lerobot_tables import DEFAULTS, default_columns
from robot_datasets.features import DEPTH_PREFIX
from robot_datasets.statistics import STATISTICS, FeatureStats
from robot_datasets.store.frames import sampled_steps

_WHITE = 255.0


class LeRobotStatistics:
    """Statistics of the exported features of a store, per episode and over all."""

    def __init__(self, store: LeRobotSource, features: Sequence[str]) -> None:
        self._store = store
        self._tables = {name: store.episode_stats(name) for name in features}
        self._cameras = set(store.spec.image_features)

    def of_episode(self, episode: int) -> dict[str, dict[str, Any]]:
        """Return feature -> statistic -> nested lists, for one episode."""
        n_frames = len(sampled_steps(int(self._store.episodes["n_steps"][episode])))
        result = {name: self._entry(name, table[episode], n_frames) for name, table in self._tables.items()}
        for name, values in default_columns(self._store, episode).items():
            result[name] = self._entry(name, FeatureStats.of(values[:, None]).to_array(), 0)
        return result

    def of_all(self) -> dict[str, dict[str, Any]]:
        """Return feature -> statistic -> nested lists, over all episodes."""
        lengths = self._store.episodes["n_steps"].tolist()
        n_frames = sum(len(sampled_steps(n)) for n in lengths)
        result = {n: self._entry(n, self._store.stats(n).to_array(), n_frames) for n in self._tables}
        parts = [default_columns(self._store, e) for e in range(self._store.n_episodes)]
        for name in DEFAULTS:
            values = np.concatenate([part[name] for part in parts])[:, None]
            result[name] = self._entry(name, FeatureStats.of(values).to_array(), 0)
        return result

    def _entry(self, name: str, table: np.ndarray, n_frames: int) -> dict[str, Any]:
        """Turn a (10, ...) table into lists."""
        entry: dict[str, Any] = {}
        for statistic, row in zip(STATISTICS, table, strict=True):
            if statistic == "count":
                entry[statistic] = [n_frames if name in self._cameras else int(np.ravel(row)[0])]
            elif name in self._cameras:
                scale = 1.0 if name.startswith(DEPTH_PREFIX) else _WHITE  # depth stays in its unit
                entry[statistic] = (row / scale).reshape(-1, 1, 1).tolist()
            else:
                entry[statistic] = np.atleast_1d(row).tolist()
        return entry


def flattened(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``stats/<feature>/<statistic>`` -> value, as in v3.0's episode table."""
    return {f"stats/{name}/{key}": value for name, entry in stats.items() for key, value in entry.items()}
