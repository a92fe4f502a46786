"""The node that runs a policy on a robot: a lifecycle node around `robot_deploy.runtime`.

==================  ==========================================================================================
unconfigured        nothing is loaded, nothing is subscribed
-> inactive         configure: everything is checked, the policy is loaded and warm; nothing is commanded
-> active           activate: observations are fresh, the arm is where it may start; the policy begins
   active           the runtime's states (``~/state``), by the services of `robot_deploy.nodes.person`
-> inactive         deactivate: a controlled stop, and then nothing is commanded
==================  ==========================================================================================

After a fault the node stays active and stands still until ``~/reset`` and ``~/start``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError
from robot_deploy.action_contract import contracted
from robot_deploy.deployment import DeploymentConfig, load_deployment
from robot_deploy.garbage import settle, unsettle
from robot_deploy.inference.client import Answer, InferenceConfig, InferenceProcess
from robot_deploy.motion.limits import LimitsError, MotionLimits, in_order_of
from robot_deploy.nodes.command_loop import CommandLoop
from robot_deploy.nodes.commander import Commander
from robot_deploy.nodes.diagnostics import policy_status
from robot_deploy.nodes.environment import child_environment
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.inputs import Inputs
from robot_deploy.nodes.measures import Trace
from robot_deploy.nodes.outputs import Outputs
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.person import PersonsCommands
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import EVENTS, LATCHED, SENSOR
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.nodes.windows import WindowEvents
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import Tick
from robot_deploy.supervision.states import Event, State
from robot_policies.spec import PolicySpec

PARAMETERS: dict[str, Any] = {
    "deployment": "",
    "mode": "",
    "checkpoint": "",
    "autostart": False,
    "realtime_priority": 0,
    "executor_timeout_ms": 300.0,
    "diagnostics_rate": 2.0,
    "trace": "",
}
ABOUT = {
    "deployment": "a preset or YAML file, see robot_deploy.deployment",
    "mode": "dry_run, shadow, tracker or live; empty takes the deployment's",
    "checkpoint": "checkpoint or run directory; empty takes the deployment's",
    "autostart": "configure and activate without being asked; refused in mode live",
    "realtime_priority": "SCHED_FIFO priority of the command thread; 0 for none",
    "executor_timeout_ms": "the robot stops if callbacks are stuck for so long [ms]",
    "diagnostics_rate": "[Hz]",
    "trace": "file for one JSON object per command period; empty for none",
}
RANGES = {
    "realtime_priority": (0.0, 99.0),
    "executor_timeout_ms": (50.0, 5000.0),
    "diagnostics_rate": (0.1, 20.0),
}
_STOP_TIMEOUT_S = 5.0
_MOVING = (State.STARTING, State.AUTONOMOUS, State.RECOVERY, State.CORRECTION)


class PolicyNode(LifecycleNode):
    """See the module's docstring."""

    def __init__(self, name: str = "policy", **options: Any) -> None:
        """Declare parameters and offer the services; everything else waits for ``configure``."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        self._values = declare_parameters(self, PARAMETERS, about=ABOUT, ranges=RANGES)
        self._sim_time = bool(self.get_parameter("use_sim_time").value)
        self._trace = Trace(self._values["trace"])
        self._state = self.create_publisher(String, "~/state", LATCHED)
        self._segment = self.create_publisher(String, "~/segment", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        self._windows = WindowEvents(self)
        self._person = PersonsCommands(self, self._command, self._may_start, self._fault)
        self._commander: Commander | None = None
        self._inference: InferenceProcess | None = None
        self._inputs: Inputs | None = None
        self._outputs: Outputs | None = None
        self._loop: CommandLoop | None = None
        self._track: Any = None
        self._config: DeploymentConfig | None = None
        self._waits_for_rest = False  # deactivation blocks the executor on purpose
        self.create_timer(0.1, guarded(self, self._watch, self._fault))
        self.create_timer(1.0 / self._values["diagnostics_rate"], guarded(self, self._report, self._fault))
        if self._values["autostart"]:
            self._autostart = self.create_timer(0.2, guarded(self, self._start_by_itself, self._fault))

    # Lifecycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and check everything."""
        del state
        try:
            self._configure()
        except (UserError, OSError) as error:
            self.get_logger().error(f"configure: {' '.join(str(error).split())}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the policy begin, if everything is as it should be."""
        try:
            self._person.require_allowed()
            self._may_start()
            self._command(Event.START, "")
        except UserError as error:
            self.get_logger().error(f"activate: {' '.join(str(error).split())}")
            return TransitionCallbackReturn.FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, and wait until the robot rests."""
        self._come_to_rest()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget everything."""
        del state
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and end the process."""
        del state
        self._come_to_rest()
        self._release()
        self.finished.set()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: stop and forget everything."""
        del state
        self._come_to_rest()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the robot and end the threads and the inference; called when the process ends."""
        self._come_to_rest()
        self._release()
        self._trace.close()

    def clock_ns(self) -> int:
        """The clock of the message stamps now [ns]."""
        if self._sim_time:
            return self.get_clock().now().nanoseconds
        return time.time_ns()  # the same clock without making two objects a time

    # How.

    def _configure(self) -> None:
        p = self._values
        if not p["deployment"]:
            raise ConfigError("parameter 'deployment' is empty; give a preset or a YAML file")
        changes = {key: p[key] for key in ("mode", "checkpoint") if p[key]}
        config = self._config = load_deployment(p["deployment"], **changes)
        robot, limits, runtime_config = config.robot_config(), config.limits(), config.runtime_config()
        spec = self._load_policy(config, limits, runtime_config.executor)
        runtime = Runtime(runtime_config, spec, limits, workspace=robot.make_workspace(), encoded=True)
        self._outputs = Outputs(self, config, limits.names)
        self._commander = Commander(
            runtime, self._outputs.publish, self.clock_ns,
            inference=self._inference, trace=self._trace, checks=self._wrong, changed=self._tell,
            asked=self._windows.keep,
        )  # fmt: skip
        if self._inference is not None:
            images = {n: config.features[n][0].source for n in spec.observation if n in config.features}
            streams = {n: config.streams[s] for n, s in images.items() if config.streams[s].kind == "image"}
            self._inference.serve(
                {n: s.max_bytes for n, s in streams.items()},
                {
                    n: {"source": images[n], "min_contrast": s.min_contrast, "resize": s.resize}
                    for n, s in streams.items()
                },
                self.answered,
            )
        self._inputs = Inputs(
            self, config.streams, self._commander.sample, self._fault, clock_ns=self.clock_ns
        )
        track = guarded(self, self._tracked, self._fault)
        self._track = self.create_subscription(JointState, config.track, track, SENSOR)
        self._person.listen(config)
        period_ns = round(1e9 / runtime_config.command_rate)
        settle()
        self._loop = CommandLoop(
            period_ns, self._commander.tick, self._fault, priority=self._values["realtime_priority"]
        )
        self.get_logger().info(
            f"configured: mode {config.mode}, {runtime_config.command_rate:g} Hz on {', '.join(self._outputs.topics)}"
        )

    def _load_policy(self, config: DeploymentConfig, limits: MotionLimits, executor: Any) -> PolicySpec:
        if config.mode == "tracker":  # the policy runs in the twin
            from robot_datasets.features import Feature

            joints = Feature(dtype="float32", shape=(len(limits),), names=limits.names)
            return PolicySpec(
                observation={}, action=joints, n_obs_steps=1, horizon=1, n_action_steps=1, fps=1.0
            )
        if not config.checkpoint:
            raise ConfigError("checkpoint: empty; give a checkpoint or run directory")
        about = InferenceConfig(
            checkpoint=config.checkpoint, embodiment=config.embodiment, device=config.device, threads=config.threads,
            sampler=config.sampler, seed=config.seed, instruction=config.instruction, executor=executor,
        )  # fmt: skip
        self._inference = InferenceProcess(about, environment=child_environment())
        slowest = max(self._inference.latencies_ms[1:], default=0.0)
        self.get_logger().info(
            f"policy {self._inference.sha256[:12]}: a chunk takes up to {slowest:.1f} ms (first one left out)"
        )
        command = config.runtime_config().command
        return contracted(self._inference.spec, limits.names, config.action_joints, command=command)

    def _release(self) -> None:
        """End what `_configure` began, as far as it came."""
        unsettle()
        if self._loop is not None:
            self._loop.stop()
        if self._inference is not None:
            self._inference.close()
        for part in (self._inputs, self._outputs, self._person):
            if part is not None:
                part.close()
        if self._track is not None:
            self.destroy_subscription(self._track)
        self._commander = self._inference = self._inputs = self._outputs = self._loop = self._track = None
        self._trace.flush()

    def _come_to_rest(self) -> None:
        commander = self._commander
        if commander is None:
            return
        self._waits_for_rest = True
        try:
            with commander.lock:
                if commander.runtime.machine.can(Event.STOP):
                    commander.runtime.command(Event.STOP)
            until = time.monotonic() + _STOP_TIMEOUT_S
            while time.monotonic() < until and not commander.at_rest():
                time.sleep(0.005)
        finally:
            self._waits_for_rest = False

    def _command(self, event: Event, reason: str) -> State:
        if self._commander is None:
            if event is Event.FAULT:
                return State.UNCONFIGURED
            raise UserError("the node is not configured")
        return self._commander.command(event, reason)

    def _may_start(self) -> None:
        """Raise `UserError` unless observations are fresh and the arm is where a policy may start."""
        commander, config = self._commander, self._config
        if commander is None or config is None:
            raise UserError("the node is not configured")
        with commander.lock:
            problems = [] if config.mode == "tracker" else commander.runtime.problems(self.clock_ns())
            if problems:
                raise UserError(f"observations are not fit: {'; '.join(map(str, problems))}")
            measured = commander.runtime.measured
        if measured is None and (config.mode == "tracker" or config.start is not None):
            raise UserError("no joint state yet")
        if measured is None or config.start is None:
            return
        names = commander.runtime.safety.limits.names
        try:
            index = in_order_of(names, tuple(config.start.joints), what="start.joints")
        except LimitsError as error:
            raise UserError(str(error)) from error
        for joint, place in zip(config.start.joints, index, strict=True):
            apart = abs(float(measured[place]) - config.start.joints[joint])
            if not apart <= config.start.tolerance:
                raise UserError(
                    f"'{joint}' is {apart:.3f} from where the policy starts, at most {config.start.tolerance:g}; "
                    "move the arm there first"
                )

    def answered(self, answer: Answer) -> None:
        """Take an answer of the inference, in its own thread."""
        if self._commander is not None:
            self._commander.answered(answer)

    def _fault(self, reason: str) -> None:
        if self._commander is not None:
            self._commander.fault(reason.splitlines()[0])

    def _wrong(self, state: State) -> str:
        """What must hold in the command thread besides the watchdogs."""
        if state not in _MOVING:
            return ""
        silent_ms = 1e-6 * (time.monotonic_ns() - self.heartbeat_ns)
        if silent_ms > self._values["executor_timeout_ms"] and not self._waits_for_rest:
            return f"callbacks are stuck for {silent_ms:.0f} ms"
        return "the dead man's switch is not held" if self._person.released else ""

    def _watch(self) -> None:
        self._trace.flush()
        self._windows.publish()
        if self._outputs is not None and self._commander is not None:
            count = self._outputs.publishers()
            with self._commander.lock:
                self._commander.runtime.publishers(count)

    def _tracked(self, message: JointState) -> None:
        commander = self._commander
        if commander is None:
            return
        try:
            index = in_order_of(
                list(message.name), commander.runtime.safety.limits.names, what="tracked joints"
            )
        except LimitsError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=2.0)
            return
        if len(message.position) != len(message.name):
            return
        positions = [message.position[i] for i in index]
        with commander.lock:
            commander.runtime.track(positions, now_ns=time.monotonic_ns())  # type: ignore[arg-type]

    def _tell(self, tick: Tick) -> None:
        self._state.publish(String(data=tick.state.value))
        self._segment.publish(String(data=tick.segment))
        if tick.fault:
            self.get_logger().error(f"fault: {tick.fault}")
        else:
            self.get_logger().info(f"state: {tick.state.value}")

    def _report(self) -> None:
        array = DiagnosticArray()
        array.header.stamp = from_ns(self.clock_ns())
        array.status = [policy_status(self.get_name(), self._commander, self._inputs, self._loop)]
        self._diagnostics.publish(array)

    def _start_by_itself(self) -> None:
        """Configure, then activate as soon as the observations allow it."""
        from lifecycle_msgs.msg import State as Primary

        if self._values["mode"] == "live" or (self._config is not None and self._config.mode == "live"):
            raise UserError("autostart is refused in mode live; activate the node by hand")
        primary = self._state_machine.current_state[0]
        if primary == Primary.PRIMARY_STATE_UNCONFIGURED:
            if self.trigger_configure() is not TransitionCallbackReturn.SUCCESS:
                self.finished.set()
        elif primary == Primary.PRIMARY_STATE_INACTIVE:
            try:
                self._may_start()
            except UserError:
                return
            self.trigger_activate()
        else:
            self.destroy_timer(self._autostart)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(PolicyNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
