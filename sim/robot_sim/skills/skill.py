"""What a skill is, and how one is found by name."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

from robot_datasets.errors import unknown_name
from robot_sim.registry import TaskError
from robot_sim.skills.follower import Waypoint
from robot_sim.skills.view import ArmView, SceneView


@dataclass(frozen=True)
class Context:
    """What a skill acts with: the scene as it is, and one arm."""

    scene: SceneView
    arm: ArmView


Parameters = ParamSpec("Parameters")
Skill = Callable[..., Iterator[Waypoint]]
_SKILLS: dict[str, Skill] = {}


def skill(
    function: Callable[Concatenate[Context, Parameters], Iterator[Waypoint]],
) -> Callable[Concatenate[Context, Parameters], Iterator[Waypoint]]:
    """Register a generator of waypoints under its name; the waypoints that name no skill get it."""
    name = function.__name__.removesuffix("_")

    @functools.wraps(function)
    def named(context: Context, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterator[Waypoint]:
        for waypoint in function(context, *args, **kwargs):
            yield waypoint if waypoint.skill else dataclasses.replace(waypoint, skill=name)

    _SKILLS[name] = named
    return named


def skill_names() -> list[str]:
    """Names of all skills, sorted."""
    return sorted(_SKILLS)


def find_skill(name: str, options: dict[str, Any], *, where: str) -> Skill:
    """Return a skill after checking the options it is to be called with.

    Args:
        name: Of the skill.
        options: Its options.
        where: For the message.

    Raises:
        TaskError: Unknown skill or option, or an option without a default is missing.
    """
    if name not in _SKILLS:
        raise TaskError(f"{where}: {unknown_name('skill', name, _SKILLS)}")
    found = _SKILLS[name]
    known = dict(list(inspect.signature(found).parameters.items())[1:])
    for option in options:
        if option not in known:
            raise TaskError(f"{where}: skill '{name}': {unknown_name('option', option, known)}")
    missing = [
        option
        for option, parameter in known.items()
        if parameter.default is inspect.Parameter.empty and option not in options
    ]
    if missing:
        raise TaskError(f"{where}: skill '{name}' needs {', '.join(missing)}")
    return found
