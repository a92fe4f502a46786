"""What a policy node says on ``/diagnostics``."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from robot_deploy.motion.rules import RULE_NAMES
from robot_deploy.nodes.command_loop import CommandLoop
from robot_deploy.nodes.commander import Commander
from robot_deploy.nodes.inputs import Inputs


def policy_status(
    name: str, commander: Commander | None, inputs: Inputs | None, loop: CommandLoop | None
) -> DiagnosticStatus:
    """Return state, rates, delays and counts of a policy node; everything is None before it is configured."""
    status = DiagnosticStatus(name=name, hardware_id="", level=DiagnosticStatus.OK, message="not configured")
    if commander is None or inputs is None or loop is None:
        return status
    tick = commander.last
    values: dict[str, str] = {}
    if tick is not None:
        status.message = tick.fault or "; ".join(map(str, tick.problems)) or tick.state.value
        if tick.fault:
            status.level = DiagnosticStatus.ERROR
        elif tick.problems:
            status.level = DiagnosticStatus.WARN
        values |= {"state": tick.state.value, "segment": tick.segment, "deviation": f"{tick.deviation:.4f}"}
    for source, rate in inputs.rates().items():
        values[f"rate {source} [Hz]"] = f"{rate:.1f}"
    for (source, reason), count in sorted(inputs.refused.items()):
        values[f"refused {source}: {reason}"] = str(count)
    for what, times in commander.times.items():
        for quantile, value in times.quantiles().items():
            values[f"{what} {quantile} [ms]"] = f"{value:.2f}"
    for rule, count in zip(RULE_NAMES, commander.runtime.safety.counts[0].tolist(), strict=True):
        if count:
            values[f"rule {rule}"] = str(count)
    values["late chunks"] = str(commander.runtime.late_chunks)
    values["missed periods"] = str(loop.missed)
    values["real-time priority"] = str(loop.realtime)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return status
