"""Episodes or features are left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from robot_datasets.edit.filters import Filter, episode_facts
from robot_datasets.edit.plan import Edit, whole_episodes
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.store import EpisodeStore


def drop(
    store: EpisodeStore,
    *,
    episodes: Collection[int] = (),
    source_ids: Mapping[str, str] | None = None,
    where: str = "",
    failed: bool = False,
    features: Collection[str] = (),
) -> Edit:
    """Plan a store without some episodes or features. An episode is left out if any of the conditions holds.

    Args:
        store: What to take from.
        episodes: Episode numbers.
        source_ids: Names of episodes in their source -> why, e.g. of a list of bad recordings.
        where: A condition on an episode, see `robot_datasets.edit.filters`.
        failed: Those known not to have reached their goal.
        features: Features to leave out.

    Raises:
        DatasetError: Nothing was asked for, an episode or feature does not exist, or the condition is malformed.
    """
    if not (episodes or source_ids or where or failed or features):
        raise DatasetError("drop was not told what; give --episode, --where, --failed, --list or --feature")
    listed = dict(source_ids or {})
    _require_known(store, episodes, listed, features)
    numbers, condition = set(episodes), Filter(where) if where else None
    kept, dropped = [], {}
    for piece, facts in zip(whole_episodes(store), episode_facts(store), strict=True):
        if piece.episode in numbers:
            dropped[piece.source_id] = "dropped by number"
        elif piece.source_id in listed:
            dropped[piece.source_id] = f"dropped: {listed[piece.source_id] or 'listed'}"
        elif failed and facts["success"] is False:
            dropped[piece.source_id] = "dropped: failed"
        elif condition is not None and condition(facts):
            dropped[piece.source_id] = f"dropped: {where}"
        else:
            kept.append(piece)
    return Edit(
        operation="drop",
        options={
            "episodes": sorted(numbers),
            "source_ids": sorted(listed),
            "where": where,
            "failed": failed,
            "features": sorted(features),
        },
        sources=[store],
        pieces=kept,
        features={name: feature for name, feature in store.features.items() if name not in set(features)},
        embodiment=store.embodiment,
        dropped=dropped,
    )


def _require_known(
    store: EpisodeStore, episodes: Collection[int], source_ids: Collection[str], features: Collection[str]
) -> None:
    """Raise unless everything that is to go exists; what was set aside before may be listed again."""
    for name in features:
        if name not in store.features:
            raise DatasetError(unknown_name("feature", name, store.features))
    for number in episodes:
        if not 0 <= number < store.n_episodes:
            raise DatasetError(f"there is no episode {number}; the store has 0 to {store.n_episodes - 1}")
    known, aside = set(store.episodes["source_id"]), store.quarantined
    for name in source_ids:
        if name not in known and name not in aside:
            raise DatasetError(unknown_name("episode", name, known))
