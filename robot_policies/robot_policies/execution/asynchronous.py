"""Inference in the background: a control loop that never waits for its policy, except for the first chunk.

Called once per control step, on a robot from its timer. The executor sees the same calls as in simulation, where
the delay is a number of steps (`robot_policies.evaluation.episode`); here it is whatever inference takes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from robot_policies.execution.executor import ChunkExecutor, Continuation, NoActionError

Window = TypeVar("Window")


class BackgroundInference(Generic[Window]):
    """Feeds an executor from a policy that computes in one other thread.

    Only the calling thread touches the executor, so there is no lock.

    Attributes:
        stalls: How often a step had to wait for a chunk because the plan had run out; an episode's first
            chunk does not count.
    """

    def __init__(
        self, executor: ChunkExecutor, predict: Callable[[Window, Continuation | None], np.ndarray]
    ) -> None:
        """Start the thread.

        Args:
            executor: Any executor; `receding_horizon` waits for every chunk.
            predict: From the last T_o observations and what the chunk has to agree with to a chunk (T_p, A).
                It runs in the other thread, never twice at a time.
        """
        self.stalls = 0
        self._executor = executor
        self._predict = predict
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._pending: tuple[int, Future[np.ndarray]] | None = None

    def next_action(self, window: Window) -> np.ndarray:
        """Return the action (A,) of this step.

        Args:
            window: The last T_o observations; it must not be changed afterwards.

        Raises:
            Exception: What `predict` raised, at the step that takes its result.
        """
        if self._pending is not None and self._pending[1].done():
            self._take()
        if self._pending is None and self._executor.needs_chunk():
            future = self._pool.submit(self._predict, window, self._executor.continuation())
            self._pending = (self._executor.step, future)
        try:
            return self._executor.next_action()
        except NoActionError:
            self.stalls += self._executor.step > 0
            self._take()
            return self._executor.next_action()

    def reset(self) -> None:
        """Start an episode: wait for what is being computed, drop it, and forget all chunks."""
        if self._pending is not None and not self._pending[1].cancel():
            wait([self._pending[1]])
        self._pending = None
        self._executor.reset()

    def close(self) -> None:
        """End the thread, after what it is computing."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> BackgroundInference[Window]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> None:
        """Give the executor the chunk that is under way, as soon as it is there."""
        if self._pending is None:
            raise NoActionError(f"no chunk covers step {self._executor.step}, and none is being computed")
        step, future = self._pending
        self._pending = None
        self._executor.push(future.result(), computed_for_step=step)
