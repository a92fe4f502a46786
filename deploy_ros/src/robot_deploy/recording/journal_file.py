"""A runtime's journal in a file: every call that went into it, so that the same run can be had again, to the bit.

One JSON object per line: ``{"call": name, "arguments": [...], "keywords": {...}}``. Numbers stay numbers; arrays,
bytes, events and problems are objects with one key that begins with ``$``. Reading builds nothing but these, and no
call but the runtime's own inputs is made of it (`robot_deploy.replay.INPUTS`). A file that was cut off is read up to
its last whole line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import UserError, one_line
from robot_deploy.observation.rings import Reason
from robot_deploy.observation.window import Problem
from robot_deploy.replay import INPUTS, Call
from robot_deploy.supervision.states import Event

MAX_LINE = 64 << 20
_DTYPES = ("float64", "float32", "int64", "uint8", "bool")


class JournalError(UserError):
    """A file is no journal, or damaged in the middle."""


def write_journal(path: Path, calls: Iterable[Call]) -> None:
    """Write calls, one after the other; the file is readable at any time."""
    with path.open("w", encoding="utf-8") as file:
        for call in calls:
            file.write(line_of(call) + "\n")


def line_of(call: Call) -> str:
    """One call as a line of text."""
    return json.dumps(
        {
            "call": call.method,
            "arguments": [_packed(value) for value in call.arguments],
            "keywords": {name: _packed(value) for name, value in call.keywords.items()},
        },
        separators=(",", ":"),
    )


def read_journal(path: Path) -> Iterator[Call]:
    """Yield the calls of a file.

    Raises:
        JournalError: A line but the last is damaged, too long, or names what is no input of a runtime.
    """
    with path.open("r", encoding="utf-8", errors="replace") as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if not line.endswith("\n"):
                if len(line) >= MAX_LINE:
                    raise JournalError(
                        f"{path}: line {number} has more than {MAX_LINE} characters; it is no journal"
                    )
                return  # the process was killed while it wrote
            try:
                values = json.loads(line)
                method = values["call"]
                arguments = tuple(_unpacked(value) for value in values["arguments"])
                keywords = {name: _unpacked(value) for name, value in values["keywords"].items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise JournalError(
                    f"{path}: line {number} is no call of a runtime ({one_line(error)})"
                ) from error
            if method not in INPUTS:
                raise JournalError(
                    f"{path}: line {number} calls '{method}'; expected one of {', '.join(INPUTS)}"
                )
            yield Call(method, arguments, keywords)


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"$array": [str(value.dtype), list(value.shape), data]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Event):
        return {"$event": value.value}
    if isinstance(value, Problem):
        return {"$problem": [value.source, value.reason.value, value.detail]}
    if isinstance(value, (list, tuple)):
        return [_packed(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "$array":
        dtype, shape, data = inner
        if dtype not in _DTYPES:
            raise ValueError(f"an array of {dtype}")
        return np.frombuffer(base64.b64decode(data, validate=True), dtype=dtype).reshape(shape).copy()
    if kind == "$bytes":
        return base64.b64decode(inner, validate=True)
    if kind == "$event":
        return Event(inner)
    if kind == "$problem":
        return Problem(source=str(inner[0]), reason=Reason(inner[1]), detail=str(inner[2]))
    raise ValueError(f"'{kind}'")
