"""Find tasks and scripted experts by name, importing a simulator only when its task is made.

A name is one of our own tasks (``"lift"``) or ``"<family>/<id>"``: a task of another library under the name it
has there (``"robosuite/NutAssemblySquare"``, ``"metaworld/reach-v3"``, ``"gym/CartPole-v1"``).
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from robot_datasets.errors import UserError, unknown_name
from robot_sim.task import Expert, TaskEnv


class TaskError(UserError):
    """A task is unknown, has no expert, or its simulator is not installed."""


SIMULATORS_REMEDY = (
    "install the simulators with: make venv, or pip install 'robot-policies[sim]' and then "
    "pip install --no-deps -r requirements/sim-no-deps.txt"
)


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """Where a task lives.

    Attributes:
        module: Module that defines ``make_env(**options) -> TaskEnv`` and, with `has_expert`,
            ``make_expert(**options) -> Expert``. It may import simulators at the top: it is imported on use.
        packages: Distributions whose versions decide what a seed leads to.
        remedy: What to do when its simulator is not installed.
        has_expert: Whether a scripted demonstrator exists; of a family, for all of its tasks or for those that the
            module's ``expert_ids() -> list[str]`` names, if it has that function.
    """

    module: str
    packages: tuple[str, ...] = ()
    remedy: str = SIMULATORS_REMEDY
    has_expert: bool = False


_OWN = ("mujoco", "robosuite", "numpy")  # robosuite for the arms' files

_TASKS: dict[str, TaskEntry] = {
    "pusht": TaskEntry(module="robot_sim.tasks.pusht", packages=("gym-pusht", "pymunk")),
    "lift": TaskEntry(
        module="robot_sim.tasks.lift", packages=("mujoco", "robosuite", "numpy"), has_expert=True
    ),
    "lift_joint": TaskEntry(
        module="robot_sim.tasks.lift_joint", packages=("mujoco", "robosuite", "numpy"), has_expert=True
    ),
    "tabletop_lift": TaskEntry(module="robot_sim.tasks.tabletop_lift", packages=_OWN),
    **{
        name: TaskEntry(module=f"robot_sim.tasks.{name}", packages=_OWN, has_expert=True)
        for name in (
            *("planar_push_t", "tabletop_push_t", "tabletop_pick_place", "tabletop_stack"),
            *("tabletop_drawer", "tabletop_peg_insert", "tabletop_handover"),
        )
    },
}


#: Libraries whose tasks go by their own ids. Here the functions of the module take the id as first argument,
#: ``task_ids() -> list[str]`` names those there are, and ``knows(id) -> bool`` says whether one can be made.
_FAMILIES: dict[str, TaskEntry] = {
    "robosuite": TaskEntry(
        module="robot_sim.adapters.robosuite", packages=("mujoco", "robosuite", "numpy"), has_expert=True
    ),
    "metaworld": TaskEntry(
        module="robot_sim.adapters.metaworld", packages=("mujoco", "metaworld", "numpy"), has_expert=True
    ),
    "gym": TaskEntry(module="robot_sim.adapters.gym", packages=("gymnasium", "numpy")),
    "compose": TaskEntry(module="robot_sim.compositions.task", packages=_OWN, has_expert=True),
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
    """Registered task names, sorted; those of the families are not among them."""
    return sorted(_TASKS)


def family_names() -> list[str]:
    """Names of the libraries whose tasks are called ``<family>/<id>``, sorted."""
    return sorted(_FAMILIES)


def family_task_names(family: str) -> list[str]:
    """Names of all tasks of a family, e.g. ``"metaworld/reach-v3"``; imports its library.

    Raises:
        TaskError: Unknown family, or its library is not installed.
    """
    if family not in _FAMILIES:
        raise TaskError(unknown_name("task family", family, _FAMILIES))
    return [f"{family}/{task}" for task in _load(family, _FAMILIES[family]).task_ids()]


def expert_names() -> list[str]:
    """Names of the tasks that have a scripted expert, sorted."""
    return sorted(name for name, entry in _TASKS.items() if entry.has_expert)


def make_task(name: str, **options: object) -> TaskEnv:
    """Build a task.

    Args:
        name: Registered name, or ``<family>/<id>``.
        options: Passed to the task's ``make_env``, e.g. ``images=True``.

    Raises:
        TaskError: Unknown name or option, or the simulator is not installed.
    """
    return _build(f"task '{name}'", _builder(name, "make_env"), options)


def make_expert(name: str, **options: object) -> Expert:
    """Build the scripted expert of a task.

    Args:
        name: Registered task name, or ``<family>/<id>``.
        options: Passed to the task's ``make_expert``, e.g. ``noise=0.2``.

    Raises:
        TaskError: Unknown name or option, no expert for this task, or the simulator is not installed.
    """
    return _build(f"expert of task '{name}'", _expert_builder(name), options)


def task_defaults(name: str) -> dict[str, Any]:
    """Return the options of a task with their default values."""
    return _defaults(_builder(name, "make_env"))


def expert_defaults(name: str) -> dict[str, Any]:
    """Return the options of a task's expert with their default values."""
    return _defaults(_expert_builder(name))


def simulator_versions(name: str) -> dict[str, str]:
    """Return the versions of the packages that decide what a seed of this task leads to."""
    return {package: importlib.metadata.version(package) for package in _entry(name).packages}


def _build(what: str, builder: Callable[..., Any], options: Mapping[str, object]) -> Any:
    known = inspect.signature(builder).parameters
    for option in options:
        if option not in known:
            raise TaskError(f"{what}: {unknown_name('option', option, known)}")
    return builder(**options)


def _defaults(builder: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(builder).parameters
    return {option: parameter.default for option, parameter in parameters.items()}


def _expert_builder(name: str) -> Callable[..., Any]:
    entry = _entry(name)
    if not entry.has_expert:
        raise _no_expert(name, expert_names())
    build = _builder(name, "make_expert")
    family, _, task = name.partition("/")
    expert_ids = getattr(_load(name, entry), "expert_ids", None) if entry is _FAMILIES.get(family) else None
    if expert_ids is not None and task not in expert_ids():
        raise _no_expert(name, [f"{family}/{known}" for known in expert_ids()])
    return build


def _no_expert(name: str, others: Iterable[str]) -> TaskError:
    return TaskError(
        f"task '{name}' has no scripted expert to generate demonstrations with; "
        f"convert recorded ones, or choose one of: {', '.join(others)}"
    )


def _builder(name: str, function: str) -> Callable[..., Any]:
    """Return ``make_env`` or ``make_expert`` of a task, without the id that a family's takes first."""
    entry = _entry(name)
    module = _load(name, entry)
    build = getattr(module, function)
    family, _, task = name.partition("/")
    if entry is not _FAMILIES.get(family):
        return build
    if not module.knows(task):
        names = [f"{family}/{known}" for known in module.task_ids()]
        raise TaskError(unknown_name("task", name, names))
    return functools.partial(build, task)


def _entry(name: str) -> TaskEntry:
    if name in _TASKS:
        return _TASKS[name]
    family, slash, _ = name.partition("/")
    if slash and family in _FAMILIES:
        return _FAMILIES[family]
    if slash:
        raise TaskError(unknown_name("task family", family, _FAMILIES))
    raise TaskError(unknown_name("task", name, [*_TASKS, *(f"{known}/..." for known in _FAMILIES)]))


def _load(name: str, entry: TaskEntry) -> ModuleType:
    try:
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing.startswith("robot_"):
            raise
        raise TaskError(
            f"task '{name}' needs the package '{missing}', which is not installed; {entry.remedy}"
        ) from error
    except RuntimeError as error:  # MuJoCo refuses the variable as soon as it is imported
        if "MUJOCO_GL" not in str(error):
            raise
        raise TaskError(
            f"task '{name}': MuJoCo says: {error}; unset MUJOCO_GL, or set it to egl or osmesa"
        ) from error
    except ImportError as error:  # a shared library, most often libGL, which OpenCV with windows wants
        raise TaskError(
            f"the simulator of task '{name}' does not load ({error}); with libGL in this message: "
            "pip install opencv-python-headless in place of opencv-python, or apt-get install libgl1 libglib2.0-0"
        ) from error
