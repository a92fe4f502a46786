"""Taking hold of things, carrying them, putting them down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from robot_sim.skills.follower import CLOSED, OPEN, Waypoint
from robot_sim.skills.poses import nearest_turn, pointing_down, righted, rotated, up, yaw_of
from robot_sim.skills.skill import Context, skill
from robot_sim.skills.view import ArmView

HOVER = 0.09  # height over a grasp from which it is approached [m]
CLEARANCE = 0.012  # fingers open wider than an object by at least this [m]
GROUND = 0.003  # finger tips stay this far above the table [m]
REACH_DOWN = 0.03  # the tool's centre goes no further than this below an object's top [m]
CLOSING_STEPS = 13  # for the gripper to travel and the grip to settle
TRIES = 3
ENTRY = 0.01  # depth at which an object counts as being on its way into a hole, and not on its rim [m]
ENTRY_STEPS = 20  # for getting there; an object that sits on the rim gets no deeper by pressing
BACK_OFF = 0.02  # over the rim, from where it is tried again [m]


def grasp_pose(
    context: Context, body: str, *, axis: str = "", offset: Sequence[float] = (0.0, 0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Return position (3,) and orientation (3, 3) of the tool for a grasp from above.

    Args:
        context: The scene and the arm.
        body: What to grasp.
        axis: Axis of the body along which the fingers close, ``"x"`` or ``"y"``; empty takes one that fits,
            the one nearer to how the hand is turned.
        offset: Of the grasp from the body's origin, in the body's frame [m].
    """
    scene, arm = context.scene, context.arm
    shape, rotation = scene.shape(body), scene.rotation(body)
    position = scene.position(body) + rotation @ np.asarray(offset, float)
    yaw = yaw_of(rotation)
    fits = [
        turn
        for name, turn, half in (("x", 0.0, shape.half[0]), ("y", math.pi / 2, shape.half[1]))
        if (axis == name) or (not axis and 2 * half + CLEARANCE <= arm.width)
    ]
    now = yaw_of(arm.rotation)
    if shape.kind in ("cylinder", "sphere") and not axis:
        turns = [now]
    else:
        turns = [nearest_turn(yaw + turn, now, math.pi) for turn in (fits or [0.0])]
    top = scene.position(body)[2] + shape.half[2]
    position[2] = max(position[2], top - REACH_DOWN, arm.fingertip + GROUND)
    return position, best_turn(arm, position, turns)


def best_turn(arm: ArmView, position: np.ndarray, turns: Sequence[float]) -> np.ndarray:
    """Return a tool that points down, turned by one of `turns` or half a turn more or less [rad].

    A gripper turned by half a turn is the same gripper, but not to the last joint. Taken is the turn nearest to how the
    hand is turned now from which the joints stay clear of their limits; the nearest one if none does.
    """
    now = yaw_of(arm.rotation)
    ways = [turn + half for turn in turns for half in (0.0, math.pi, -math.pi)]
    ways = sorted((way for way in ways if abs(way - now) < 1.2 * math.pi), key=lambda way: abs(way - now))
    chosen = next((way for way in ways if arm.is_comfortable(position, pointing_down(way))), ways[0])
    return pointing_down(chosen)


@skill
def reach(context: Context, object: str, height: float = HOVER, gripper: float = OPEN) -> Iterator[Waypoint]:
    """Bring the tool over an object, `height` above its grasp [m]."""
    position, rotation = grasp_pose(context, object)
    yield Waypoint(position=position + up(height), rotation=rotation, gripper=gripper, tolerance=0.015)


@skill
def grasp(
    context: Context,
    object: str,
    axis: str = "",
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    hover: float = HOVER,
) -> Iterator[Waypoint]:
    """Take hold of an object from above; a grasp that missed is tried again."""
    for _ in range(TRIES):
        position, rotation = grasp_pose(context, object, axis=axis, offset=offset)
        yield Waypoint(position=position + up(hover), rotation=rotation, gripper=OPEN, tolerance=0.012)
        position, rotation = grasp_pose(context, object, axis=axis, offset=offset)
        yield Waypoint(position=position, rotation=rotation, speed=0.5, tolerance=0.006)
        yield Waypoint(gripper=CLOSED, tolerance=0.02, dwell=CLOSING_STEPS)
        if context.arm.holds(object):
            return


@skill
def lift(context: Context, height: float = 0.1) -> Iterator[Waypoint]:
    """Raise the hand by `height` [m]."""
    yield Waypoint(position=context.arm.position + up(height), speed=0.6, tolerance=0.015)


def carry(
    context: Context, object: str, to: np.ndarray, turn: float = 0.0, *, upright: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tool's pose that brings a held object to `to` (3,), turned by `turn` about z [rad].

    With `upright`, the tool also makes up for the object's having tilted between the fingers.
    """
    held = context.scene.position(object) - context.arm.position
    about = rotated(np.eye(3), np.array([0.0, 0.0, 1.0]), turn)
    if upright:
        about = about @ righted(context.scene.rotation(object))
    return to - about @ held, about @ context.arm.rotation


@skill
def place(
    context: Context,
    object: str,
    onto: str = "",
    at: str = "",
    clearance: float = 0.07,
    align: float = 0.0,
    drop: float = 0.003,
    offset: Sequence[float] = (0.0, 0.0),
) -> Iterator[Waypoint]:
    """Put a held object down.

    Args:
        context: The scene and the arm.
        object: What is held.
        onto: Body to put it on: over its origin, on its top.
        at: Site to put it at: its origin over the site's.
        clearance: Height over the resting place at which it is brought there [m].
        align: Symmetry of the object about z [rad]; it is turned like what it is put on or at. 0 does not turn it.
        drop: Height over the resting place at which it is let go [m].
        offset: Of the place, along x and y of the world [m].
    """
    scene = context.scene

    def resting_place() -> tuple[np.ndarray, float]:
        base, rotation = scene.site(at) if at else (scene.position(onto), scene.rotation(onto))
        top = base[2] + (0.0 if at else scene.shape(onto).half[2])
        place = np.array([base[0] + offset[0], base[1] + offset[1], top + scene.shape(object).half[2]])
        yaw = yaw_of(scene.rotation(object))
        return place, nearest_turn(yaw_of(rotation), yaw, align) - yaw if align else 0.0

    for height, speed, tolerance in ((clearance, 0.8, 0.01), (clearance, 0.4, 0.006), (drop, 0.3, 0.006)):
        target, turn = resting_place()
        position, rotation = carry(context, object, target + up(height), turn)
        yield Waypoint(position=position, rotation=rotation, speed=speed, tolerance=tolerance, dwell=1)
    yield from release(context)


@skill
def release(context: Context, height: float = 0.08) -> Iterator[Waypoint]:
    """Open the gripper and raise the hand by `height` [m]."""
    yield Waypoint(position=context.arm.position, gripper=OPEN, tolerance=0.03, dwell=7)
    yield Waypoint(position=context.arm.position + up(height), speed=0.6, tolerance=0.02)


@skill
def stack(context: Context, object: str, onto: str, align: float = math.pi / 2) -> Iterator[Waypoint]:
    """Grasp an object, lift it and put it on another one."""
    yield from grasp(context, object)
    yield from lift(context, height=0.08)
    yield from place(context, object, onto=onto, align=align, clearance=0.06)


@skill
def insert(
    context: Context,
    object: str,
    into: str,
    depth: float = 0.03,
    align: float = math.pi / 2,
    height: float = 0.05,
) -> Iterator[Waypoint]:
    """Let a held object down into a hole, slowly and straight, righted if it has tilted between the fingers.

    One that meets the rim is raised, aligned and let down again.

    Args:
        context: The scene and the arm.
        object: What is held; its lower end goes first.
        into: Site in the middle of the hole's rim.
        depth: How far its lower end goes below the rim [m].
        align: Symmetry of the hole about z [rad].
        height: Over the rim, where the object is brought first [m].
    """
    scene = context.scene
    half = float(scene.shape(object).half[2])

    def over(above: float, speed: float, tolerance: float, dwell: int, timeout: int = 60) -> Waypoint:
        rim, rotation = scene.site(into)
        yaw = yaw_of(scene.rotation(object))
        turn = nearest_turn(yaw_of(rotation), yaw, align) - yaw
        position, rotation = carry(context, object, rim + up(half + above), turn, upright=True)
        return Waypoint(
            position=position, rotation=rotation, speed=speed, tolerance=tolerance,
            angle_tolerance=0.03, dwell=dwell, timeout=timeout,
        )  # fmt: skip

    def has_entered() -> bool:
        lower = scene.position(object) - half * np.abs(scene.rotation(object)[2, 2]) * up(1.0)
        return bool(scene.site(into)[0][2] - lower[2] > ENTRY / 2)

    yield over(height, 0.8, 0.01, 0)
    for first in (height, *(BACK_OFF,) * (TRIES - 1)):
        yield over(first, 0.3, 0.003, 3)
        yield over(0.006, 0.15, 0.003, 2)
        yield over(-ENTRY, 0.12, 0.006, 0, timeout=ENTRY_STEPS)
        if has_entered():
            break
    yield over(-depth, 0.12, 0.006, 1)
    yield from release(context)


@skill
def rotate(context: Context, object: str, angle: float) -> Iterator[Waypoint]:
    """Turn a held object about z by `angle` [deg] where it is, and let it go."""
    rotation = context.arm.rotation
    steps = max(1, math.ceil(abs(angle) / 20))
    for step in range(1, steps + 1):
        turned = rotated(rotation, np.array([0.0, 0.0, 1.0]), math.radians(angle) * step / steps)
        yield Waypoint(position=context.arm.position, rotation=turned, tolerance=0.02, angle_tolerance=0.1)
    yield from release(context)
