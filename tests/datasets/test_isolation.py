"""Calls in a helper process: results, errors, crashes and hangs."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robot_datasets import isolation
from robot_datasets.errors import DatasetError
from robot_datasets.isolation import IsolationError, call_isolated
from robot_datasets.kinematics import get_arm


def test_results_and_errors_come_back() -> None:
    """The answer is the function's; its user errors are raised here, other errors carry their traceback."""
    assert call_isolated(get_arm, "panda") == get_arm("panda")
    assert call_isolated(os.getpid) == call_isolated(os.getpid) != os.getpid()
    with pytest.raises(DatasetError, match="did you mean 'panda'"):
        call_isolated(get_arm, "pandas")
    with pytest.raises(RuntimeError, match=r"in the helper process:(.|\n)*FileNotFoundError"):
        call_isolated(os.stat, "/does/not/exist")


def test_a_crash_is_an_error_and_the_next_call_works() -> None:
    """A segmentation fault ends the helper only."""
    with pytest.raises(IsolationError, match="killed by SIGSEGV"):
        call_isolated(ctypes.string_at, 0)
    assert call_isolated(abs, -1) == 1


def test_a_helper_that_was_killed_is_replaced() -> None:
    """Killed between two calls, it is an error once, not a hang."""
    os.kill(call_isolated(os.getpid), 9)
    time.sleep(0.05)
    with pytest.raises(IsolationError, match="SIGKILL"):
        call_isolated(abs, -1)
    assert call_isolated(abs, -1) == 1


def test_a_hang_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not return is given up."""
    call_isolated(abs, -1)
    monkeypatch.setattr(isolation, "_SECONDS", 0.2)
    with pytest.raises(IsolationError, match=r"no answer within 0\.2 s"):
        call_isolated(time.sleep, 30)


def test_scripts_need_no_guard_and_leave_no_process(tmp_path: Path) -> None:
    """A script without a main guard runs once, and its helper ends with it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom robot_datasets.isolation import call_isolated\nprint('once', call_isolated(os.getpid))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    words = done.stdout.split()
    assert words[0] == "once"
    assert len(words) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(words[1]), 0)


def test_a_helper_that_hangs_ends_though_its_main_process_was_killed(tmp_path: Path) -> None:
    """Nothing is left behind that computes for nobody."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\nfrom robot_datasets import isolation\nisolation._SECONDS = 0.1\n"
        "print(isolation.call_isolated(os.getpid), flush=True)\n"
        "isolation._SECONDS = 60.0\nisolation.call_isolated(time.sleep, 60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as main:
        assert main.stdout is not None
        helper = int(main.stdout.readline())
        time.sleep(0.2)  # it sleeps by now
        main.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{helper}").exists():
        assert time.monotonic() < deadline, "the helper is still there"
        time.sleep(0.05)
