"""From a schema and an opened recording to the columns of an episode: parts assembled, action shifted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.features import ACTION, Feature
from robot_datasets.schemas import EmbodimentSchema, FeatureSource, assemble


@dataclass(frozen=True)
class SchemaColumns:
    """The low-dimensional features of one source: a schema, which of its features, which of its actions.

    Attributes:
        schema: What the source's keys mean.
        action: Name of the action choice.
        names: The schema's features that the source has.
    """

    schema: EmbodimentSchema
    action: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, schema: EmbodimentSchema, action: str, has: Callable[[str], bool]) -> SchemaColumns:
        """Choose an action (empty = the default) and leave out optional features that the source lacks.

        Args:
            schema: The schema.
            action: Name of the action choice; unknown ones are an error.
            has: Whether the source has a key.
        """
        schema.action_source(action)
        kept = [
            name
            for name, source in schema.features.items()
            if not source.optional or all(has(part.source) for part in source.parts)
        ]
        return cls(schema, action or schema.default_action, tuple(kept))

    def sources(self) -> dict[str, FeatureSource]:
        """Return feature -> how it is made, the action included."""
        sources = {name: self.schema.features[name] for name in self.names}
        return sources | {ACTION: self.schema.action_source(self.action)}

    def features(self, width: Callable[[str], int]) -> dict[str, Feature]:
        """Describe the features; `width` returns the components of a key's step where the schema is silent."""
        described = {name: self.schema.feature(name) for name in self.names}
        described[ACTION] = self.schema.action(self.action)
        for name, source in self.sources().items():
            if not source.size:
                described[name] = replace(described[name], shape=(width(source.parts[0].source),))
        return described

    def read(self, read: Callable[[str], np.ndarray]) -> tuple[dict[str, np.ndarray], slice]:
        """Read the columns of one episode.

        Args:
            read: Source key -> (T, ...) numbers; called once for each key.

        Returns:
            Feature -> (T', D) in the schema's types, and which of the T recorded steps they are: those that
            have an action. Frames are cut likewise.

        Raises:
            EpisodeError: A key is missing, arrays differ in length, or no step is left.
        """
        cache: dict[str, np.ndarray] = {}

        def once(key: str) -> np.ndarray:
            if key not in cache:
                cache[key] = read(key)
            return cache[key]

        data = {name: assemble(source.parts, once) for name, source in self.sources().items()}
        lengths = {key: len(values) for key, values in cache.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{key} {n}" for key, n in sorted(lengths.items()))
            raise EpisodeError(f"arrays differ in length: {listed}; expected one row per step")
        n_steps, shift = len(data[ACTION]), self.schema.action_source(self.action).shift
        steps = slice(max(0, -shift), n_steps - max(0, shift))
        if steps.stop <= steps.start:
            raise EpisodeError(
                f"{n_steps} steps leave none with action={self.action}; expected at least {abs(shift) + 1}"
            )
        return {
            name: values[steps.start + shift : steps.stop + shift] if name == ACTION else values[steps]
            for name, values in data.items()
        }, steps

    def n_recorded(self, steps: slice) -> int:
        """Return how many steps were recorded, from the ones that `read` kept of them."""
        return steps.stop + max(0, self.schema.action_source(self.action).shift)
