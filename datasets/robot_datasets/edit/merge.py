"""Several stores of one robot become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robot_datasets.edit.plan import Edit, whole_episodes
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.store import EpisodeStore


def merge(stores: Sequence[EpisodeStore], *, embodiment: str = "") -> Edit:
    """Plan a store of all episodes of `stores`, one store after the other.

    Episodes keep their names; if two stores use the same ones, each name is preceded by that of its store.
    So are those of episodes that were set aside, so that no reason is lost.

    Args:
        stores: At least two, with equal features and rate.
        embodiment: Robot name of the new store; needed if the stores disagree.

    Raises:
        DatasetError: The stores differ in rate, features, encoding or robot; it says what would make them equal.
    """
    if len(stores) < 2:
        raise DatasetError(f"merge got {len(stores)} store; give two or more")
    first = stores[0]
    for other in stores[1:]:
        _require_equal(first, other)
    robots = sorted({store.embodiment for store in stores})
    if len(robots) > 1 and not embodiment:
        raise DatasetError(
            f"the stores are of different robots ({', '.join(name or 'unknown' for name in robots)}); "
            "train them as a mixture (dataset=mixture), or name one with --embodiment"
        )
    pieces = [piece for i, store in enumerate(stores) for piece in whole_episodes(store, source=i)]
    prefixes = [f"{name}/" for name in _unique_names(stores)]
    kept = [piece.source_id for piece in pieces]
    aside = [name for store in stores for name in store.quarantined]
    if _has_duplicates(kept):
        pieces = [replace(piece, source_id=prefixes[piece.store] + piece.source_id) for piece in pieces]
    return Edit(
        operation="merge",
        options={"embodiment": embodiment},
        sources=stores,
        pieces=pieces,
        features=first.features,
        embodiment=embodiment or first.embodiment,
        prefixes=prefixes if _has_duplicates(kept + aside) else (),
    )


def _has_duplicates(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


def _unique_names(stores: Sequence[EpisodeStore]) -> list[str]:
    names = [Path(store.path).name.removesuffix(".zarr") for store in stores]
    return [f"{i}_{name}" for i, name in enumerate(names)] if len(set(names)) < len(names) else names


def _require_equal(first: EpisodeStore, other: EpisodeStore) -> None:
    if first.fps != other.fps:
        raise DatasetError(
            f"{other.path} runs at {other.fps:g} Hz, {first.path} at {first.fps:g} Hz; convert one of them again "
            "with the other's rate"
        )
    for have, lack in ((first, other), (other, first)):
        only = sorted(set(have.features) - set(lack.features))
        if only:
            raise DatasetError(
                f"{have.path} has {', '.join(only)}, {lack.path} has not; leave it out first: "
                f"robot-policies drop {have.path} OUT --feature {only[0]}; or rename it where it has another name"
            )
    for name in first.features:
        _require_same_feature(name, first, other)
        if name in first.spec.encodings and not _mixable(
            first.spec.encodings[name], other.spec.encodings[name]
        ):
            raise DatasetError(
                f"{name} is stored as {first.spec.encodings[name]} in {first.path} and as "
                f"{other.spec.encodings[name]} in {other.path}; convert one of them again with the other's encoding"
            )


def _require_same_feature(name: str, first: EpisodeStore, other: EpisodeStore) -> None:
    a, b = first.features[name], other.features[name]
    for attribute in Feature.__dataclass_fields__:
        one, two = getattr(a, attribute), getattr(b, attribute)
        if one != two:
            remedy = "convert one of them again"
            if attribute == "meaning":
                remedy = "convert both with the same --option action=..."
            elif attribute == "shape":
                remedy = "they cannot be in one store; train them as a mixture (dataset=mixture)"
            raise DatasetError(
                f"{name} differs in {attribute}: {one or 'unknown'} in {first.path}, "
                f"{two or 'unknown'} in {other.path}; {remedy}"
            )


def _mixable(a: str, b: str) -> bool:
    """Frames tell JPEG from PNG by themselves; raw and colour-swapped ones are for all frames or none."""
    return a == b or {a, b} == {"jpeg", "png"}
