"""Find tasks and scripted experts by name, importing a simulator only when its task is made."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from types import ModuleType

from robot_datasets.errors import UserError, unknown_name
from robot_sim.task import Expert, TaskEnv


class TaskError(UserError):
    """A task is unknown, has no expert, or its simulator is not installed."""


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """Where a task lives.

    Attributes:
        module: Module that defines ``make_env(**options) -> TaskEnv`` and, with `has_expert`,
            ``make_expert() -> Expert``. It may import simulators at the top: it is imported on use.
        extra: Optional dependency group of ``robot-policies`` that installs its simulator.
        has_expert: Whether a scripted demonstrator exists.
    """

    module: str
    extra: str = "sim"
    has_expert: bool = False


_TASKS: dict[str, TaskEntry] = {
    "pusht": TaskEntry(module="robot_sim.tasks.pusht"),
    "lift": TaskEntry(module="robot_sim.tasks.lift", has_expert=True),
}


def register_task(name: str, entry: TaskEntry) -> None:
    """Add a task; a package of one's own calls this once before `make_task`.

    Raises:
        ValueError: The name is taken.
    """
    if name in _TASKS:
        raise ValueError(f"task '{name}' is registered twice")
    _TASKS[name] = entry


def task_names() -> list[str]:
    """Registered task names, sorted."""
    return sorted(_TASKS)


def expert_names() -> list[str]:
    """Names of the tasks that have a scripted expert, sorted."""
    return sorted(name for name, entry in _TASKS.items() if entry.has_expert)


def make_task(name: str, **options: object) -> TaskEnv:
    """Build a task.

    Args:
        name: Registered name.
        options: Passed to the task's ``make_env``, e.g. ``images=True``.

    Raises:
        TaskError: Unknown name or option, or the simulator is not installed.
    """
    make_env = _load(name, _entry(name)).make_env
    known = inspect.signature(make_env).parameters
    for option in options:
        if option not in known:
            raise TaskError(f"task '{name}': {unknown_name('option', option, known)}")
    return make_env(**options)


def make_expert(name: str) -> Expert:
    """Build the scripted expert of a task.

    Raises:
        TaskError: Unknown name, no expert for this task, or the simulator is not installed.
    """
    entry = _entry(name)
    if not entry.has_expert:
        raise TaskError(
            f"task '{name}' has no scripted expert to generate demonstrations with; "
            f"convert recorded ones, or choose one of: {', '.join(expert_names())}"
        )
    return _load(name, entry).make_expert()


def _entry(name: str) -> TaskEntry:
    if name not in _TASKS:
        raise TaskError(unknown_name("task", name, _TASKS))
    return _TASKS[name]


def _load(name: str, entry: TaskEntry) -> ModuleType:
    try:
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing.startswith("robot_"):
            raise
        raise TaskError(
            f"task '{name}' needs the package '{missing}', which is not installed; "
            f"install it with: pip install 'robot-policies[{entry.extra}]'"
        ) from error
