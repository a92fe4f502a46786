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
from robot_datasets.image_fit import fit_image
from robot_datasets.mixture import Affine
from robot_datasets.shared_layout import Placement
from robot_datasets.shared_view import STATE_IS_VALID, SharedView
from robot_policies.configuration import ConfigError
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy, RunningPlan

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
        cameras: The policy's camera feature -> the robot's name and feature, or None for a black picture.
    """

    name: str
    robot: str
    fps: float
    features: Mapping[str, FeatureMap]
    cameras: Mapping[str, tuple[str, Feature] | None]

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
            cameras={
                n: None if source is None else (source, view.store.features[source])
                for n in observation
                if is_image(n)
                for source in (view.camera_source(n),)
            },
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
        cameras = {
            name: None if own is None else {"name": own[0], "feature": own[1].to_dict()}
            for name, own in self.cameras.items()
        }
        return {**facts, "features": features, "cameras": cameras}

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
        cameras = {
            name: None if own is None else (own["name"], Feature.from_dict(own["feature"], where=name))
            for name, own in values["cameras"].items()
        }
        return cls(**{**values, "features": features, "cameras": cameras})


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
        own_name = {name: own[0] for name, own in embodiment.cameras.items() if own is not None}
        super().__init__(
            replace(
                shared,
                observation=_own_features(shared.observation, embodiment),
                goal=_own_features(shared.goal, embodiment),
                action=embodiment.features[ACTION].feature,
                fps=embodiment.fps,
                future={own_name.get(name, name): steps for name, steps in shared.future.items()},
            )
        )
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
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict an action chunk of this robot; see `Policy.predict_chunk`."""
        shared, goals = self._checked(observation, goal)
        return self._back(self.policy.predict_chunk(shared, goal=goals, generator=generator, sampler=sampler))

    @torch.no_grad()
    def continue_chunk(
        self,
        observation: Mapping[str, Tensor],
        plan: RunningPlan,
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Predict a chunk of this robot that continues a plan; see `Policy.continue_chunk`."""
        shared, goals = self._checked(observation, goal)
        running = replace(plan, actions=self.embodiment.features[ACTION].to_policy(plan.actions))
        return self._back(
            self.policy.continue_chunk(shared, running, goal=goals, generator=generator, sampler=sampler)
        )

    def _checked(
        self, observation: Mapping[str, Tensor], goal: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Observation and goal as the policy of the mixture expects them."""
        size = self.check_observation(observation)
        shared = self._to_policy(observation, self.policy.spec.observation)
        if goal is None:
            return shared, None
        self.check_goal(goal, size)
        words = {name: value for name, value in goal.items() if name not in self.spec.goal}
        return shared, {**self._to_policy(goal, self.policy.spec.goal), **words}

    def _back(self, chunk: ActionChunk) -> ActionChunk:
        back = self.embodiment.features[ACTION].from_policy
        samples = None if chunk.samples is None else back(chunk.samples)
        return replace(chunk, actions=back(chunk.actions), samples=samples)

    def _to_policy(self, values: Mapping[str, Any], wanted: Mapping[str, Feature]) -> dict[str, Any]:
        """Own features (B, N, ...) as the features `wanted` of the policy of the mixture."""
        given = next((value for value in values.values() if isinstance(value, Tensor)), None)
        if given is None:
            return {}
        steps, device = given.shape[:2], given.device
        shared: dict[str, Any] = {}
        for name, feature in wanted.items():
            if name in self.embodiment.features:
                shared[name] = self.embodiment.features[name].to_policy(values[name].float())
            elif name == STATE_IS_VALID:
                valid = torch.zeros(feature.shape[0], device=device)
                valid[list(self.embodiment.features[STATE].positions)] = 1
                shared[name] = valid.expand(*steps, -1)
            else:
                camera, (height, width, channels) = self.embodiment.cameras[name], feature.shape
                if camera is None:
                    shape = (*steps, channels, height, width)
                    shared[name] = torch.zeros(shape, dtype=torch.uint8, device=device)
                else:
                    shared[name] = _fitted(values[camera[0]], (height, width))
        return shared


def _own_features(shared: Mapping[str, Feature], embodiment: EmbodimentMap) -> dict[str, Feature]:
    """The robot's own features behind the policy's; masks and cameras that it lacks are left out."""
    own: dict[str, Feature] = {}
    for name, feature in shared.items():
        if name in embodiment.features:
            own[name] = embodiment.features[name].feature
        elif (camera := embodiment.cameras.get(name)) is not None:
            own[camera[0]] = feature if 0 in camera[1].shape else camera[1]
    return own


def _fitted(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (B, T, C, H, W) brought to `size`, as training saw them; 0 leaves that side."""
    if 0 in size or tuple(images.shape[-2:]) == size:
        return images
    frames = images.flatten(0, 1).movedim(1, -1).cpu().numpy()
    fitted = torch.from_numpy(np.stack([fit_image(frame, size) for frame in frames])).to(images.device)
    return fitted.movedim(-1, 1).unflatten(0, images.shape[:2])
