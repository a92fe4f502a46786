"""Conditions of success, over a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.registry import TaskError
from robot_sim.skills.pushing import DIRECTIONS

if TYPE_CHECKING:
    from robot_sim.compositions.task import ComposedTask

LET_GO = 0.5  # share of its opening beyond which a gripper counts as open
Condition = Callable[..., np.ndarray]
_CONDITIONS: dict[str, Condition] = {}


def condition(function: Condition) -> Condition:
    """Register a condition under its name."""
    _CONDITIONS[function.__name__] = function
    return function


def check_condition(name: str, options: dict[str, Any], *, where: str) -> None:
    """Check a condition and the options it is to be called with.

    Raises:
        TaskError: Unknown condition or option, or one without a default is missing.
    """
    if name not in _CONDITIONS:
        raise TaskError(f"{where}: {unknown_name('condition', name, _CONDITIONS)}")
    known = dict(list(inspect.signature(_CONDITIONS[name]).parameters.items())[2:])
    for option in options:
        if option not in known:
            raise TaskError(f"{where}: condition '{name}': {unknown_name('option', option, known)}")
    missing = [n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in options]
    if missing:
        raise TaskError(f"{where}: condition '{name}' needs {', '.join(missing)}")


def evaluate(name: str, task: ComposedTask, sim: TaskSimulation, options: dict[str, Any]) -> np.ndarray:
    """Return where a condition holds, (N,) bool."""
    return _CONDITIONS[name](task, sim, **options)


@condition
def let_go(task: ComposedTask, sim: TaskSimulation) -> np.ndarray:
    """The gripper is open."""
    return task.arm.opening(sim.physics) > LET_GO


@condition
def held(task: ComposedTask, sim: TaskSimulation, object: str, height: float = 0.05) -> np.ndarray:
    """The object is between the fingers, `height` above where it started [m]."""
    raised = task.body_position(sim, object)[:, 2] - task.start(sim, object)[:, 2]
    return (raised > height) & task.holds(sim, object)


@condition
def resting(
    task: ComposedTask, sim: TaskSimulation, object: str, onto: str, within: float = 0.025
) -> np.ndarray:
    """The object stands on another one: over its middle, at the height where they touch."""
    upper, lower = task.body_position(sim, object), task.body_position(sim, onto)
    beside = np.abs(upper[:, :2] - lower[:, :2]).max(axis=1) < within
    height = upper[:, 2] - lower[:, 2] - task.half(object)[2] - task.half(onto)[2]
    return beside & (np.abs(height) < 0.008)


@condition
def placed(
    task: ComposedTask, sim: TaskSimulation, object: str, at: str, within: float = 0.035
) -> np.ndarray:
    """The object's middle lies over a mark, the object down on the table."""
    way = task.body_position(sim, object) - task.body_position(sim, at)
    return (np.abs(way[:, :2]).max(axis=1) < within) & (way[:, 2] < task.half(object).max() + 0.006)


@condition
def contained(task: ComposedTask, sim: TaskSimulation, object: str, inside: str) -> np.ndarray:
    """The object's middle is within the walls of a vessel, its lowest part below the rim."""
    body = task.names.body(inside)
    way = task.body_position(sim, object) - sim.physics.xpos[:, body]
    local = (sim.physics.xmat[:, body].swapaxes(1, 2) @ way[..., None])[..., 0]
    half = task.half(inside)
    low = local[:, 2] - task.half(object).min()
    return (np.abs(local[:, :2]) < half[:2]).all(axis=1) & (low < half[2]) & (local[:, 2] > -half[2])


@condition
def moved(
    task: ComposedTask, sim: TaskSimulation, object: str, direction: str, distance: float, aside: float = 0.05
) -> np.ndarray:
    """The object went so far in a direction, and not further than `aside` off it [m]."""
    way = task.body_position(sim, object) - task.start(sim, object)[:, :3]
    along = np.array(DIRECTIONS[direction])
    across = np.array([-along[1], along[0]])
    return (way[:, :2] @ along > distance) & (np.abs(way[:, :2] @ across) < aside)


@condition
def near(task: ComposedTask, sim: TaskSimulation, object: str, to: str, distance: float) -> np.ndarray:
    """The object's middle is so near to another one's, seen from above [m]."""
    way = task.body_position(sim, object) - task.body_position(sim, to)
    return np.linalg.norm(way[:, :2], axis=1) < distance


@condition
def turned(
    task: ComposedTask, sim: TaskSimulation, object: str, angle: float, tolerance: float = 15.0
) -> np.ndarray:
    """The object was turned about z by `angle`, give or take `tolerance` [deg]."""
    matrix = sim.physics.xmat[:, task.names.body(object)]
    yaw = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]) - task.start(sim, object)[:, 3]
    left = np.degrees(yaw) - angle
    return np.abs((left + 180.0) % 360.0 - 180.0) < tolerance


@condition
def tipped(task: ComposedTask, sim: TaskSimulation, object: str) -> np.ndarray:
    """The object lies on its side."""
    return np.abs(sim.physics.xmat[:, task.names.body(object), 2, 2]) < 0.3


@condition
def inserted(
    task: ComposedTask,
    sim: TaskSimulation,
    object: str,
    into: str,
    depth: float = 0.02,
    within: float = 0.016,
) -> np.ndarray:
    """The object's lower end is in a socket, so far below its rim [m]."""
    body, site = task.names.body(object), task.names.site(into)
    lower = sim.physics.xpos[:, body] - task.half(object)[2] * sim.physics.xmat[:, body, :, 2]
    rim = sim.physics.site_xpos[:, site]
    return (np.linalg.norm(lower[:, :2] - rim[:, :2], axis=1) < within) & (rim[:, 2] - lower[:, 2] > depth)


@condition
def opened(
    task: ComposedTask, sim: TaskSimulation, joint: str = "drawer_joint", distance: float = 0.1
) -> np.ndarray:
    """A drawer is open so far [m]."""
    return task.joint(sim, joint) > distance


@condition
def closed(
    task: ComposedTask, sim: TaskSimulation, joint: str = "drawer_joint", distance: float = 0.012
) -> np.ndarray:
    """A drawer is open no further than so far [m]."""
    return task.joint(sim, joint) < distance


@condition
def pressed(task: ComposedTask, sim: TaskSimulation, object: str) -> np.ndarray:
    """A button has been pressed down, now or earlier in the episode."""
    return sim.memory["pressed"] > 0
