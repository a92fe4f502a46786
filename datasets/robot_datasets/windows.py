"""Time windows over episodes: which steps a training sample reads, and whole batches of them at once.

With T_o = ``n_obs_steps``, T_p = ``horizon``, T_a = ``n_action_steps``, a window is named by its "now", the
last observation. Here T_o = 2, T_p = 8, T_a = 4, and now is step 3 of an episode of 8 steps::

    step of the episode     0   1   2   3   4   5   6   7 | beyond the end
    window index                    0   1   2   3   4   5 | 6   7
    observation (T_o)               o   o                 |
    action (T_p)                    a   a   a   a   a   a | a*  a*       a* repeats step 7: action_is_pad
    executed (T_a)                      x   x   x   x     |

Windows may reach past the edges of an episode, where the edge step is repeated: ``pad_before = T_o - 1`` steps
before the start (so that the first step of an episode can be "now") and ``pad_after = T_a - 1`` after the end
(so that the last full execution window begins before it). With an episode of L steps, now runs from 0 to
L - T_p + T_o + T_a - 2, both included; an episode too short for that has no window. This is the rule of the
original Diffusion Policy code, which makes sample counts comparable.

Nothing is looped over in Python: a batch is index arithmetic on (B, T_p) arrays and one gather per feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, Feature, is_image
from robot_datasets.goals import GOAL_PREFIX, TASK, GoalSpec, goal_steps

FUTURE_PREFIX = "future."
"""``batch["future." + feature]`` is (B, K, ...), what the episode shows K times later."""

Batch = dict[str, Any]
Int64 = NDArray[np.int64]


class ImageSource(Protocol):
    """One camera of a store."""

    def decode(self, indices: Int64) -> NDArray[Any]:
        """Return frames (N, H, W, C) of the given steps."""
        ...


class WindowSource(Protocol):
    """What windows need of an `EpisodeStore`."""

    @property
    def features(self) -> Mapping[str, Feature]:
        """Features by name."""
        ...

    @property
    def episode_ends(self) -> Int64:
        """One past the last step of each episode, (E,)."""
        ...

    @property
    def episodes(self) -> Mapping[str, Any]:
        """Columns of the episode table."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """Instructions, by task index."""
        ...

    def column(self, name: str) -> NDArray[Any]:
        """A low-dimensional feature, (T, ...), in memory."""
        ...

    def images(self, name: str) -> ImageSource:
        """An image feature."""
        ...


@dataclass(frozen=True)
class WindowSpec:
    """The three horizons of a window [steps]; see the drawing above."""

    n_obs_steps: int
    horizon: int
    n_action_steps: int

    def __post_init__(self) -> None:
        if min(self.n_obs_steps, self.horizon, self.n_action_steps) < 1:
            raise DatasetError(
                f"window horizons must be >= 1, got {self}; correct the 'window' configuration"
            )
        room = self.horizon - self.n_obs_steps + 1
        if self.n_action_steps > room:
            raise DatasetError(
                f"n_action_steps={self.n_action_steps} exceeds the {room} predicted steps from now on (horizon="
                f"{self.horizon}, n_obs_steps={self.n_obs_steps}); lower it or raise the horizon"
            )

    @property
    def pad_before(self) -> int:
        """Steps a window may reach before its episode."""
        return self.n_obs_steps - 1

    @property
    def pad_after(self) -> int:
        """Steps a window may reach beyond its episode."""
        return self.n_action_steps - 1

    def n_windows(self, length: Int64) -> Int64:
        """Number of windows of episodes of `length` steps (0 where an episode is too short)."""
        return np.maximum(0, length - self.horizon + self.pad_before + self.pad_after + 1)


class WindowIndex:
    """Maps window numbers to steps of the store, for all windows of chosen episodes, in order of time.

    Memory is a few numbers per episode, not per window.
    """

    def __init__(self, episode_ends: Int64, spec: WindowSpec, episodes: Int64) -> None:
        ends = np.asarray(episode_ends, dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        counts = spec.n_windows(ends[episodes] - starts[episodes])
        kept = counts > 0
        self.spec = spec
        self.n_too_short = int((~kept).sum())
        self._episodes = np.asarray(episodes, dtype=np.int64)[kept]
        self._first = starts[self._episodes]
        self._last = ends[self._episodes] - 1
        self._ends = np.cumsum(counts[kept])
        # A window's number minus this is its offset from the first step of its episode.
        self._base = self._ends - counts[kept]
        self._offsets = np.arange(spec.horizon, dtype=np.int64) - spec.pad_before

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def episode(self, windows: Int64) -> Int64:
        """Episode number in the store of each window, (B,)."""
        return self._episodes[self._rows(windows)]

    def steps(self, windows: Int64) -> tuple[Int64, NDArray[np.bool_]]:
        """Steps in the store that each window reads, (B, T_p), and where the edge is repeated, (B, T_p)."""
        now, last = self.now_and_last(windows)
        wanted = now[:, None] + self._offsets
        steps = np.clip(wanted, self._first[self._rows(windows), None], last[:, None])
        return steps, steps != wanted

    def now_and_last(self, windows: Int64) -> tuple[Int64, Int64]:
        """Step in the store of each window's "now", and the last one of its episode; each (B,)."""
        rows = self._rows(windows)
        return self._first[rows] + windows - self._base[rows], self._last[rows]

    def _rows(self, windows: Int64) -> Int64:
        if len(windows) and (windows.min() < 0 or windows.max() >= len(self)):
            raise IndexError(
                f"window numbers must lie in [0, {len(self)}), got {windows.min()}..{windows.max()}"
            )
        return np.searchsorted(self._ends, windows, side="right")


class WindowDataset:
    """All windows of the chosen episodes of one store; gathers whole batches.

    Args:
        store: An `EpisodeStore`, or anything with its reading interface.
        spec: Horizons.
        observation: Names of the observation features to read.
        episodes: Episode numbers to use, ``None`` for all.
        with_task: Also return ``batch["task"]``, the instruction of each window.
        goals: Also return ``batch["goal.<feature>"]``, what the episode reaches later.
        future: Also return ``batch["future.<camera>"]`` (B, K, C, H, W), the frames so many steps after now, and
            ``batch["future.<camera>_is_pad"]`` (B, K), True where that is beyond the episode's end and its last
            frame stands in.
        without_actions: Read no actions but zeros (B, T_p, A) of so many components A: the store is a video.

    Raises:
        DatasetError: A feature is missing, or no episode is long enough for a window.
    """

    def __init__(
        self,
        store: WindowSource,
        spec: WindowSpec,
        *,
        observation: Sequence[str],
        episodes: Int64 | None = None,
        with_task: bool = False,
        goals: GoalSpec | None = None,
        future: Mapping[str, Sequence[int]] | None = None,
        without_actions: int | None = None,
    ) -> None:
        goal_features = () if goals is None else goals.features
        self._future = {name: _offsets(name, offsets) for name, offsets in (future or {}).items()}
        acted = (ACTION,) if without_actions is None else ()
        for name in (*observation, *goal_features, *self._future, *acted):
            if name not in store.features:
                raise DatasetError(unknown_name("feature", name, store.features))
        ends = np.asarray(store.episode_ends, dtype=np.int64)
        if len(ends) == 0:
            raise DatasetError(
                "the store has no episodes; expected at least one; convert or generate data first"
            )
        chosen = np.arange(len(ends)) if episodes is None else np.asarray(episodes, dtype=np.int64)
        self.spec = spec
        self.index = WindowIndex(ends, spec, chosen)
        if len(self.index) == 0:
            longest = int(np.diff(ends, prepend=0)[chosen].max()) if len(chosen) else 0
            raise DatasetError(
                f"none of the {len(chosen)} episodes is long enough for a window: the longest has {longest} steps, "
                f"horizon={spec.horizon} needs {spec.horizon - spec.pad_before - spec.pad_after}; "
                f"use a shorter horizon or longer episodes"
            )
        read = dict.fromkeys((*observation, *goal_features, *self._future))
        self._observation = tuple(observation)
        self._goals = goals
        self._lowdim = {name: _float32(store.column(name)) for name in read if not is_image(name)}
        self._images = {name: store.images(name) for name in read if is_image(name)}
        self._action = (
            _float32(store.column(ACTION))
            if without_actions is None
            else np.broadcast_to(np.zeros((1, without_actions), np.float32), (int(ends[-1]), without_actions))
        )
        self._tasks = _task_of_episode(store) if with_task else None

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, windows: Sequence[int] | Int64, draws: Int64 | None = None) -> Batch:
        """Return the batch of the given windows; see `robot_policies.policy` for its layout.

        `draws` (B,) tells how often each window was read before, which changes its goal; by default never.

        Images (B, T_o, C, H, W) are a view of (B, T_o, H, W, C) memory, so no transposition is paid here and
        convolutions receive the channels-last layout that they are fastest with.
        """
        numbers = np.asarray(windows, dtype=np.int64)
        steps, is_pad = self.index.steps(numbers)
        seen = steps[:, : self.spec.n_obs_steps]
        batch: Batch = {name: self._gather(name, seen) for name in self._observation}
        batch[ACTION] = self._action.take(steps, axis=0)
        batch["action_is_pad"] = is_pad
        if self._tasks is not None:
            batch[TASK] = [self._tasks[episode] for episode in self.index.episode(numbers)]
        if self._goals is not None:
            batch |= self._goal(self._goals, numbers, np.zeros_like(numbers) if draws is None else draws)
        for name, offsets in self._future.items():
            now, last = self.index.now_and_last(numbers)
            wanted = now[:, None] + offsets
            reached = np.minimum(wanted, last[:, None])
            batch[FUTURE_PREFIX + name] = self._gather(name, reached)
            batch[f"{FUTURE_PREFIX}{name}_is_pad"] = reached != wanted
        return batch

    def _goal(self, spec: GoalSpec, windows: Int64, draws: Int64) -> Batch:
        now, last = self.index.now_and_last(windows)
        steps = goal_steps(spec, windows, draws, now=now, last=last)
        return {GOAL_PREFIX + name: self._gather(name, steps) for name in spec.features}

    def _gather(self, name: str, steps: Int64) -> NDArray[Any]:
        """A feature at `steps` (B, N): (B, N, ...), images (B, N, C, H, W)."""
        if name in self._images:
            return _gather_images(self._images[name], steps)
        return self._lowdim[name].take(steps, axis=0)


def check_finite(store: WindowSource, names: Sequence[str], episodes: Int64) -> None:
    """Raise `DatasetError` naming the first NaN or infinity in low-dimensional features of `episodes`."""
    ends = np.asarray(store.episode_ends, dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    for name in names:
        if is_image(name):
            continue
        column = store.column(name)
        finite = np.isfinite(column).reshape(len(column), -1)
        bad = np.asarray(~finite.all(axis=1))
        if not bad.any():
            continue
        for episode in np.asarray(episodes):
            within = np.flatnonzero(bad[starts[episode] : ends[episode]])
            if len(within):
                raise DatasetError(
                    f"'{name}' is not finite at step {within[0]} of episode {episode} ({len(within)} such steps "
                    f"there); expected numbers; repair the source and convert again, or drop the episode"
                )


def _offsets(name: str, offsets: Sequence[int]) -> Int64:
    """Steps after now, (K,)."""
    if not is_image(name):
        raise DatasetError(f"future: '{name}' is no camera; only frames can be read ahead")
    steps = np.asarray(offsets)
    if steps.ndim != 1 or len(steps) == 0 or steps.dtype.kind != "i" or (np.diff(steps, prepend=0) < 1).any():
        raise DatasetError(
            f"future: '{name}' has offsets {list(offsets)}; expected growing steps after now, from 1"
        )
    return steps.astype(np.int64)


def _gather_images(images: ImageSource, steps: Int64) -> NDArray[Any]:
    """Frames (B, T_o, C, H, W) of `steps` (B, T_o); a frame wanted twice is decoded once, unless it is raw."""
    unique, inverse = np.unique(steps, return_inverse=True)
    if len(unique) == steps.size or getattr(images, "encoding", "") == "raw":
        frames = np.asarray(images.decode(steps.ravel()))
        gathered = frames.reshape(*steps.shape, *frames.shape[1:])
    else:
        frames = np.asarray(images.decode(unique))
        gathered = frames[inverse.reshape(steps.shape)]
    return np.moveaxis(gathered, -1, -3)


def _float32(column: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(column, dtype=np.float32)


def _task_of_episode(store: WindowSource) -> list[str]:
    column = store.episodes.get("task_index")
    if column is None:
        raise DatasetError("the store has no column 'task_index' in its episode table; expected instructions")
    return [store.tasks[int(i)] for i in column]
