"""A policy in a thread of its own, so that a twin keeps its rate while the policy thinks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from robot_deploy.tracking.leading import PolicyError, StepPolicy

_PATIENCE_S = 5.0


class PolicyThread:
    """See the module's docstring; an `AskedPolicy`.

    Resets and questions are carried out in order, one at a time. What was asked before a reset is not answered.

    Args:
        policy: The policy; used by this thread alone.
    """

    def __init__(self, policy: StepPolicy) -> None:
        self._policy = policy
        self._changed = threading.Condition()
        self._reset, self._busy = False, False
        self._question: dict[str, np.ndarray] | None = None
        self._answer: np.ndarray | PolicyError | None = None
        self._episode, self._closed = 0, False
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it has nothing to do."""
        with self._changed:
            return self._question is None and not self._busy and not self._closed

    def reset(self) -> None:
        """Begin an episode."""
        with self._changed:
            self._episode += 1
            self._reset, self._question, self._answer = True, None, None
            self._changed.notify()

    def ask(self, observation: Mapping[str, np.ndarray]) -> None:
        """Give it an observation of the task; of two that wait, the older one is not answered."""
        with self._changed:
            self._question = {name: np.array(value) for name, value in observation.items()}
            self._changed.notify()

    def answer(self) -> np.ndarray | None:
        """Return the action (A,) for what was asked, once; None as long as there is none.

        Raises:
            PolicyError: It raised.
        """
        with self._changed:
            answer, self._answer = self._answer, None
        if isinstance(answer, PolicyError):
            raise answer
        return answer

    def close(self) -> None:
        """End the thread after what it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=_PATIENCE_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._closed or self._reset or self._question is not None)
                if self._closed:
                    return
                begins, question, episode = self._reset, self._question, self._episode
                self._reset, self._question, self._busy = False, None, True
            answer: np.ndarray | PolicyError | None = None
            try:
                if begins:
                    self._policy.reset()
                if question is not None:
                    answer = np.asarray(self._policy.act(question))
            except Exception as error:  # noqa: BLE001  (whatever it is, the twin has to know and to wait)
                answer = PolicyError(f"the policy raised {type(error).__name__}: {error}")
            with self._changed:
                if episode == self._episode and answer is not None:
                    self._answer = answer
