"""The `robot-policies` command: a table of subcommands, of which only the chosen one is imported.

Exit status: 0 success, 1 a check found problems, 2 bad input or usage (one line on stderr),
130 interrupted. A bug keeps its traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from robot_datasets.errors import UserError, unknown_name
from robot_policies import __version__

PROGRAM = "robot-policies"
USAGE_ERROR = 2
INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """One row of the table: where a subcommand lives and what it does, in one line.

    Attributes:
        help: The line shown by ``robot-policies --help``.
        module: Module to import when, and only when, the subcommand is chosen.
        function: ``function(argv) -> int`` in that module; returns the exit status.
    """

    help: str
    module: str
    function: str = "run"


COMMANDS: dict[str, Command] = {
    "convert": Command("turn recorded demonstrations into an episode store", "convert"),
    "export": Command("write an episode store as a LeRobot dataset", "export"),
    "inspect": Command("show what an episode store holds, or make a page of it", "inspect"),
    "check": Command("read every byte of a store and look for faults of the recordings", "check"),
    "stats": Command("print the statistics of a store's features", "stats"),
    "merge": Command("put the episodes of several stores into one", "edit", "run_merge"),
    "split": Command("divide a store into training and validation episodes", "edit", "run_split"),
    "trim": Command("cut waiting or given steps off the ends of episodes", "edit", "run_trim"),
    "drop": Command("leave episodes or features out", "edit", "run_drop"),
    "rename": Command("rename features, instructions or the robot", "edit", "run_rename"),
    "mirror": Command("write the mirror images of demonstrations of a symmetric task", "edit", "run_mirror"),
    "replay": Command("carry out recorded actions once more in simulation", "replay"),
    "view": Command("open episodes in the rerun viewer", "view"),
    "schema": Command("list or print what the arrays of known robots mean", "schema"),
    "generate": Command("record a scripted expert in simulation into an episode store", "generate"),
    "retrieve": Command("choose what of a large store to train on, by likeness to a small one", "retrieve"),
    "train": Command("train a policy on one or more stores; resumes where it stopped", "train"),
    "eval": Command("judge a checkpoint on held-out seeds in simulation", "evaluate", "run"),
    "sweep": Command("evaluate checkpoints, tasks and disturbances side by side", "sweep"),
    "export-policy": Command("write a checkpoint as graphs that run without torch (ONNX)", "export_policy"),
    "deploy": Command("run a policy on a robot under ROS 2, or a simulated arm to see it", "deploy"),
    "twin": Command("keep a simulation in step with a cell: calibrate, record, rank, run", "twin"),
    "report": Command("write the HTML report of a finished evaluation again", "evaluate", "run_report"),
    "compare": Command("compare two evaluations seed by seed", "evaluate", "run_compare"),
    "doctor": Command("say what is installed, what is missing and how to add it", "doctor"),
}

EXAMPLES = (
    "convert pusht_cchi_v7_replay.zarr.zip runs/pusht/data.zarr",
    "generate task=lift episodes=100 output=runs/lift_demo/demos.zarr",
    "train +experiment=lift_demo trainer.steps=2000",
    "eval checkpoint=runs/lift_demo/train",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    Args:
        argv: Arguments after the program name; None takes those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    try:
        return _dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`robot-policies stats x | head`). Nothing is wrong here;
        # point stdout elsewhere so that the interpreter's last flush does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if debug or error.errno is None or error.filename is None:
            raise
        return _fail(f"{error.strerror}: '{error.filename}'; check the path, its permissions and the disk")
    except ModuleNotFoundError as error:
        message = _missing_extra(error)
        if debug or message is None:
            raise
        return _fail(message)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help_text())
        return 0 if arguments else USAGE_ERROR
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version"):
        print(f"{PROGRAM} {__version__}")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        kind = "option" if name.startswith("-") else "command"
        candidates = (*COMMANDS, "--help", "--version", "--debug") if kind == "option" else COMMANDS
        raise UserError(f"{unknown_name(kind, name, candidates)} (see {PROGRAM} --help)")
    module = importlib.import_module(f"robot_policies.cli.{command.module}")
    try:
        return int(getattr(module, command.function)(rest) or 0)
    except SystemExit as stop:  # argparse ends --help and usage errors this way
        if isinstance(stop.code, str):
            raise UserError(stop.code) from None
        return int(stop.code or 0)


def _help_text() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    examples = "\n".join(f"  {PROGRAM} {example}" for example in EXAMPLES)
    return f"""usage: {PROGRAM} COMMAND [arguments]

From raw robot demonstrations to a policy that moves a real arm.

commands:
{commands}

options:
  -h, --help     show this help; `{PROGRAM} COMMAND --help` shows that of a command
  -V, --version  show the version
  --debug        show the full traceback of an error

examples:
{examples}"""


def _missing_extra(error: ModuleNotFoundError) -> str | None:
    """Name the extra that brings the missing module, if it is one of ours; None if it is a bug."""
    from robot_policies.cli.extras import extra_of

    extra = extra_of(error.name or "")
    if extra is None:
        return None
    return f"the Python module '{error.name}' is not installed; {extra.remedy}"


def _fail(message: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    raise SystemExit(main())
