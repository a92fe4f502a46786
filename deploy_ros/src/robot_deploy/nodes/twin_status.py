"""What a twin's node says on ``/diagnostics``: one status for the twin, one for each body."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from robot_deploy.tracking.cell_listener import CellListener
from robot_deploy.tracking.twin_session import TwinSession
from robot_sim.twin.loop import LoopTiming
from robot_sim.twin.twin import BodyReport

_LEVELS = {"tracking": DiagnosticStatus.OK, "waiting": DiagnosticStatus.WARN, "blind": DiagnosticStatus.WARN}


def session_state(session: TwinSession) -> str:
    """Return ``mirroring``, ``leading``, or ``holding``: the policy leads and waits."""
    if not session.leading.leads:
        return "mirroring"
    return "holding" if session.held else "leading"


def twin_statuses(
    name: str, session: TwinSession, listener: CellListener, timing: LoopTiming, *, rate: float
) -> list[DiagnosticStatus]:
    """Return the statuses of a twin's node.

    Args:
        name: Of the node.
        session: The twin.
        listener: What it hears.
        timing: Of its loop.
        rate: Ticks per second since the last time [Hz].
    """
    report = session.report
    status = DiagnosticStatus(name=name, hardware_id=session.cell.name, level=DiagnosticStatus.OK)
    why = session.held or session.ended
    status.message = session_state(session) + (f": {why}" if why else "")
    if report is None or report.lost or why:
        status.level = DiagnosticStatus.WARN
    values = {
        "policy steps": str(session.leading.steps),
        "late policy ticks": str(session.leading.late),
        "delay of the arm [ms]": f"{session.leading.twin.lag_ns * 1e-6:.0f}",
        "rate [Hz]": f"{rate:.1f}",
        **{key: str(value) for key, value in timing.to_dict().items()},
    }
    if report is not None:
        values["age of the joint states [s]"] = f"{report.joint_age:.3f}"
        values |= {f"twin refused: {reason}": str(count) for reason, count in report.refused.items()}
    for (source, reason), count in sorted(listener.refused.items()):
        values[f"refused {source}: {reason}"] = str(count)
    if listener.derived:
        values["joint states without velocities"] = str(listener.derived)
    values |= {f"received {source}": str(count) for source, count in sorted(listener.received.items())}
    status.values = _pairs(values)
    bodies = {} if report is None else report.bodies
    return [status, *(_of_body(name, body, said, session) for body, said in bodies.items())]


def _of_body(name: str, body: str, said: BodyReport, session: TwinSession) -> DiagnosticStatus:
    spread = np.sqrt(np.maximum(np.diag(said.covariance), 0.0))
    degrees = 180.0 / np.pi
    values = {
        "position error [mm]": f"{1e3 * np.linalg.norm(said.error[:3]):.2f}",
        "position error std [mm]": f"{1e3 * np.linalg.norm(spread[:3]):.2f}",
        "angle error [deg]": f"{degrees * np.linalg.norm(said.error[3:]):.2f}",
        "angle error std [deg]": f"{degrees * np.linalg.norm(spread[3:]):.2f}",
        "age of the observation [s]": f"{said.age:.3f}",
        "outliers": str(said.outliers),
        "times lost": str(session.losses[body]),
    }
    level = _LEVELS.get(said.status, DiagnosticStatus.ERROR)
    return DiagnosticStatus(
        name=f"{name}: {body}", hardware_id=session.cell.name, level=level, message=said.status, values=_pairs(values)
    )  # fmt: skip


def _pairs(values: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value) for key, value in values.items()]
