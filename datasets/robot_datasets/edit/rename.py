"""Features, instructions or the robot get another name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from robot_datasets.edit.plan import Edit, whole_episodes
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX
from robot_datasets.store import EpisodeStore


def rename(
    store: EpisodeStore,
    *,
    features: Mapping[str, str] | None = None,
    tasks: Mapping[str, str] | None = None,
    embodiment: str | None = None,
) -> Edit:
    """Plan a store with other names.

    Args:
        store: What to rename in.
        features: Old -> new feature name; a camera stays a camera.
        tasks: Old -> new instruction; two may become one.
        embodiment: New robot name.

    Raises:
        DatasetError: Nothing was asked for, an old name does not exist, or a new one is taken or of another kind.
    """
    features, tasks = dict(features or {}), dict(tasks or {})
    if not (features or tasks or embodiment is not None):
        raise DatasetError(
            "rename was not told what; give --feature OLD=NEW, --task OLD=NEW or --embodiment NAME"
        )
    for old, new in features.items():
        if old not in store.features:
            raise DatasetError(unknown_name("feature", old, store.features))
        if _kind(old) != _kind(new):
            raise DatasetError(
                f"{old} is {_kind(old)}, the name {new} is for {_kind(new)}; choose one of the same kind"
            )
    for old in tasks:
        if old not in store.tasks:
            raise DatasetError(unknown_name("task", old, store.tasks))
    renamed = {features.get(name, name): feature for name, feature in store.features.items()}
    if len(renamed) < len(store.features):
        taken = sorted(new for new in features.values() if new in set(store.features) - set(features))
        raise DatasetError(
            f"the name {', '.join(taken or sorted(set(features.values())))} is taken; choose another"
        )
    return Edit(
        operation="rename",
        options={"features": features, "tasks": tasks, "embodiment": embodiment},
        sources=[store],
        pieces=[replace(piece, task=tasks.get(piece.task, piece.task)) for piece in whole_episodes(store)],
        features=renamed,
        old_names={new: old for old, new in features.items()},
        embodiment=store.embodiment if embodiment is None else embodiment,
    )


def _kind(name: str) -> str:
    if name.startswith(IMAGE_PREFIX):
        return "a colour camera"
    return "a depth camera" if name.startswith(DEPTH_PREFIX) else "a vector"
