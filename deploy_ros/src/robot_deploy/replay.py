"""A journal of everything that went into a runtime, and the same run again.

The journal holds calls, not results: replaying it through a new runtime must give the same ticks, which
`tick_digest` compares to the bit. Only the methods listed here are ever called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_datasets.errors import UserError, unknown_name
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import Tick

INPUTS = ("sample", "chunk", "unusable", "infer_failed", "track", "publishers", "command", "tick")
"""The methods of a runtime that change it."""


@dataclass(frozen=True)
class Call:
    """One call of an input method, with copies of its arrays."""

    method: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


@dataclass
class Journal:
    """A runtime whose input calls are remembered; otherwise it is the runtime.

    Attributes:
        runtime: The runtime.
        calls: What went in, in order.
    """

    runtime: Runtime
    calls: list[Call] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in INPUTS:
            raise AttributeError(name)
        method = getattr(self.runtime, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            kept = tuple(_copy(value) for value in arguments)
            self.calls.append(Call(name, kept, {key: _copy(value) for key, value in keywords.items()}))
            return method(*arguments, **keywords)

        return call


def replay(calls: Sequence[Call], runtime: Runtime) -> list[Tick]:
    """Make the calls again and return the ticks. Errors that a person's command met are met again.

    Raises:
        UserError: A call names no input method.
    """
    ticks: list[Tick] = []
    for call in calls:
        if call.method not in INPUTS:
            raise UserError(unknown_name("runtime input", call.method, INPUTS))
        try:
            result = getattr(runtime, call.method)(*call.arguments, **call.keywords)
        except UserError:
            if call.method != "command":
                raise
            continue
        if isinstance(result, Tick):
            ticks.append(result)
    return ticks


def tick_digest(ticks: Sequence[Tick]) -> str:
    """A checksum of all that ticks say; equal for runs that are equal to the bit."""
    digest = hashlib.sha256()
    for tick in ticks:
        digest.update(f"{tick.state.value} {tick.segment} {tick.send} {tick.fault} {tick.deviation}".encode())
        digest.update(tick.broken.tobytes())
        if tick.request is not None:
            for name in sorted(tick.request.window.arrays):
                digest.update(name.encode() + tick.request.window.arrays[name].tobytes())
            for name in sorted(tick.request.window.frames):
                digest.update(name.encode() + b"".join(tick.request.window.frames[name]))
        if tick.trajectory is not None:
            digest.update(str(tick.trajectory.start_ns).encode())
            for array in (
                tick.trajectory.positions,
                tick.trajectory.velocities,
                tick.trajectory.accelerations,
            ):
                digest.update(array.tobytes())
    return digest.hexdigest()


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
