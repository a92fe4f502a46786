"""What rules look at: a store as columns with their usual ranges, and one episode of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from robot_datasets.features import ACTION, ENVIRONMENT_STATE, STATE, Feature, is_image
from robot_datasets.store import EpisodeStore
from robot_datasets.store.images import ImageColumn

Floats = NDArray[np.floating]

SAMPLED_EPISODES = 200
"""Rules about the whole store that go through episodes take so many, evenly spread."""
MOVES = 1e-3
"""A component moves in a step if it changes by more than this share of its usual range."""

_NOT_SIGNALS = ("next.", "timestamp", "observation.timestamp", "observation.simulator_state")


@dataclass(frozen=True)
class Signal:
    """A low-dimensional feature of real numbers, flattened to (T, D), and the usual range of its components.

    Attributes:
        name: Feature name.
        feature: The feature.
        values: All steps of the store.
        low: 1 % quantile of each component over the store, (D,).
        high: 99 % quantile.
    """

    name: str
    feature: Feature
    values: Floats
    low: Floats
    high: Floats

    @property
    def span(self) -> Floats:
        """Usual range of each component, (D,)."""
        return self.high - self.low

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Components that are not the same all the time, (D,)."""
        return self.span > 0

    def label(self, component: int) -> str:
        """Name of a component."""
        return self.feature.names[component] if self.feature.names else f"component {component}"

    def unit(self, component: int) -> str:
        """Unit of a component; empty if unknown."""
        units = self.feature.units
        return units[component] if len(units) > 1 else (units[0] if units else "")


class StoreContext:
    """A store as rules see it; columns are loaded once."""

    def __init__(self, store: EpisodeStore) -> None:
        self.store = store
        self.fps = store.fps
        self.starts = store.episode_starts
        self.ends = store.episode_ends
        self._change_scales: dict[str, Floats] = {}

    @cached_property
    def signals(self) -> Mapping[str, Signal]:
        """Features of real numbers by name; times, rewards and the like are left out."""
        signals = {}
        for name in self.store.spec.low_dim:
            feature = self.store.features[name]
            if feature.dtype not in ("float32", "float64") or name.startswith(_NOT_SIGNALS):
                continue
            values = self.store.column(name)
            if not np.isfinite(values).all():  # a fault of its own; no other rule could say anything sensible
                continue
            stats = self.store.stats(name)
            signals[name] = Signal(
                name, feature, values.reshape(len(values), -1), stats.q01.reshape(-1), stats.q99.reshape(-1)
            )
        return signals

    @cached_property
    def observations(self) -> list[Signal]:
        """Measurements of the robot itself: not the action, not the objects around it, no counters and switches."""
        return [
            signal
            for name, signal in self.signals.items()
            if name not in (ACTION, ENVIRONMENT_STATE) and (signal.values != np.rint(signal.values)).any()
        ]

    def change_scale(self, signal: Signal) -> Floats:
        """Usual size of a change from one step to the next, (D,): the 95 % quantile over sampled episodes."""
        if signal.name not in self._change_scales:
            rows = [signal.values[self.starts[e] : self.ends[e]] for e in self.sampled_episodes()]
            changes = np.concatenate([np.abs(np.diff(part.astype(np.float64), axis=0)) for part in rows])
            width = signal.values.shape[1]
            self._change_scales[signal.name] = (
                np.quantile(changes, 0.95, axis=0) if len(changes) else np.zeros(width)
            )
        return self._change_scales[signal.name]

    def sampled_episodes(self) -> list[int]:
        """Return up to `SAMPLED_EPISODES` episodes, evenly spread."""
        n = self.store.n_episodes
        return np.unique(np.linspace(0, n - 1, min(n, SAMPLED_EPISODES)).astype(int)).tolist()

    def episode(self, number: int) -> EpisodeContext:
        """Return one episode."""
        return EpisodeContext(self, number)


class EpisodeContext:
    """One episode as rules see it."""

    def __init__(self, parent: StoreContext, number: int) -> None:
        self.parent = parent
        self.number = number
        self.start, self.end = int(parent.starts[number]), int(parent.ends[number])
        self.n_steps = self.end - self.start
        self.fps = parent.fps

    @property
    def source_id(self) -> str:
        """Name of the episode in its source."""
        return self.parent.store.episodes["source_id"][self.number]

    def rows(self, signal: Signal) -> Floats:
        """The episode's part of a signal, (T, D) float64."""
        return signal.values[self.start : self.end].astype(np.float64)

    def images(self) -> Iterator[tuple[str, ImageColumn]]:
        """Image features and their frames."""
        return ((n, self.parent.store.images(n)) for n in self.parent.store.features if is_image(n))

    def reference(self, name: str) -> Signal | None:
        """The signal that tells whether the robot is at work: its state; for the state itself the action."""
        return self.parent.signals.get(STATE if name != STATE else ACTION)

    @cached_property
    def idle(self) -> NDArray[np.bool_]:
        """Steps after which neither the robot nor its action change, (T-1,); none if nothing of it is measured."""
        signals = self.parent.signals
        measured = [signals[STATE]] if STATE in signals else self.parent.observations
        measured = [signal for signal in measured if signal.varies.any()]
        if not measured:
            return np.zeros(max(0, self.n_steps - 1), dtype=bool)
        commands = [signals[ACTION]] if ACTION in signals else []
        return ~np.any([self.moves(signal) for signal in (*measured, *commands)], axis=0)

    def moves(self, signal: Signal, share: float = MOVES) -> NDArray[np.bool_]:
        """Whether some component changes by more than `share` of its usual range from each step to the next, (T-1,)."""
        if not signal.varies.any():
            return np.zeros(max(0, self.n_steps - 1), dtype=bool)
        change = np.abs(np.diff(self.rows(signal), axis=0))[:, signal.varies]
        return np.asarray((change > share * signal.span[signal.varies]).any(axis=1))

    def travel(self, signal: Signal, start: int = 0, end: int | None = None) -> float:
        """Largest range of a component within steps [start, end), in usual ranges."""
        rows = self.rows(signal)[start:end]
        if not len(rows) or not signal.varies.any():
            return 0.0
        return float((np.ptp(rows, axis=0)[signal.varies] / signal.span[signal.varies]).max())


def longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """Return (first, one past the last) of the longest run of True; (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])
