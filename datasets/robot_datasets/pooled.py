"""Statistics of several stores together, equal to those of one store with all their episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import is_image
from robot_datasets.statistics import FeatureStats, merge_pixels
from robot_datasets.store import EpisodeStore, layout


def pooled_stats(stores: Sequence[EpisodeStore], name: str, *, split: str | None = None) -> FeatureStats:
    """Return the statistics of a feature over all steps of all stores.

    Numbers are taken together, so quantiles are exact; of images, histograms are added up.

    Args:
        stores: At least one.
        name: A feature that all of them have, in equal shape.
        split: Only episodes marked so, ``"train"`` or ``"val"``.

    Raises:
        DatasetError: A store lacks the feature or has another shape, or no episode is marked so.
    """
    first = stores[0]
    for store in stores:
        if name not in store.features:
            raise DatasetError(f"{store.path}: {unknown_name('feature', name, store.features)}")
        a, b = first.features[name].shape, store.features[name].shape
        if a != b and not is_image(name):
            raise DatasetError(
                f"{name} has shape {a} in {first.path} and {b} in {store.path}; expected equal ones"
            )
    chosen = [_chosen(store, split) for store in stores]
    if not sum(map(len, chosen)):
        raise DatasetError(f"no episode of {', '.join(s.path for s in stores)} is marked '{split}'")
    if len(stores) == 1 and split is None:
        return first.stats(name)
    if is_image(name):
        path = layout.stats_path(name)
        tables = [s.read_array(f"{path}/episodes")[c] for s, c in zip(stores, chosen, strict=True)]
        histograms = [s.read_array(f"{path}/histogram")[c] for s, c in zip(stores, chosen, strict=True)]
        return merge_pixels(np.concatenate(tables), np.concatenate(histograms), first.features[name].dtype)
    return FeatureStats.of(
        np.concatenate([_rows(store, name, episodes) for store, episodes in zip(stores, chosen, strict=True)])
    )


def _chosen(store: EpisodeStore, split: str | None) -> np.ndarray:
    if split is None:
        return np.arange(store.n_episodes)
    return np.flatnonzero(np.asarray(store.episodes["split"]) == split)


def _rows(store: EpisodeStore, name: str, episodes: np.ndarray) -> np.ndarray:
    column = store.column(name)
    if len(episodes) == store.n_episodes:
        return column
    parts = [column[store.episode_starts[e] : store.episode_ends[e]] for e in episodes]
    return np.concatenate([column[:0], *parts])
