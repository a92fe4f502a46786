"""Between a runtime and the world, once per command period: tick, send, ask; and what all that took.

One lock keeps the runtime to one thread at a time: the loop's, the executor's (sensor messages, services), or
the inference's. Each holds it for fractions of a millisecond.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_deploy.inference.client import Answer, InferenceProcess
from robot_deploy.nodes.clock_offset import ClockOffset
from robot_deploy.nodes.measures import Times, Trace
from robot_deploy.observation.rings import Reason
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import ChunkRequest, Tick
from robot_deploy.supervision.states import Event, State

MEASURES = (
    "period",
    "tick",
    "publish",
    "state_age",
    "predict",
    "handover",
    "overhead",
    "observation_to_command",
)
_JUMP_NS = 5_000_000
_IDLE_STATES = (State.UNCONFIGURED, State.IDLE)


class Commander:
    """Owns the runtime while a node is configured.

    Attributes:
        lock: Held by who touches the runtime.
        runtime: The runtime.
        times: Durations by name (`MEASURES`) [ms]. ``overhead`` is what a chunk cost beyond its prediction: the
            tick that asked, the way there and back, and the tick that first used it.
        last: Result of the last tick.
    """

    def __init__(
        self,
        runtime: Runtime,
        publish: Callable[..., None],
        clock_ns: Callable[[], int],
        *,
        inference: InferenceProcess | None,
        trace: Trace,
        checks: Callable[[State], str],
        changed: Callable[[Tick], None],
        asked: Callable[[ChunkRequest], None],
    ) -> None:
        """Wire it.

        Args:
            runtime: The runtime.
            publish: ``publish(trajectory, now_ns=, clock_ns=)``.
            clock_ns: The clock of the stamps [ns].
            inference: Where chunks come from; None where none are needed.
            trace: Takes one row per tick.
            checks: What else must hold in a state, besides the runtime's watchdogs; returns what is wrong, or "".
            changed: Told a tick after which state or segment are others than before.
            asked: Told what the policy is asked, in the command thread: it must be quick.
        """
        self.runtime, self._publish, self._clock_ns = runtime, publish, clock_ns
        self._inference, self._trace, self._checks, self._changed = inference, trace, checks, changed
        self._told_request = asked
        self._offset_ns = ClockOffset(clock_ns)
        self._command_offset_ns = self._offset_ns()
        self.lock = threading.RLock()
        self.times = {name: Times() for name in MEASURES}
        self.last: Tick | None = None
        self._told: tuple[Any, ...] = ()
        self._last_ns: int | None = None
        self._newest_ns: int | None = None  # stamp of the newest feedback
        self._busy = False
        self._waiting: ChunkRequest | None = None
        self._asked: dict[int, tuple[int, float]] = {}  # ticket -> time of its window [ns], its tick [ms]
        self._landed: tuple[int, float] | None = None  # of a chunk not yet commanded: the same

    def sample(self, source: str, payload: object, **about: Any) -> Reason | None:
        """Take a sensor sample; see `Runtime.sample`."""
        with self.lock:
            reason = self.runtime.sample(source, payload, **about)
            if reason is None and source == self.runtime.feedback:
                self._newest_ns = about["stamp_ns"]
            return reason

    def command(self, event: Event, reason: str = "") -> State:
        """Carry out an event; see `Runtime.command`."""
        with self.lock:
            return self.runtime.command(event, reason)

    def fault(self, reason: str) -> None:
        """Stop the robot and latch."""
        with self.lock:
            self.runtime.command(Event.FAULT, reason)

    def at_rest(self) -> bool:
        """Whether nothing moves and nothing is about to."""
        with self.lock:
            return self.runtime.at_rest and self.runtime.machine.state in (
                *_IDLE_STATES,
                State.FAULT,
                State.PAUSED,
            )

    def tick(self, now_ns: int) -> None:
        """One command period."""
        offset_ns = self._offset_ns()
        clock_ns = now_ns + offset_ns
        # A clock that jumped while the arm moves must not date its stop: an hour ahead, the controller would take an
        # hour to get there. Until the robot has rested and been reset, commands keep the clock they began with.
        if self.runtime.machine.state in _IDLE_STATES or abs(offset_ns - self._command_offset_ns) < _JUMP_NS:
            self._command_offset_ns = offset_ns
        began = time.perf_counter()
        with self.lock:
            wrong = self._checks(self.runtime.machine.state)
            if wrong:
                self.runtime.command(Event.FAULT, wrong)
            tick = self.runtime.tick(now_ns, clock_ns=clock_ns)
            landed, self._landed = self._landed, None
        ticked = time.perf_counter()
        moving = tick.trajectory is not None and (tick.send or self.runtime.shadows)
        if moving:
            self._publish(tick.trajectory, now_ns=now_ns, clock_ns=now_ns + self._command_offset_ns)
        done = time.perf_counter()
        if tick.request is not None:
            self._asked[tick.request.ticket] = (tick.request.window.time_ns, 1e3 * (ticked - began))
            self._ask(tick.request)
            self._told_request(tick.request)
        self.last = tick
        self._measure(tick, now_ns, clock_ns, 1e3 * (ticked - began), 1e3 * (done - ticked), landed, moving)
        told = (tick.state, tick.segment, tick.fault)
        if told != self._told:
            self._told = told
            self._changed(tick)

    def answered(self, answer: Answer) -> None:
        """Take what the inference said."""
        with self.lock:
            self._busy = False
            waiting, self._waiting = self._waiting, None
            if answer.failed:
                self.runtime.infer_failed(answer.failed)
            elif answer.problems:
                self.runtime.unusable(answer.problems, ticket=answer.ticket)
            elif answer.chunk is not None:
                self._land(answer)
                self.runtime.chunk(answer.chunk, ticket=answer.ticket)
        if waiting is not None:
            self._ask(waiting)

    def _land(self, answer: Answer) -> None:
        handover = 1e-6 * (time.monotonic_ns() - answer.asked_ns) - answer.predict_ms
        self.times["predict"].add(answer.predict_ms)
        self.times["handover"].add(handover)
        window_ns, tick_ms = self._asked.pop(answer.ticket, (0, 0.0))
        self._asked.clear()  # older ones will never be answered
        self._landed = (window_ns, tick_ms + handover)

    def _ask(self, request: ChunkRequest) -> None:
        assert self._inference is not None
        if self._busy:  # with one that is no longer wanted: both sides use the same memory, so wait for it
            self._waiting = request
            return
        self._busy = True
        try:
            self._inference.ask(request)
        except UserError as error:
            with self.lock:
                self._busy = False
                self.runtime.infer_failed(str(error))

    def _measure(
        self,
        tick: Tick,
        now_ns: int,
        clock_ns: int,
        tick_ms: float,
        publish_ms: float,
        landed: tuple[int, float] | None,
        moving: bool,
    ) -> None:
        row: dict[str, Any] = {
            "t": now_ns,
            "state": tick.state.value,
            "tick_ms": tick_ms,
            "publish_ms": publish_ms,
        }
        if tick.state not in _IDLE_STATES:
            self.times["tick"].add(tick_ms)
            if self._last_ns is not None:
                self.times["period"].add(1e-6 * (now_ns - self._last_ns))
            if moving:
                self.times["publish"].add(publish_ms)
                if self._newest_ns is not None:
                    self.times["state_age"].add(1e-6 * (clock_ns - self._newest_ns))
            if landed is not None:
                window_ns, spent = landed
                self.times["overhead"].add(spent + tick_ms + publish_ms)
                self.times["observation_to_command"].add(1e-6 * (self._clock_ns() - window_ns))
        self._last_ns = now_ns if tick.state not in _IDLE_STATES else None
        if np.isfinite(tick.deviation):
            row["deviation"] = round(tick.deviation, 4)
        if tick.fault:
            row["fault"] = tick.fault
        if tick.problems:
            row["problems"] = [str(problem) for problem in tick.problems]
        self._trace.add(**row)
