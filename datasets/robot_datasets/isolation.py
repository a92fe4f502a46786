"""Calls in a helper process, for libraries that a damaged file can crash or hang (HDF5 does both).

    facts = call_isolated(look_at_file, path)          # `look_at_file` is a function of a module

The helper is started once and kept; if a call kills it, the next one gets a new helper. Functions, arguments and
results travel between two processes of the same program, so they must be picklable.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any, ParamSpec, TypeVar

from robot_datasets.errors import DatasetError, UserError

P = ParamSpec("P")
T = TypeVar("T")

_SECONDS = 120.0
_START_SECONDS = 120.0
_SERVE = "import sys; from robot_datasets.isolation import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"


class IsolationError(DatasetError):
    """The call crashed the helper process, or took too long."""


def call_isolated(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``function(*args, **kwargs)``, computed in the helper process.

    Raises:
        UserError: What the function raised.
        IsolationError: The process died (the library crashed), or gave no answer within two minutes.
        RuntimeError: The function raised anything else, whose traceback this carries.
    """
    return _call(_SECONDS, function, args, kwargs)


def call_isolated_within(seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`call_isolated` with another patience [s], up to two minutes."""
    return _call(seconds, function, args, kwargs)


def _call(seconds: float, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    with _LOCK:
        helper = _the_helper()
        try:
            succeeded, answer = helper.ask((function, args, kwargs), seconds)
        except IsolationError:
            _forget_helper()
            raise
    if succeeded:
        return answer
    if isinstance(answer, UserError):
        raise answer
    raise RuntimeError(f"in the helper process:\n{answer}")


def serve(descriptor: int, limit: int) -> None:
    """Run in the helper: answer calls until the main process closes the pipe or is gone.

    A library that hangs holds the interpreter, so after `limit` seconds of one call a signal ends the process,
    whether or not there is still a main process that would.
    """
    connection = Connection(descriptor)
    connection.send((True, None))
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, args, kwargs = connection.recv()
            signal.alarm(limit)
            try:
                answer = (True, function(*args, **kwargs))
            except UserError as error:
                answer = (False, error)
            except Exception:  # noqa: BLE001  goes to the main process, which raises it
                answer = (False, traceback.format_exc())
            signal.alarm(0)
            connection.send(answer)


class _Helper:
    """The main process's view of the helper."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._connection, theirs = Pipe()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(  # not multiprocessing, which would import the user's script again
            [sys.executable, "-c", _SERVE, str(theirs.fileno()), str(math.ceil(_SECONDS) + 2)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the main process
        )
        theirs.close()
        self._answer(_START_SECONDS)

    def ask(self, call: tuple[Any, ...], seconds: float) -> tuple[bool, Any]:
        """Send a call and wait so long for its answer."""
        try:
            self._connection.send(call)
        except OSError as error:
            raise IsolationError(f"the helper process is gone ({self.end()})") from error
        return self._answer(seconds)

    def end(self) -> str:
        """Kill the process and return how it ended."""
        self._connection.close()
        try:
            code = self._process.wait(timeout=1.0)  # a dead one is gone at once, an idle one ends by itself
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _answer(self, seconds: float) -> tuple[bool, Any]:
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
        except (EOFError, OSError) as error:
            raise IsolationError(
                f"crashes the library that reads it ({self.end()}); the file is damaged"
            ) from error
        self._process.kill()
        self.end()
        raise IsolationError(f"gives no answer within {seconds:g} s; the file is damaged")


_LOCK = threading.Lock()
_HELPERS: list[_Helper] = []


def _the_helper() -> _Helper:
    if _HELPERS and _HELPERS[0].owner != os.getpid():
        _HELPERS.clear()  # forked off: the helper is the parent's
    if not _HELPERS:
        _HELPERS.append(_Helper())
    return _HELPERS[0]


def _forget_helper() -> None:
    _HELPERS.clear()


@atexit.register
def _end_helper() -> None:
    if _HELPERS and _HELPERS[0].owner == os.getpid():
        _HELPERS.pop().end()
