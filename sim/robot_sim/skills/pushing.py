"""Moving things without holding them, and things that move in a frame: pushes, pulls, drawers, buttons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from robot_sim.skills.follower import CLOSED, OPEN, Waypoint
from robot_sim.skills.grasping import CLOSING_STEPS, GROUND, HOVER, TRIES, best_turn, grasp_pose
from robot_sim.skills.poses import nearest_turn, pointing_down, up, yaw_of
from robot_sim.skills.skill import Context, skill

FINGER = 0.018  # from the middle of the closed fingers to where they touch [m]
PUSH_STEP = 0.025  # how far ahead of the contact a pushing finger aims [m]
DIRECTIONS = {"away": (1.0, 0.0), "towards": (-1.0, 0.0), "left": (0.0, 1.0), "right": (0.0, -1.0)}


def _direction(direction: str | Sequence[float]) -> np.ndarray:
    values = DIRECTIONS[direction] if isinstance(direction, str) else direction
    flat = np.array([values[0], values[1], 0.0])
    return flat / np.linalg.norm(flat)


@skill
def push(
    context: Context,
    object: str,
    direction: str | Sequence[float] = "",
    distance: float = 0.1,
    to: str = "",
    tolerance: float = 0.015,
) -> Iterator[Waypoint]:
    """Push an object over the table with closed fingers, steering as it goes.

    Args:
        context: The scene and the arm.
        object: What to push.
        direction: ``"away"``, ``"towards"``, ``"left"``, ``"right"``, or x and y; with `distance`.
        distance: How far [m].
        to: Body or site to push it to, in place of a direction.
        tolerance: Distance from the goal at which to stop [m].
    """
    scene, arm = context.scene, context.arm
    start = scene.position(object)
    goal = _target(context, to) if to else start + distance * _direction(direction)
    goal[2] = start[2]
    half = scene.shape(object).half
    height = max(float(start[2]), arm.fingertip + 3 * GROUND)
    for stroke in range(3):
        way = goal - scene.position(object)
        if np.linalg.norm(way[:2]) < tolerance:
            break
        behind = _behind(context, object, goal)
        along = _flat_direction(scene.position(object), goal)
        # The line of the fingers lies across the way, so that the object does not turn around one of them.
        rotation = best_turn(arm, behind, [math.atan2(along[1], along[0]) + math.pi / 2])
        high = np.array([behind[0], behind[1], float(half[2]) + height + HOVER])
        yield Waypoint(position=high, rotation=rotation, gripper=CLOSED, tolerance=0.015)
        yield Waypoint(
            position=np.array([behind[0], behind[1], height]), rotation=rotation, speed=0.6, tolerance=0.01
        )
        for _ in range(60):
            way = goal - scene.position(object)
            if np.linalg.norm(way[:2]) < tolerance or way[:2] @ (goal - start)[:2] < 0 == stroke:
                break
            aim = _behind(context, object, goal, ahead=PUSH_STEP)
            yield Waypoint(position=np.array([aim[0], aim[1], height]), speed=0.45, tolerance=0.0, timeout=1)
        back = arm.position - 0.03 * way / max(float(np.linalg.norm(way)), 1e-6)
        yield Waypoint(position=np.array([back[0], back[1], height]), tolerance=0.02, timeout=10)
        yield Waypoint(position=np.array([back[0], back[1], height + HOVER]), speed=0.8, tolerance=0.03)


def _behind(context: Context, body: str, goal: np.ndarray, *, ahead: float = -0.02) -> np.ndarray:
    """Return where fingers stand to push `body` to `goal` (3,), `ahead` of its edge [m]."""
    place, shape = context.scene.position(body), context.scene.shape(body)
    along = _flat_direction(place, goal)
    local = context.scene.rotation(body).T @ along
    extent = (
        float(shape.half[0])
        if shape.kind != "box"
        else float(min(h / max(abs(c), 1e-6) for h, c in zip(shape.half[:2], local[:2], strict=True)))
    )
    return place - along * (extent + FINGER - ahead)


def _flat_direction(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    way = np.array([goal[0] - start[0], goal[1] - start[1], 0.0])
    return way / max(float(np.linalg.norm(way)), 1e-6)


def _target(context: Context, name: str) -> np.ndarray:
    names = context.scene
    try:
        return names.site(name)[0]
    except Exception as error:
        if type(error).__name__ != "SceneError":
            raise
        return names.position(name)


@skill
def slide(context: Context, object: str, to: str, axis: str = "") -> Iterator[Waypoint]:
    """Hold an object and drag it over the table to a body or site."""
    position, rotation = grasp_pose(context, object, axis=axis)
    yield Waypoint(position=position + up(HOVER), rotation=rotation, gripper=OPEN, tolerance=0.012)
    yield Waypoint(position=position, speed=0.5, tolerance=0.006)
    yield Waypoint(gripper=CLOSED, tolerance=0.02, dwell=CLOSING_STEPS)
    held = context.scene.position(object) - context.arm.position
    goal = _target(context, to) - held
    yield Waypoint(
        position=np.array([goal[0], goal[1], context.arm.position[2]]), speed=0.35, tolerance=0.01, dwell=2
    )
    yield Waypoint(gripper=OPEN, tolerance=0.03, dwell=7)
    yield Waypoint(position=context.arm.position + up(HOVER), speed=0.6, tolerance=0.02)


@skill
def pull(
    context: Context, direction: str | Sequence[float] = "towards", distance: float = 0.1
) -> Iterator[Waypoint]:
    """Draw what is held in a direction, parallel to the table."""
    goal = context.arm.position + distance * _direction(direction)
    yield Waypoint(position=goal, speed=0.35, tolerance=0.012, timeout=90)


@skill
def open_(context: Context, handle: str, joint: str, distance: float = 0.14) -> Iterator[Waypoint]:
    """Open a drawer: take its handle from above, draw it out, let go.

    Args:
        context: The scene and the arm.
        handle: Site in the middle of the handle, x along the bar, z pointing out of the drawer.
        joint: Slide joint of the drawer.
        distance: How far to draw [m].
    """
    yield from _take_handle(context, handle)
    site, _ = context.scene.site(handle)
    out = context.scene.site(handle)[1][:, 2]
    held = context.arm.position - site
    for _ in range(3):
        left = distance - context.scene.joint(joint)
        if left < 0.005:
            break
        site, _ = context.scene.site(handle)
        yield Waypoint(position=site + held + (left + 0.01) * out, speed=0.35, tolerance=0.012, timeout=80)
    yield Waypoint(position=context.arm.position, gripper=OPEN, tolerance=0.03, dwell=8)
    yield Waypoint(position=context.arm.position + 0.06 * out, speed=0.5, tolerance=0.03)


@skill
def close(context: Context, handle: str, joint: str) -> Iterator[Waypoint]:
    """Push a drawer shut at its handle, with closed fingers."""
    site, rotation = context.scene.site(handle)
    out = rotation[:, 2]
    # the line of the fingers lies along the bar
    tool = best_turn(context.arm, site, [math.atan2(out[1], out[0]) + math.pi / 2])
    yield Waypoint(position=site + 0.05 * out + up(0.09), rotation=tool, gripper=CLOSED, tolerance=0.02)
    yield Waypoint(position=site + 0.05 * out, rotation=tool, speed=0.5, tolerance=0.012)
    for _ in range(4):
        left = context.scene.joint(joint)
        if left < 0.003:
            break
        site, _ = context.scene.site(handle)
        yield Waypoint(position=site - (left + 0.0) * out, speed=0.35, tolerance=0.012, timeout=50)
    site, _ = context.scene.site(handle)
    yield Waypoint(position=site + 0.06 * out, speed=0.6, tolerance=0.02)
    yield Waypoint(position=site + 0.06 * out + up(0.1), speed=0.6, tolerance=0.03)


def _take_handle(context: Context, handle: str) -> Iterator[Waypoint]:
    """Grasp a bar from above, one finger before it and one behind."""
    for _ in range(TRIES):
        site, rotation = context.scene.site(handle)
        out = rotation[:, 2]
        tool = best_turn(context.arm, site, [math.atan2(out[1], out[0])])
        yield Waypoint(position=site + up(HOVER), rotation=tool, gripper=OPEN, tolerance=0.012)
        yield Waypoint(position=site, rotation=tool, speed=0.4, tolerance=0.006)
        yield Waypoint(gripper=CLOSED, tolerance=0.03, dwell=CLOSING_STEPS)
        if context.arm.holds(handle):
            return


@skill
def press(context: Context, button: str, depth: float = 0.02) -> Iterator[Waypoint]:
    """Press a button, a site on its top, straight down with closed fingers."""
    site, _ = context.scene.site(button)
    angle = yaw_of(context.arm.rotation)
    rotation = pointing_down(angle)
    yield Waypoint(position=site + up(0.08), rotation=rotation, gripper=CLOSED, tolerance=0.012)
    yield Waypoint(position=site + up(0.015), speed=0.4, tolerance=0.008)
    yield Waypoint(position=site - up(depth), speed=0.25, tolerance=0.008, dwell=2, timeout=25)
    yield Waypoint(position=site + up(0.08), speed=0.6, tolerance=0.03)


@skill
def tip(context: Context, object: str, direction: str | Sequence[float] = "away") -> Iterator[Waypoint]:
    """Knock a tall object over: push it near its top."""
    scene = context.scene
    place, half = scene.position(object), scene.shape(object).half
    along = _direction(direction)
    angle = nearest_turn(math.atan2(along[1], along[0]) + math.pi / 2, yaw_of(context.arm.rotation), math.pi)
    rotation = pointing_down(angle)
    edge = float(max(half[:2])) + FINGER
    high = float(place[2] + half[2]) - 0.008
    start = place - along * (edge + 0.03)
    yield Waypoint(
        position=np.array([start[0], start[1], high + 0.06]),
        rotation=rotation,
        gripper=CLOSED,
        tolerance=0.015,
    )
    yield Waypoint(position=np.array([start[0], start[1], high]), speed=0.5, tolerance=0.01)
    end = place + along * (float(half[2]) + 0.01)
    yield Waypoint(position=np.array([end[0], end[1], high]), speed=0.4, tolerance=0.015)
    yield Waypoint(position=np.array([end[0], end[1], high + 0.08]), speed=0.6, tolerance=0.03)


@skill
def home(context: Context, height: float = 0.2) -> Iterator[Waypoint]:
    """Raise the hand, open, to `height` over the middle of the table [m]."""
    here = context.arm.position
    yield Waypoint(
        position=np.array([here[0] - 0.05, here[1] * 0.5, height]),
        rotation=pointing_down(yaw_of(context.arm.rotation)),
        gripper=OPEN,
        tolerance=0.03,
    )


@skill
def wait(context: Context, steps: int = 10) -> Iterator[Waypoint]:
    """Stay where the hand is."""
    yield Waypoint(position=context.arm.position, tolerance=0.05, dwell=int(steps))
