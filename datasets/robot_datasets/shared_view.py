"""Stores of different robots seen through one shared layout, so that they train in one mixture.

A `SharedView` has the reading interface of an `EpisodeStore` that windows use: state and action padded, which of
their components count as masks, cameras under common names. `shared_views` makes one for each store of a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature, is_image
from robot_datasets.image_fit import fit_image
from robot_datasets.loader import BatchDataset
from robot_datasets.shared_layout import Placement, SharedLayout, load_layout
from robot_datasets.statistics import FeatureStats

PADDED = (STATE, ACTION)
"""Features that are brought to the layout; all others pass unchanged."""
STATE_IS_VALID = "observation.state_is_valid"
"""Which components of the padded state a robot has, (W,): a feature of the view, for policies that read it."""
ACTION_IS_VALID = "action_is_valid"
"""Key of a batch: which action components its robot has, (B, W) bool; the loss goes by it."""

Slots = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """How one store of a mixture is brought to the shared layout.

    Attributes:
        schema: Name or file of the schema whose `layout` holds; empty = found by the store's embodiment.
        slots: Slot -> component names, instead of a schema's.
        cameras: Common camera name -> the store's camera; an empty text is a camera that the robot lacks, whose
            frames are black. Empty = the store's own cameras.
    """

    schema: str = ""
    slots: Slots = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)


class SharedView:
    """One store in the shared layout.

    Attributes:
        store: The store itself.
        placements: How each padded feature is placed.
    """

    def __init__(
        self,
        store: Any,
        slots: Slots,
        layout: SharedLayout,
        *,
        cameras: Mapping[str, str] | None = None,
        blank: Mapping[str, Feature] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """View a store.

        Args:
            store: An `EpisodeStore`.
            slots: Slot -> component names.
            layout: The layout, cut down to what the mixture uses.
            cameras: See `ViewOptions`.
            blank: The feature of each camera that the robot lacks, by common feature name.
            image_size: Height and width that all frames are brought to [px]; None leaves them.
        """
        self.store = store
        self.placements = {
            name: Placement.of(name, store.features[name], slots, layout)
            for name in PADDED
            if name in store.features
        }
        if ACTION not in self.placements:
            raise DatasetError(f"{store.path} has no feature 'action'; a mixture needs one")
        self._source = _camera_sources(store, cameras or {})
        self._blank = {name: _sized(feature, image_size) for name, feature in (blank or {}).items()}
        self._image_size = image_size

    @property
    def features(self) -> dict[str, Feature]:
        """The store's features; state and action padded, the state's mask added, cameras renamed."""
        own = self.store.features
        features = {name: feature for name, feature in own.items() if not is_image(name)}
        features |= {name: _sized(own[source], self._image_size) for name, source in self._source.items()}
        features |= self._blank
        features |= {name: placement.padded_feature for name, placement in self.placements.items()}
        if STATE in self.placements:
            layout = self.placements[STATE].layout
            features[STATE_IS_VALID] = Feature(dtype="float32", shape=(layout.width,), names=layout.names)
        return features

    @property
    def action_is_valid(self) -> NDArray[np.bool_]:
        """Which components of the padded action count, (W,)."""
        return self.placements[ACTION].valid

    def camera_source(self, name: str) -> str | None:
        """The store's own name of a camera feature; None if the robot lacks it and the frames are black."""
        return self._source.get(name)

    def column(self, name: str) -> NDArray[Any]:
        """A low-dimensional feature, (T, ...); padded ones are float32."""
        if name == STATE_IS_VALID and STATE in self.placements:
            valid = self.placements[STATE].valid.astype(np.float32)
            return np.broadcast_to(valid, (int(self.store.episode_ends[-1]), len(valid)))
        values = self.store.column(name)
        placement = self.placements.get(name)
        return values if placement is None else placement.pad(np.asarray(values, dtype=np.float32))

    def images(self, name: str) -> Any:
        """Frames of a camera by its common name."""
        if name in self._blank:
            return BlankImages(self._blank[name])
        if name not in self._source:
            raise DatasetError(unknown_name("camera", name, [*self._source, *self._blank]))
        images = self.store.images(self._source[name])
        return images if self._image_size is None else FittedImages(images, self._image_size)

    def stats(self, name: str, episodes: Sequence[int] | NDArray[Any] | None = None) -> FeatureStats:
        """Statistics as of an `EpisodeStore`; a place that is not filled is constantly 0."""
        if name == STATE_IS_VALID and STATE in self.placements:
            return FeatureStats.of(self.placements[STATE].valid.astype(np.float32)[None])
        stats = self.store.stats(self._source.get(name, name), episodes=episodes)
        placement = self.placements.get(name)
        if placement is None:
            return stats
        table = placement.pad(stats.to_array())
        table[0] = stats.count.max()
        return FeatureStats.from_array(table)

    @property
    def path(self) -> str:
        """Address of the store."""
        return self.store.path

    @property
    def fps(self) -> float:
        """Rate of the steps [Hz]."""
        return self.store.fps

    @property
    def embodiment(self) -> str:
        """Robot name."""
        return self.store.embodiment

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the store."""
        return self.store.attributes

    @property
    def fingerprint(self) -> str:
        """The store's hash."""
        return self.store.fingerprint

    @property
    def episode_ends(self) -> NDArray[np.int64]:
        """One past the last step of each episode, (E,)."""
        return self.store.episode_ends

    @property
    def episodes(self) -> Mapping[str, Any]:
        """Columns of the episode table."""
        return self.store.episodes

    @property
    def tasks(self) -> Sequence[str]:
        """Instructions, by task index."""
        return self.store.tasks


class MaskedDataset:
    """A dataset of windows of a `SharedView`; adds ``batch["action_is_valid"]`` (B, W)."""

    def __init__(self, dataset: BatchDataset, action_is_valid: NDArray[np.bool_]) -> None:
        self.dataset = dataset
        self._valid = action_is_valid

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(
        self, windows: Sequence[int] | NDArray[np.int64], draws: NDArray[np.int64] | None = None
    ) -> dict[str, Any]:
        """Return the batch of the given windows, masks included; see `BatchDataset`."""
        batch = self.dataset.__getitems__(windows, draws)
        return {**batch, ACTION_IS_VALID: np.tile(self._valid, (len(windows), 1))}


class BlankImages:
    """A camera that a robot lacks: black frames."""

    def __init__(self, feature: Feature) -> None:
        self.feature = feature

    def decode(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return black frames (N, H, W, C)."""
        return np.zeros((len(indices), *self.feature.shape), dtype=self.feature.dtype)


class FittedImages:
    """A camera whose frames are brought to one size, see `robot_datasets.image_fit`."""

    def __init__(self, images: Any, size: tuple[int, int]) -> None:
        self._images = images
        self._size = size

    def decode(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return frames (N, height, width, C); those of a store may differ in size."""
        return np.stack([fit_image(self._images.decode([int(i)])[0], self._size) for i in indices])


def shared_views(
    stores: Sequence[Any],
    options: Sequence[ViewOptions],
    layout: str = "shared",
    *,
    image_size: tuple[int, int] | None = None,
) -> list[SharedView]:
    """Bring the stores of a mixture to one layout, cut down to the slots that one of them fills.

    Args:
        stores: Open stores.
        options: One for each.
        layout: Name of the layout.
        image_size: Height and width that all frames are brought to [px]; None leaves them.

    Raises:
        DatasetError: A component of an action has no place, a slot would hold different things, or a camera
            is in no store.
    """
    full = load_layout(layout)
    slots = [slots_of(store, option) for store, option in zip(stores, options, strict=True)]
    placed = [
        {
            name: Placement.of(name, store.features[name], own, full)
            for name in PADDED
            if name in store.features
        }
        for store, own in zip(stores, slots, strict=True)
    ]
    used = {slot for own in placed for placement in own.values() for slot in placement.slots}
    for name in PADDED:
        features = {s.path: own[name] for s, own in zip(stores, placed, strict=True) if name in own}
        for (a, first), (b, second) in combinations(features.items(), 2):
            _require_alike(name, a, first, b, second)
    return [
        SharedView(
            store,
            own,
            full.only(sorted(used)),
            cameras=option.cameras,
            blank={
                IMAGE_PREFIX + name: _size_elsewhere(name, stores, options)
                for name, source in option.cameras.items()
                if not source
            },
            image_size=image_size,
        )
        for store, own, option in zip(stores, slots, options, strict=True)
    ]


def slots_of(store: Any, option: ViewOptions) -> Slots:
    """Return which components of a store go into which slot: as told, or by the schemas of its embodiment.

    Raises:
        DatasetError: No schema places all components of the store's action, or several do differently.
    """
    from robot_datasets.schemas import load_schema, schema_names

    if option.slots:
        return option.slots
    if option.schema:
        return load_schema(option.schema).layout
    names = set(store.features[ACTION].names)
    found: dict[str, Slots] = {}
    for name in schema_names():
        schema = load_schema(name)
        if schema.robot == store.embodiment and names <= {c for own in schema.layout.values() for c in own}:
            found[name] = {slot: [c for c in own if c in names] for slot, own in schema.layout.items()}
    different = {repr({k: v for k, v in sorted(slots.items()) if v}) for slots in found.values()}
    if len(different) == 1:
        return load_schema(next(iter(found))).layout
    problem = f"several do ({', '.join(found)})" if found else "none does"
    raise DatasetError(
        f"{store.path}: a schema of embodiment '{store.embodiment}' must say where the components of its action "
        f"({', '.join(sorted(names)) or 'without names'}) go, {problem}; name a schema or give slots"
    )


def _camera_sources(store: Any, cameras: Mapping[str, str]) -> dict[str, str]:
    """Return common feature name -> the store's feature name."""
    if not cameras:
        return {name: name for name in store.features if is_image(name)}
    for name, source in cameras.items():
        if source and IMAGE_PREFIX + source not in store.features:
            known = [n.removeprefix(IMAGE_PREFIX) for n in store.features if n.startswith(IMAGE_PREFIX)]
            raise DatasetError(f"{store.path}: cameras.{name}: {unknown_name('camera', source, known)}")
    return {IMAGE_PREFIX + name: IMAGE_PREFIX + source for name, source in cameras.items() if source}


def _sized(feature: Feature, size: tuple[int, int] | None) -> Feature:
    return feature if size is None else replace(feature, shape=(*size, feature.shape[2]))


def _size_elsewhere(name: str, stores: Sequence[Any], options: Sequence[ViewOptions]) -> Feature:
    """Return the feature of a camera from a store that has it."""
    for store, option in zip(stores, options, strict=True):
        source = option.cameras.get(name, "" if option.cameras else name)
        if source and IMAGE_PREFIX + source in store.features:
            return store.features[IMAGE_PREFIX + source]
    raise DatasetError(f"camera '{name}' is in no store of the mixture; leave it out")


def _require_alike(name: str, a: str, first: Placement, b: str, second: Placement) -> None:
    """Raise unless two robots mean the same kind of thing where they share a slot."""
    common = [slot for slot in first.slots if slot in second.slots]
    if not common:
        return
    relative = ["delta" in placement.feature.meaning for placement in (first, second)]
    if relative[0] != relative[1]:
        raise DatasetError(
            f"{name} is '{first.feature.meaning}' in {a} and '{second.feature.meaning}' in {b}; differences and "
            "positions cannot share a slot, convert one of them with another action"
        )
    turned = [slot for slot in common if slot.endswith("end_effector")]
    rotations = [placement.feature.rotation for placement in (first, second)]
    if turned and rotations[0] != rotations[1]:
        raise DatasetError(
            f"{name}: rotations are {rotations[0] or 'unknown'} in {a} and {rotations[1] or 'unknown'} in {b}, and "
            f"both go into {turned[0]}; convert one of them"
        )
