"""Mirror images of demonstrations: twice the data for tasks that are symmetric in scene, robot and goal.

A mirrored demonstration is one that a person might have given, as far as physics and the goal can tell. A task offers
this by a module-level ``mirror_values`` and ``mirror_frame`` (see `robot_sim.tasks.pusht_mirror`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from robot_datasets.edit import Edit
from robot_datasets.edit.plan import whole_episodes
from robot_datasets.features import is_image
from robot_datasets.image_codec import decode_frame, encode_frame
from robot_datasets.store import EpisodeStore
from robot_sim.registry import SIMULATORS_REMEDY, TaskError

_MIRRORS = {"pusht": "robot_sim.tasks.pusht_mirror"}


def mirror(store: EpisodeStore) -> Edit:
    """Plan a store of the mirror images of all episodes, in the same order.

    Train on both as a mixture with pooled statistics: both hold out the same episodes for validation, because they have
    the same number of episodes.

    Args:
        store: Demonstrations of a robot whose task has a mirror; cameras must be stored as PNG.

    Raises:
        TaskError: No mirror is known for this robot or one of its features, or a camera is stored otherwise.
    """
    if store.embodiment not in _MIRRORS:
        raise TaskError(
            f"{store.path}: no mirror is known for '{store.embodiment or 'an unknown robot'}'; there is one for: "
            f"{', '.join(sorted(_MIRRORS))}"
        )
    task = _load(_MIRRORS[store.embodiment])
    unknown = sorted(set(store.features) - set(task.FEATURES))
    if unknown:
        raise TaskError(
            f"{store.path}: the mirror of '{store.embodiment}' does not know {', '.join(unknown)}; leave it out with: "
            f"robot-policies drop {store.path} OUT {' '.join(f'--feature {name}' for name in unknown)}"
        )
    cameras = [name for name in store.features if is_image(name)]
    for name in cameras:
        if store.spec.encodings[name] != "png":
            raise TaskError(
                f"{store.path}: {name} is stored as {store.spec.encodings[name]}, and mirroring wants PNG, so that "
                f"nothing is lost; leave it out with: robot-policies drop {store.path} OUT --feature {name}"
            )
    return Edit(
        operation="mirror",
        options={},
        sources=[store],
        pieces=[replace(p, source_id=f"{p.source_id}-mirrored") for p in whole_episodes(store)],
        features=store.features,
        embodiment=store.embodiment,
        transforms={
            name: partial(task.mirror_values, name) for name in store.features if name not in cameras
        },
        frame_transforms=dict.fromkeys(cameras, partial(_png, task.mirror_frame)),
    )


def _png(change: Callable[[Any], Any], frame: bytes) -> bytes:
    return encode_frame(change(decode_frame(frame)), "png")


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise TaskError(f"mirroring needs the package '{error.name}'; {SIMULATORS_REMEDY}") from error
