"""The whole of deployment without ROS: samples, chunks and commands go in, trajectories and requests come out.

A node only carries messages to and from it. It starts no thread, reads no clock and draws no random number: time
comes with every call, so the same calls give the same trajectories, to the bit, and a log can be replayed
(`robot_deploy.replay`).

Two clocks: `now_ns`, monotonic, times commands; `clock_ns`, that of the message stamps, observations. Calls::

    sample(...)      a sensor message          chunk(...)      the inference's answer
    command(...)     start, stop, pause, ...   track(...)      joints of a twin, or of a person's leader arm
    tick(...)        a command period is over: returns what to send and what to infer
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError
from robot_deploy.action_contract import joint_orders
from robot_deploy.action_stream import build_stream
from robot_deploy.motion.limits import LimitsError, MotionLimits
from robot_deploy.motion.rules import N_RULES, RULE_NAMES, Rule
from robot_deploy.motion.safety_filter import SafetyFilter
from robot_deploy.motion.tracking import Target, TrackedJoints
from robot_deploy.motion.trajectory import CommittedPlan
from robot_deploy.motion.workspace import Workspace
from robot_deploy.observation.rings import Decoder, Reason, SampleRing
from robot_deploy.observation.window import Problem, WindowBuilder
from robot_deploy.runtime_config import ChunkRequest, RuntimeConfig, Tick
from robot_deploy.supervision.states import HUMAN_STATES, POLICY_STATES, SEGMENTS, Event, State, StateMachine
from robot_deploy.supervision.watchdogs import Watchdogs
from robot_policies.execution import build_executor
from robot_policies.spec import PolicySpec


class Runtime:
    """Ties rings, executor, filter and trajectory together; see the module docstring.

    Attributes:
        feedback: Name of the source of measured positions.
        shadows: Whether nothing is ever sent to the robot.
        machine: The states; read it, but change it with `command` only.
        safety: The filter, with its counts.
        late_chunks: Chunks that were no longer wanted when they came.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        spec: PolicySpec,
        limits: MotionLimits,
        *,
        workspace: Workspace | None = None,
        decode: Decoder | None = None,
        encoded: bool = False,
    ) -> None:
        """Check that everything fits, and be idle.

        Args:
            config: Configuration.
            spec: The policy's contract; its action components are named after joints.
            limits: The robot's; its joints are commanded in this order.
            workspace: Where the tool may be.
            decode: From an image source's payload to (H, W, C) uint8.
            encoded: Hand out images as they came; who decodes them says with `unusable` what is wrong.

        Raises:
            ConfigError: A feature, joint or executor does not fit; the message says which.
        """
        self._config, self._limits, self.feedback = config, limits, config.feedback
        self.shadows = config.mode in ("dry_run", "shadow")
        self._period_ns = round(1e9 / config.command_rate)
        step_ns = round(1e9 / spec.fps)
        if step_ns < self._period_ns:
            raise ConfigError(
                f"command_rate {config.command_rate:g} Hz is below the policy's {spec.fps:g} Hz"
            )
        self._rings = {name: SampleRing(source) for name, source in config.sources.items()}
        self._builder = WindowBuilder(spec, self._rings, config.features, decode=decode, encoded=encoded)
        self._feedback = self._rings[config.feedback]
        action_order, self._feedback_order = joint_orders(
            spec.action.names, self._feedback.config.names, limits.names, command=config.command
        )
        self._executor = build_executor(config.executor, spec)
        self.safety = SafetyFilter(
            limits,
            period=self._period_ns * 1e-9,
            rules=config.rules,
            workspace=workspace,
            acceleration_share=config.acceleration_share,
            jerk_share=config.jerk_share,
        )
        self._plan = CommittedPlan(
            self.safety, period_ns=self._period_ns, lead=config.lead, waits=config.waits
        )
        self._stream = build_stream(config, self._executor, limits, order=action_order, step_ns=step_ns)
        self._dogs = Watchdogs(config.watchdogs, period_ns=self._period_ns)
        self.machine = StateMachine()
        self.machine.send(Event.CONFIGURE)
        self.late_chunks = 0
        self._started, self._cut, self._anchor, self._ticket = False, False, False, 0
        self._told_rest = True  # whether what was last sent is where the motion rests
        self._track = TrackedJoints(len(limits), config.watchdogs.feedback_age_ms)
        self._leave_policy()

    def sample(
        self, source: str, payload: object, *, stamp_ns: int, clock_ns: int, names: Sequence[str] = ()
    ) -> Reason | None:
        """Take a sensor sample; see `SampleRing.add`. Return why it was refused, or None."""
        return self._rings[source].add(payload, stamp_ns=stamp_ns, now_ns=clock_ns, names=names)

    def chunk(self, chunk: np.ndarray, *, ticket: int) -> None:
        """Take the inference's answer to a request; a chunk that is no longer wanted is counted and dropped.

        A chunk of the wrong shape, or with NaN or infinity, is a fault.
        """
        if self._open is None or ticket != self._open[0] or self.machine.state not in POLICY_STATES:
            self.late_chunks += 1
            return
        step = self._open[2]
        self._open, self._unbuilt, self._unbuilt_since = None, [], None
        try:
            self._executor.push(chunk, computed_for_step=step)
        except ValueError as error:
            self._fault(f"chunk: {error}")
            return
        self._fresh_chunk = True

    def unusable(self, problems: Sequence[Problem], *, ticket: int) -> None:
        """The inference could not use what it was given, e.g. a black image: as if there had been no window."""
        if self._open is not None and ticket == self._open[0]:
            self._unbuilt, self._unbuilt_since = list(problems), self._unbuilt_since or self._last_ns
            self._open = None

    def infer_failed(self, reason: str) -> None:
        """The inference raised, or its process is gone: a fault."""
        self._fault(f"inference: {reason}")

    def track(self, positions: np.ndarray, *, now_ns: int) -> None:
        """Take the joint positions (n,) of a twin or of a person's leader arm, in the order of the limits."""
        self._track.take(positions, now_ns)

    def publishers(self, count: int) -> None:
        """Say how many publishers the command topic has, this node included."""
        self._dogs.publishers = count

    def command(self, event: Event, reason: str = "") -> State:
        """Carry out what a person or a node asks for.

        Raises:
            TransitionError: Not possible in the present state.
            UserError: A reset while the robot still moves.
        """
        if event is Event.FAULT:
            self._fault(reason or "asked for")
            return self.machine.state
        if event is Event.RESET and self._started and not self._plan.at_rest:
            raise UserError("reset: the robot is still braking; wait until it rests")
        before = self.machine.state
        state = self.machine.send(event, reason)
        if event in (Event.START, Event.RESUME):
            self._executor.reset()
            self._leave_policy()
            self._dogs.forget()
            self._track.forget()
        elif event is Event.RESET:
            self._started = False
        elif event in (Event.PAUSE, Event.STOP):
            self._brake(before)
        elif before is State.PAUSED:  # a person may have moved the robot by hand meanwhile
            self._anchor = True
        return state

    def problems(self, clock_ns: int) -> list[Problem]:
        """What is in the way of a window now, in any state; also that its oldest step is not covered by samples yet."""
        window = self._builder.build(clock_ns)
        return window if isinstance(window, list) else []

    @property
    def measured(self) -> np.ndarray | None:
        """(n,) newest measured positions; None without any, or where velocities are commanded."""
        if self._feedback.newest_ns is None or self._feedback_order is None:
            return None  # velocities: positions are relative to the start
        return np.asarray(self._feedback.newest)[self._feedback_order]

    @property
    def at_rest(self) -> bool:
        """Whether nothing is commanded to move."""
        return not self._started or self._plan.at_rest

    # What comes out.

    def tick(self, now_ns: int, *, clock_ns: int) -> Tick:
        """Compute one command period.

        Args:
            now_ns: Monotonic time [ns].
            clock_ns: The clock of the stamps at the same moment [ns].
        """
        self._broken = np.zeros(N_RULES, dtype=bool)
        wrong = self._dogs.clocks(now_ns, clock_ns)
        if wrong.startswith("clock jump"):
            for ring in self._rings.values():
                ring.clear()
        state = self.machine.state
        if state in (State.UNCONFIGURED, State.IDLE):
            return self._result(None, ())
        forwards = self._started and now_ns >= self._last_ns
        if forwards:
            self._plan.now(now_ns)
        measured, age_ns = self._measured(clock_ns)
        if state is not State.FAULT:
            wrong = wrong or self._dogs.traffic() or self._dogs.feedback(age_ns)
            if state is not State.STOPPING and wrong:
                self._fault(wrong)
        if not self._started and not self._begin(measured, now_ns):
            return self._result(measured, ())
        if not forwards and now_ns < self._last_ns:  # the fault above stands, and the plan waits
            return self._result(measured, ())
        self._last_ns = now_ns
        problems = self._observe(now_ns, clock_ns)
        if self._cut:
            self._plan.cut(self._config.cut_after)
            self._cut = False
        self._extend(measured, now_ns, brake=bool(problems))
        request = self._ask(now_ns, clock_ns) if not problems else None
        problems = problems or self._unbuilt
        if self.machine.state is State.STOPPING and self._plan.at_rest and self._told_rest:
            self.machine.send(Event.AT_REST)
            self._started = False
        return self._result(measured, tuple(problems), request)

    # How.

    def _result(
        self, measured: np.ndarray | None, problems: tuple[Problem, ...], request: ChunkRequest | None = None
    ) -> Tick:
        state = self.machine.state
        trajectory = self._plan.trajectory() if self._started else None
        # A receiver that gets one point at a time must get the last one, too, even if a late tick is past it.
        rests = self._plan.at_rest and self._told_rest
        moves = trajectory is not None and (not rests or state in (State.AUTONOMOUS, *HUMAN_STATES))
        if moves:
            self._told_rest = self._plan.at_rest
        known = measured is not None and self._started
        deviation = float(np.max(np.abs(self._plan.commanded - measured))) if known else float("nan")
        return Tick(
            state=state,
            segment=SEGMENTS.get(state, ""),
            trajectory=trajectory,
            send=moves and self._config.mode in ("live", "tracker"),
            request=request,
            fault=self.machine.fault,
            problems=problems,
            broken=self._broken,
            deviation=deviation,
        )

    def _measured(self, clock_ns: int) -> tuple[np.ndarray | None, int | None]:
        newest = self._feedback.newest_ns
        return (None, None) if newest is None else (self.measured, clock_ns - newest)

    def _begin(self, measured: np.ndarray | None, now_ns: int) -> bool:
        if self._feedback_order is None:
            measured = np.zeros(len(self._limits))
        if measured is None or self.machine.state is State.FAULT:
            return False
        try:
            self._plan.start(measured, now_ns)
        except LimitsError as error:
            self._fault(f"start: {error}")
            return False
        self._started, self._origin_ns, self._last_ns, self._told_rest = True, now_ns, now_ns, True
        self._stream.pause()
        return True

    def _observe(self, now_ns: int, clock_ns: int) -> list[Problem]:
        """Check the policy's sources, and how long they and the plan have been wrong."""
        if self.machine.state not in POLICY_STATES or self._config.mode == "tracker":
            return []
        problems = self._builder.problems(clock_ns)
        self._blind_since = (self._blind_since or now_ns) if problems else None
        told = "; ".join(str(p) for p in problems or self._unbuilt)
        wrong = (
            self._dogs.observation(now_ns, self._blind_since or self._unbuilt_since, told)
            or self._dogs.inference(now_ns, None if self._open is None else self._open[1])
            or self._dogs.stall(now_ns, self._stalled_since)
        )
        if wrong:
            self._fault(wrong)
        elif problems and not self._braking:
            self._cut = True
            self._stream.pause()
        self._braking = bool(problems)
        return problems

    def _extend(self, measured: np.ndarray | None, now_ns: int, *, brake: bool) -> None:
        state, mode = self.machine.state, self._config.mode
        if state is State.STARTING:
            self._try_ready(measured, now_ns)
        elif (mode == "shadow" and self._fresh_chunk and measured is not None) or (
            self._anchor and self._plan.at_rest and self._apart(measured)
        ):
            self._begin(measured, now_ns)
        self._fresh_chunk, self._anchor = False, False
        for _ in range(self._plan.wanted()):
            state = self.machine.state
            target = None
            if not brake and (state in HUMAN_STATES or (state is State.AUTONOMOUS and mode == "tracker")):
                target = self._track.target(now_ns)
            elif not brake and state is State.AUTONOMOUS:
                target = self._next_target(now_ns)
            compared = None
            commands = state is State.AUTONOMOUS or state in HUMAN_STATES
            if commands and measured is not None and mode in ("live", "tracker"):
                # The head is ahead of what is measured by the same motion as of what is commanded now.
                compared = (measured + self._plan.motion[0] - self._plan.commanded)[None]
            step = self._plan.extend(target, compared)
            self._broken |= step.broken[0]
            if step.stopped[0] and state is not State.FAULT:
                self._fault(f"filter: rule '{RULE_NAMES[self.safety.stopped_by[0]]}'")
                return

    def _try_ready(self, measured: np.ndarray | None, now_ns: int) -> None:
        """From STARTING to AUTONOMOUS: at rest, near the robot, and with something to do."""
        if not self._plan.at_rest:
            return
        if self._apart(measured):
            self._begin(measured, now_ns)
            return
        if self._config.mode == "tracker":
            target = self._track.target(now_ns)
            if target is None or target.position is None:
                return
            gap = float(np.max(np.abs(target.position[0] - self._plan.commanded)))
            if not gap <= self._config.start_tolerance:
                self._fault(f"start: the twin is {gap:.3f} away, at most {self._config.start_tolerance:g}")
                return
            self.machine.send(Event.READY)
        elif len(self._executor.planned()):
            self.machine.send(Event.READY)

    def _apart(self, measured: np.ndarray | None) -> bool:
        """Whether the robot is not where it was commanded to be."""
        if measured is None:
            return False
        return bool(np.max(np.abs(measured - self._plan.commanded)) > self._config.start_tolerance)

    def _next_target(self, now_ns: int) -> Target | None:
        """The target of the knot after the head; None brakes, because the plan has no action for it."""
        head_ns = self._plan.head * self._period_ns
        target = self._stream.target(head_ns, self._period_ns, self._plan.motion)
        if self._stream.too_fast:
            self.safety.trip(Rule.VELOCITY)
        self._stalled_since = (self._stalled_since or now_ns) if self._stream.stalled else None
        return target

    def _ask(self, now_ns: int, clock_ns: int) -> ChunkRequest | None:
        if (
            self.machine.state not in POLICY_STATES
            or self._config.mode == "tracker"
            or self._open is not None
            or not self._executor.needs_chunk()
        ):
            return None
        window = self._builder.build(clock_ns)
        if isinstance(window, list):  # the plan goes on meanwhile; the patience is that for observations
            self._unbuilt, self._unbuilt_since = window, self._unbuilt_since or now_ns
            return None
        if not window.frames:  # otherwise its reader says whether it is good
            self._unbuilt, self._unbuilt_since = [], None
        self._ticket += 1
        self._open = (self._ticket, now_ns, self._executor.step)
        return ChunkRequest(ticket=self._ticket, window=window, continuation=self._executor.continuation())

    def _fault(self, reason: str) -> None:
        before = self.machine.state
        if self.machine.can(Event.FAULT):
            self.machine.send(Event.FAULT, reason)
            self._brake(before)

    def _brake(self, before: State) -> None:
        if before not in (State.PAUSED, State.STOPPING, State.FAULT):
            self._cut = True  # at the next tick: a call between two ticks does not say what the time is
        self._leave_policy()

    def _leave_policy(self) -> None:
        self._stream.pause()
        self._open: tuple[int, int, int] | None = None  # ticket, when it was asked for, step
        self._blind_since: int | None = None
        self._unbuilt: list[Problem] = []
        self._unbuilt_since: int | None = None
        self._stalled_since: int | None = None
        self._braking = False
        self._fresh_chunk = False
