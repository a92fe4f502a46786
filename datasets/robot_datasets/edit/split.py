"""One store becomes two: episodes to train on, and episodes held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robot_datasets.edit.plan import Edit, whole_episodes
from robot_datasets.errors import DatasetError
from robot_datasets.split import split_episodes
from robot_datasets.store import EpisodeStore

SPLITS = ("train", "val")


def split(
    store: EpisodeStore, *, val_ratio: float = 0.1, seed: int = 42, by_mark: bool = False
) -> tuple[Edit, Edit]:
    """Plan a store of the training and one of the validation episodes, each marked so.

    The choice is that of training for the same ratio and seed.

    Args:
        store: What to split.
        val_ratio: Share of episodes held out.
        seed: Seed of the choice.
        by_mark: Go by the marks that the source came with instead.

    Raises:
        DatasetError: One part would be empty, or by marks and an episode has none.
    """
    if by_mark:
        marks = np.asarray(store.episodes["split"])
        without = np.flatnonzero(~np.isin(marks, SPLITS))
        if len(without):
            raise DatasetError(
                f"{len(without)} of {len(marks)} episodes are marked neither train nor val, "
                f"first episode {without[0]}; split them by ratio, or drop them"
            )
        chosen = [np.flatnonzero(marks == name) for name in SPLITS]
    else:
        chosen = list(split_episodes(store.n_episodes, val_ratio=val_ratio, seed=seed))
    if not all(len(part) for part in chosen):
        sizes = " and ".join(str(len(part)) for part in chosen)
        raise DatasetError(
            f"the parts would have {sizes} episodes; expected at least one each, choose another ratio"
        )
    pieces = whole_episodes(store)
    options = {"by_mark": True} if by_mark else {"val_ratio": val_ratio, "seed": seed}
    edits = [
        Edit(
            operation="split",
            options={**options, "part": name},
            sources=[store],
            pieces=[replace(pieces[i], split=name) for i in part.tolist()],
            features=store.features,
            embodiment=store.embodiment,
        )
        for name, part in zip(SPLITS, chosen, strict=True)
    ]
    return edits[0], edits[1]
