"""From a dataset configuration to windows, statistics and the policy's spec."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, is_image
from robot_datasets.loader import BatchDataset, EpochOrder, Loader, SampleOrder
from robot_datasets.mixture import Affine, MixtureDataset, MixtureOrder, rescaling
from robot_datasets.segments import SegmentDataset, steps_in_segments, windows_in_segments
from robot_datasets.selection import Selection
from robot_datasets.shared_view import MaskedDataset, SharedView, shared_views
from robot_datasets.split import split_episodes
from robot_datasets.statistics import merge_moments
from robot_datasets.windows import WindowDataset, WindowSpec, check_finite
from robot_policies.embodiments import CARD_KEY, EmbodimentMap
from robot_policies.spec import PolicySpec
from robot_policies.training.config import DatasetConfig, RunConfig, SourceConfig, WindowConfig
from robot_policies.training.demonstrated_task import common_task, demonstrated_task
from robot_policies.training.distributed import World

logger = logging.getLogger(__name__)

StatsArrays = dict[str, dict[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        train: Windows of the training episodes.
        validation: Windows of the held-out episodes, or None if there are none.
        spec: Spec of a policy for these data.
        stats: Statistics of the low-dimensional features over the training episodes.
        card: Identity of the data, for the checkpoint.
        order: Order of a mixture's samples; None shuffles.
    """

    train: BatchDataset
    validation: BatchDataset | None
    spec: PolicySpec
    stats: StatsArrays
    card: dict[str, Any]
    order: SampleOrder | None = None

    def loader(self, config: RunConfig, world: World) -> Loader:
        """Batches of this process; one per micro-batch."""
        order = EpochOrder(
            len(self.train), config.trainer.batch_size, config.seed, world.rank, world.size, order=self.order
        )
        return Loader(self.train, order, prefetch=config.trainer.prefetch)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One store, split and checked."""

    store: Any
    train: BatchDataset
    validation: BatchDataset | None
    stats: StatsArrays
    card: dict[str, Any]
    weights: NDArray[np.floating] | None


def open_data(
    config: DatasetConfig,
    window: WindowConfig,
    *,
    seed: int = 0,
    open_store: Callable[[str], Any] | None = None,
) -> TrainingData:
    """Open, split and check the configured stores; statistics are taken over training episodes only.

    Args:
        config: Which stores and features, and how to split.
        window: Horizons.
        seed: Seed of a mixture's order and of the goals.
        open_store: Opens a store by path.

    Raises:
        DatasetError: A store or feature is missing, values are not finite, or no episode is long enough.
        SpecError: The horizons do not fit each other, or the stores of a mixture do not.
    """
    opener = _open_store if open_store is None else open_store
    sources = config.mixture or (SourceConfig(path=config.path),)
    stores = [opener(source.path) for source in sources]
    if config.layout is not None:
        views, size = [source.view for source in sources], config.image_size
        stores = shared_views(
            stores, views, config.layout, image_size=None if size is None else (size[0], size[1])
        )
    if config.goal is not None:
        config = replace(config, goal=replace(config.goal, seed=seed))
    opened = [
        _open_source(store, s, config, window, stores[0]) for store, s in zip(stores, sources, strict=True)
    ]
    reference = opened[0]
    features = reference.store.features
    spec = PolicySpec(
        observation={name: features[name] for name in config.observation},
        action=features[ACTION],
        n_obs_steps=window.n_obs_steps,
        horizon=window.horizon,
        n_action_steps=window.n_action_steps,
        fps=float(reference.store.fps),
        goal={name: features[name] for name in config.goal_features},
        n_goal_steps=1 if config.goal is None else config.goal.n_steps,
        instructed=config.instruction,
        future=config.future,
    )
    data = TrainingData(
        train=reference.train,
        validation=reference.validation,
        spec=spec,
        stats=reference.stats,
        card=reference.card,
    )
    if config.statistics == "pooled":
        data = replace(data, stats=_pooled([source.stats for source in opened]))
    rescale = [_rescaling(source, data, config) for source in opened]
    if config.layout is not None:
        data.card[CARD_KEY] = _embodiments(opened, config, rescale)
    if len(opened) == 1 and reference.weights is None:
        return data
    return _mix(data, opened, config, rescale, seed)


def _mix(
    data: TrainingData,
    opened: list[_Source],
    config: DatasetConfig,
    rescale: list[dict[str, Affine]],
    seed: int,
) -> TrainingData:
    """Join several stores; the first stays the reference of spec, statistics and validation."""
    for source, where in zip(opened, config.mixture, strict=True):
        features = (
            source.store.features if where.actions else {**source.store.features, ACTION: data.spec.action}
        )
        data.spec.require(features, fps=float(source.store.fps), who=f"store {where.path}")
    weights = [source.weight for source in config.mixture]
    parts = [{"weight": w, **source.card} for w, source in zip(weights, opened, strict=True)]
    fingerprint = hashlib.sha256(":".join(part["fingerprint"] for part in parts).encode()).hexdigest()[:32]
    return replace(
        data,
        train=MixtureDataset(_with_masks(opened, config, data.spec.action_dim), [{}, *rescale[1:]]),
        card={**data.card, "fingerprint": fingerprint, "mixture": parts, "task": common_task(parts)},
        order=MixtureOrder(
            [len(source.train) for source in opened],
            weights,
            seed,
            of_windows=[source.weights for source in opened],
        ),
    )


def _with_masks(opened: list[_Source], config: DatasetConfig, action_dim: int) -> list[BatchDataset]:
    """Say of every window whether it has actions, if some have not."""
    if all(source.actions for source in config.mixture):
        return [source.train for source in opened]
    return [
        source.train
        if where.actions and isinstance(source.train, MaskedDataset)
        else MaskedDataset(source.train, np.full(action_dim, where.actions))
        for source, where in zip(opened, config.mixture, strict=True)
    ]


def _rescaling(source: _Source, data: TrainingData, config: DatasetConfig) -> dict[str, Affine]:
    """How a store's numbers are brought to the reference's."""
    if config.statistics == "pooled":
        return {}
    known = {name: stats for name, stats in data.stats.items() if name in source.stats}
    return rescaling(source.stats, known, config.modes)


def _pooled(stats: list[StatsArrays]) -> StatsArrays:
    """Extremes and moments of all stores together; quantiles do not merge and are left out."""
    names = ("count", "min", "max", "mean", "std")
    pooled: StatsArrays = {}
    for feature in stats[0]:
        parts = [part[feature] for part in stats if feature in part]
        rows = [[np.broadcast_to(part[n], part["min"].shape) for n in names] for part in parts]
        pooled[feature] = dict(
            zip(names, merge_moments(np.array(rows, dtype=np.float64))[: len(names)], strict=True)
        )
    return pooled


def _embodiments(
    opened: list[_Source], config: DatasetConfig, rescale: list[dict[str, Affine]]
) -> list[dict[str, Any]]:
    """Describe how each store's robot is led to the shared policy and back; the first is the reference."""
    names = [source.card["name"] for source in opened]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DatasetError(
            f"two stores of the mixture are called {', '.join(repeated)}; rename one, the policy goes by it"
        )
    maps = [{}, *rescale[1:]]
    return [
        EmbodimentMap.of(source.store, name, (*config.observation, *config.goal_features), own).to_dict()
        for source, name, own in zip(opened, names, maps, strict=True)
    ]


def _open_store(path: str) -> Any:
    from robot_datasets.store import EpisodeStore

    return EpisodeStore.open(path)


def _open_source(
    store: Any, source: SourceConfig, config: DatasetConfig, window: WindowConfig, reference: Any
) -> _Source:
    path, acted = source.path, (ACTION,) if source.actions else ()
    named = {
        "observation": (*config.observation, *acted),
        "goal": config.goal_features,
        "future": tuple(config.future),
    }
    for key, name in ((key, name) for key, names in named.items() for name in names):
        if name not in store.features:
            raise DatasetError(f"dataset.{key}: {path}: {unknown_name('feature', name, store.features)}")
    train, val = split_episodes(
        len(store.episode_ends),
        val_ratio=config.val_ratio,
        seed=config.split_seed,
        max_train=config.max_train_episodes,
    )
    used = dict.fromkeys((*config.observation, *config.goal_features, *acted))
    lowdim = [name for name in used if not is_image(name)]
    check_finite(store, lowdim, np.concatenate([train, val]))
    horizons = WindowSpec(window.n_obs_steps, window.horizon, window.n_action_steps)
    no_actions = None if source.actions else reference.features[ACTION].shape[0]
    dataset = _windows(store, horizons, config, train, without_actions=no_actions)
    if dataset.index.n_too_short:
        logger.warning(
            "%s: %d of %d training episodes are too short for horizon %d and are left out",
            *(path, dataset.index.n_too_short, len(train), window.horizon),
        )
    inside = steps_in_segments(store, source.segments) if source.segments else None
    return _Source(
        store=store,
        # A mixture's batches have the same entries whichever store a row is from.
        train=_masked(store, SegmentDataset(dataset, inside) if _by_segments(config) else dataset),
        validation=_validation_windows(store, horizons, config, val),
        stats={name: store.stats(name, episodes=train).to_dict() for name in lowdim},
        card=_card(path, store, train, val, len(dataset)),
        weights=_weights(source, store, dataset, inside),
    )


def _weights(
    source: SourceConfig, store: Any, dataset: WindowDataset, inside: NDArray[np.bool_] | None
) -> NDArray[np.floating] | None:
    """How often each window is drawn relative to the others; None for equally often."""
    weights: NDArray[np.floating] | None = None
    if source.selection:
        where = f"{source.selection} for {source.path}"
        weights = Selection.load(source.selection).of_windows(dataset.index, store.fingerprint, where=where)
    if inside is not None:
        chosen = windows_in_segments(dataset.index, inside, where=source.path)
        weights = chosen.astype(np.float32) * (1.0 if weights is None else weights)
        if not weights.any():
            raise DatasetError(f"{source.path}: its selection and its segments leave no window; widen one")
    return weights


def _by_segments(config: DatasetConfig) -> bool:
    return any(source.segments for source in config.mixture)


def _windows(
    store: Any,
    horizons: WindowSpec,
    config: DatasetConfig,
    episodes: NDArray[np.int64],
    *,
    without_actions: int | None = None,
) -> WindowDataset:
    return WindowDataset(
        store,
        horizons,
        observation=config.observation,
        episodes=episodes,
        with_task=config.instruction,
        goals=config.goal,
        future=config.future,
        without_actions=without_actions,
    )


def _masked(store: Any, dataset: BatchDataset) -> BatchDataset:
    """Add to the windows which action components count, if the store is seen through a shared layout."""
    return MaskedDataset(dataset, store.action_is_valid) if isinstance(store, SharedView) else dataset


def _validation_windows(
    store: Any, horizons: WindowSpec, config: DatasetConfig, episodes: NDArray[np.int64]
) -> BatchDataset | None:
    if len(episodes) == 0:
        return None
    try:
        return _masked(store, _windows(store, horizons, config, episodes))
    except DatasetError as error:
        logger.warning("no validation: %s", error)
        return None


def _card(
    path: str, store: Any, train: NDArray[np.int64], val: NDArray[np.int64], n_windows: int
) -> dict[str, Any]:
    features: Mapping[str, Any] = store.features
    return {
        "name": Path(path).name,
        "fingerprint": store.fingerprint,
        "embodiment": store.embodiment,
        "task": demonstrated_task(store.attributes),
        "fps": float(store.fps),
        "episodes": len(store.episode_ends),
        "steps": int(store.episode_ends[-1]),
        "train_episodes": len(train),
        "train_windows": n_windows,
        "validation_episodes": [int(i) for i in val],
        "features": {name: feature.to_dict() for name, feature in features.items()},
    }
