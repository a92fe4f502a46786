"""The files of compositions: reading and checking them.

::

    # Stack the red cube on the green one.
    instructions: [stack the red cube on the green cube, put the red cube on top of the green one]
    objects:
      - {name: red_cube, kind: box, half: [0.02, 0.02, 0.02], color: red}
      - {name: green_cube, kind: box, half: [0.025, 0.025, 0.025], color: green}
    steps:
      - stack: {object: red_cube, onto: green_cube}
    success:
      - resting: {object: red_cube, onto: green_cube}

A step is a skill of `robot_sim.skills` with its options, a condition of success one of
`robot_sim.compositions.conditions`. Nothing speaks of an arm: any arm that reaches carries the task out.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robot_datasets.errors import unknown_name
from robot_sim.compositions.conditions import check_condition
from robot_sim.compositions.objects import ObjectSpec
from robot_sim.registry import TaskError
from robot_sim.skills.skill import find_skill

for _module in ("grasping", "pushing"):  # they register the skills
    importlib.import_module(f"robot_sim.skills.{_module}")

LIBRARY = Path(__file__).parent / "library"
_KEYS = ("instructions", "objects", "layout", "steps", "success", "max_steps")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where objects without a `region` of their own may lie: a rectangle, and the least distance between two [m]."""

    low: tuple[float, float] = (-0.12, -0.18)
    high: tuple[float, float] = (0.1, 0.18)
    distance: float = 0.12


@dataclass(frozen=True, kw_only=True)
class Step:
    """One skill and its options."""

    skill: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of success and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A task in YAML; see the module's docstring.

    Attributes:
        name: The file's name without its ending.
        instructions: Paraphrases; a seed chooses one.
        objects: What lies on the table.
        layout: Where.
        steps: What the demonstrator does.
        success: All must hold.
        max_steps: Steps after which an episode is cut.
    """

    name: str
    instructions: tuple[str, ...]
    objects: tuple[ObjectSpec, ...]
    layout: Layout
    steps: tuple[Step, ...]
    success: tuple[Condition, ...]
    max_steps: int


def composition_names() -> list[str]:
    """Names of the compositions that come with the package, sorted."""
    return sorted(path.stem for path in LIBRARY.glob("*.yaml"))


def find_composition(name: str) -> Path | None:
    """Return the file of a composition: one of the package's by name, or any by its path; None if there is none."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else LIBRARY / f"{name}.yaml"
    return path if path.is_file() else None


def read_composition(path: Path) -> Composition:
    """Read and check a file.

    Raises:
        TaskError: It is no YAML, or something in it is unknown or missing, with the nearest match.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise TaskError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    where = path.name
    if not isinstance(values, Mapping):
        raise TaskError(f"{where}: expected a mapping with {', '.join(_KEYS)}")
    for key in values:
        if key not in _KEYS:
            raise TaskError(f"{where}: {unknown_name('key', key, _KEYS)}")
    for key in ("instructions", "objects", "steps", "success"):
        if not isinstance(values.get(key), list) or not values[key]:
            raise TaskError(f"{where}: '{key}' is missing or empty; expected a list")
    objects = tuple(_parse(ObjectSpec, value, f"{where}: objects") for value in values["objects"])
    names = [item.name for item in objects]
    if len(set(names)) != len(names):
        raise TaskError(f"{where}: two objects have the same name; names are {', '.join(names)}")
    steps = [_single(value, f"{where}: steps") for value in values["steps"]]
    conditions = [_single(value, f"{where}: success") for value in values["success"]]
    for name, options in steps:
        find_skill(name, options, where=where)
    for name, options in conditions:
        check_condition(name, options, where=where)
    _check_objects([*steps, *conditions], objects, where)
    return Composition(
        name=path.stem,
        instructions=tuple(str(text) for text in values["instructions"]),
        objects=objects,
        layout=_parse(Layout, values.get("layout", {}), f"{where}: layout"),
        steps=tuple(Step(skill=name, options=options) for name, options in steps),
        success=tuple(Condition(name=name, options=options) for name, options in conditions),
        max_steps=int(values.get("max_steps", 250)),
    )


def _single(value: Any, where: str) -> tuple[str, dict[str, Any]]:
    """``{stack: {object: a}}`` -> ``("stack", {"object": "a"})``."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise TaskError(
            f"{where}: got {value!r}, expected one name with its options, e.g. grasp: {{object: cube}}"
        )
    name, options = next(iter(value.items()))
    if not isinstance(options or {}, Mapping):
        raise TaskError(f"{where}: the options of '{name}' are {options!r}; expected a mapping")
    return str(name), dict(options or {})


def _check_objects(
    uses: list[tuple[str, dict[str, Any]]], objects: tuple[ObjectSpec, ...], where: str
) -> None:
    """Whatever a step or condition calls an object must be one."""
    names = [item.name for item in objects]
    names += [f"{item.name}_middle" for item in objects if item.kind == "vessel"]
    for use, options in uses:
        for option in ("object", "onto", "into", "at", "inside", "to", "button"):
            if option in options and options[option] not in names:
                raise TaskError(f"{where}: {use}: {unknown_name('object', options[option], names)}")


def _parse(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise TaskError(f"{where}: got {values!r}, expected a mapping")
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise TaskError(f"{where}: {unknown_name('key', key, known)}")
    missing = [
        name
        for name, item in known.items()
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and name not in values
    ]
    if missing:
        raise TaskError(f"{where}: {dict(values)} lacks {', '.join(missing)}")
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except ValueError as error:
        raise TaskError(f"{where}: {error}") from error
