"""One robot's face of a policy that was trained on several: its own components in, its own actions out.

A policy of a mixture of embodiments reads and writes vectors in the shared layout, in the units of the mixture's
reference store (`robot_datasets.shared_view`, `robot_datasets.mixture`). What leads there and back for each store is
kept in the checkpoint's data card::

    observation (D,)  --place-->  (W,)  --own statistics to the reference's-->  policy
    action      (A,)  <--take--   (W,)  <--and back--                           policy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_datasets.errors import unknown_name
from robot_datasets.features import ACTION, STATE, Feature, is_image
from robot_datasets.mixture import Affine
from robot_datasets.shared_layout import Placement
from robot_datasets.shared_view import STATE_IS_VALID, SharedView
from robot_policies.configuration import ConfigError
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy

CARD_KEY = "embodiments"
"""Where the data card of a checkpoint lists the embodiments of its mixture."""


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """How one low-dimensional feature of a robot becomes the policy's.

    Attributes:
        feature: The robot's own feature, (D,).
        columns: Its components that the policy sees, (P,).
        positions: Their places in the policy's feature, (P,).
        scale: Own units to the policy's, (W,).
        offset: See `scale`; the policy's value is ``own * scale + offset``.
    """

    feature: Feature
    columns: tuple[int, ...]
    positions: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def of(cls, feature: Feature, placement: Placement | None, affine: Affine | None) -> FeatureMap:
        """Describe a feature; without a placement components stay where they are, without a map as they are."""
        width = feature.shape[0] if placement is None else placement.layout.width
        every = tuple(range(width))
        scale = np.ones(width) if affine is None else affine.scale
        offset = np.zeros(width) if affine is None else affine.offset
        return cls(
            feature=feature,
            columns=every if placement is None else placement.columns,
            positions=every if placement is None else placement.positions,
            scale=tuple(scale.tolist()),
            offset=tuple(offset.tolist()),
        )

    def to_policy(self, values: Tensor) -> Tensor:
        """Own (..., D) to the policy's (..., W)."""
        padded = values.new_zeros((*values.shape[:-1], len(self.scale)))
        padded[..., list(self.positions)] = values[..., list(self.columns)]
        return padded * padded.new_tensor(self.scale) + padded.new_tensor(self.offset)

    def from_policy(self, padded: Tensor) -> Tensor:
        """The policy's (..., W) to own (..., D)."""
        values = (padded - padded.new_tensor(self.offset)) / padded.new_tensor(self.scale)
        own = values.new_zeros((*values.shape[:-1], self.feature.shape[0]))
        own[..., list(self.columns)] = values[..., list(self.positions)]
        return own


@dataclass(frozen=True, kw_only=True)
class EmbodimentMap:
    """All that leads from one robot to the policy of a mixture and back; JSON-ready by `to_dict`.

    Attributes:
        name: Name of the store, which is unique in a mixture.
        robot: Embodiment of the store.
        fps: Rate of the store [Hz].
        features: The robot's low-dimensional features by name, the action included.
        cameras: The policy's camera feature -> the robot's, or None for a black picture.
    """

    name: str
    robot: str
    fps: float
    features: Mapping[str, FeatureMap]
    cameras: Mapping[str, str | None]

    @classmethod
    def of(
        cls, view: SharedView, name: str, observation: Sequence[str], rescale: Mapping[str, Affine]
    ) -> EmbodimentMap:
        """Describe a store of a mixture.

        Args:
            view: The store in the shared layout.
            name: Name of the store.
            observation: Features that the policy reads.
            rescale: Maps from the store's units to the reference's.
        """
        numbers = [n for n in (*observation, ACTION) if not is_image(n) and n != STATE_IS_VALID]
        return cls(
            name=name,
            robot=view.store.embodiment,
            fps=float(view.store.fps),
            features={
                n: FeatureMap.of(view.store.features[n], view.placements.get(n), rescale.get(n))
                for n in numbers
            },
            cameras={n: view.camera_source(n) for n in observation if is_image(n)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        features = {
            name: {
                "feature": entry.feature.to_dict(),
                **{key: list(getattr(entry, key)) for key in ("columns", "positions", "scale", "offset")},
            }
            for name, entry in self.features.items()
        }
        facts = {"name": self.name, "robot": self.robot, "fps": self.fps}
        return {**facts, "features": features, "cameras": dict(self.cameras)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EmbodimentMap:
        """Build from `to_dict`'s mapping."""
        features = {
            name: FeatureMap(
                feature=Feature.from_dict(entry["feature"], where=name),
                **{key: tuple(entry[key]) for key in ("columns", "positions", "scale", "offset")},
            )
            for name, entry in values["features"].items()
        }
        return cls(**{**values, "features": features})


def embodiment_names(card: Mapping[str, Any]) -> list[str]:
    """Return the embodiments of a checkpoint's data card; empty if it was trained on one."""
    return [entry["name"] for entry in card.get(CARD_KEY, ())]


def find_embodiment(card: Mapping[str, Any], name: str) -> EmbodimentMap:
    """Return an embodiment of a checkpoint by the name of its store, or of its robot if only one store has it.

    Raises:
        ConfigError: There is none of this name, with the nearest match, or several stores are of this robot.
    """
    entries = card.get(CARD_KEY, ())
    found = [e for e in entries if e["name"] == name] or [e for e in entries if e["robot"] == name]
    if len(found) == 1:
        return EmbodimentMap.from_dict(found[0])
    if not entries:
        raise ConfigError(f"embodiment '{name}': this checkpoint was trained on one embodiment; leave it out")
    if found:
        names = ", ".join(entry["name"] for entry in found)
        raise ConfigError(f"embodiment '{name}' is several stores of the mixture ({names}); name one of them")
    known = {entry[key] for entry in entries for key in ("name", "robot")}
    raise ConfigError(unknown_name("embodiment", name, known))


class EmbodimentPolicy(Policy):
    """A policy of a mixture as one of its robots sees it; its spec is that robot's.

    Args:
        policy: The policy of the mixture.
        embodiment: The robot.
    """

    def __init__(self, policy: Policy, embodiment: EmbodimentMap) -> None:
        shared = policy.spec
        observation: dict[str, Feature] = {}
        for name, feature in shared.observation.items():
            if name in embodiment.features:
                observation[name] = embodiment.features[name].feature
            elif (source := embodiment.cameras.get(name)) is not None:
                observation[source] = feature
        own = replace(
            shared, observation=observation, action=embodiment.features[ACTION].feature, fps=embodiment.fps
        )
        super().__init__(own)
        self.policy = policy
        self.embodiment = embodiment

    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        """Not possible: the loss is that of the mixture."""
        raise ConfigError("a policy seen as one embodiment cannot be trained; load it without 'embodiment'")

    @torch.no_grad()
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Tensor] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict an action chunk of this robot; see `Policy.predict_chunk`."""
        self.check_observation(observation)
        chunk = self.policy.predict_chunk(
            self._to_policy(observation), goal=goal, generator=generator, sampler=sampler
        )
        back = self.embodiment.features[ACTION].from_policy
        samples = None if chunk.samples is None else back(chunk.samples)
        return replace(chunk, actions=back(chunk.actions), samples=samples)

    def _to_policy(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The observation as the policy of the mixture expects it."""
        like = next(iter(observation.values()))
        steps = like.shape[:2]
        shared: dict[str, Tensor] = {}
        for name, feature in self.policy.spec.observation.items():
            if name in self.embodiment.features:
                shared[name] = self.embodiment.features[name].to_policy(observation[name].float())
            elif name == STATE_IS_VALID:
                valid = torch.zeros(feature.shape[0], device=like.device)
                valid[list(self.embodiment.features[STATE].positions)] = 1
                shared[name] = valid.expand(*steps, -1)
            else:
                source = self.embodiment.cameras[name]
                height, width, channels = feature.shape
                shared[name] = (
                    torch.zeros((*steps, channels, height, width), dtype=torch.uint8, device=like.device)
                    if source is None
                    else observation[source]
                )
        return shared
