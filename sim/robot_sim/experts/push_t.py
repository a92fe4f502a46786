"""A scripted demonstrator of PushT: plan one straight push, carry it out, look again.

A push is a place on the block's outline and a length. What it does to the block is predicted by the quasi-static
model of Lynch and Mason (1996): with sticking contact at ``p`` (from the centre of friction) and an ellipsoidal limit
surface of characteristic length ``c``, pushing with velocity ``u`` moves the block by

    v = ((c^2 + p p^T) u) / (c^2 + |p|^2),    w = (p x v) / c^2.

The push is chosen that brings the block's corners closest to where they belong. The model need not be exact: a push
ends as soon as it no longer helps, and the next one is planned from where the block then is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robot_sim.task import Observation, TaskEnv
from robot_sim.tasks.push_t_geometry import CENTRE, OUTLINE

SPACING = 0.005  # of contact places along the outline [m]
CORNER = 0.004  # contacts keep this far from outer corners [m]
CHARACTERISTIC = 0.045  # c: largest moment over largest force of the block's friction [m]
LENGTHS = np.array([0.002, 0.004, 0.007, 0.012, 0.02, 0.03, 0.045, 0.06])  # of a push [m]
SLICES = 6  # a push is integrated in so many parts
CLEARANCE = 0.012  # between pusher and block on the way round it [m]
DETOUR = 0.02  # what a push must gain more for every metre of way to its start [m]
SLOW, FAST = 0.02, 0.05  # how far ahead of the pusher to aim, pushing and on the way [m]
NEAR, PASSING = 0.006, 0.018  # distance at which a place counts as reached, to stop at and to pass by [m]
LOST = 40  # steps after which the pusher gives a place on its way up
RESPONSE = 0.3  # share of its lead that an unhindered pusher, whoever carries it, makes in one step at least
LEARNING = 0.4  # share of what one step says of the pusher's hindrance that is believed
HINDRANCE = 0.025  # largest allowance for it [m]
PATIENCE = 5  # steps without progress that end a push
DEFAULT_NOISE = 0.002  # [m]


@dataclass(frozen=True)
class Situation:
    """What the demonstrator sees; world frame, metres and radians.

    Attributes:
        pusher: Where the pusher is (2,).
        block: Origin (2,) and angle of the block (3,).
        target: The same of the target (3,).
    """

    pusher: np.ndarray
    block: np.ndarray
    target: np.ndarray


class PushTView(Protocol):
    """What a PushT task tells its expert."""

    pusher_radius: float
    low: np.ndarray  # smallest place of the pusher (2,) [m]
    high: np.ndarray  # largest place of the pusher (2,) [m]

    def situation(self, env: TaskEnv) -> Situation:
        """Return where everything is in environment 0."""
        ...


def _contacts() -> tuple[np.ndarray, np.ndarray]:
    """Places on the outline (C, 2) and inward normals (C, 2), block frame."""
    places: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    for start, end in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        length = float(np.linalg.norm(end - start))
        along = (end - start) / length
        inward = np.array([-along[1], along[0]])
        for s in np.arange(CORNER, length - CORNER, SPACING):
            place = start + s * along
            if abs(inward[1]) > 0.5 and inward[1] < 0 and abs(place[0]) < 0.015 + 0.019 and place[1] < 0.1:
                continue  # beside the stem: the pusher would touch both bar and stem
            if abs(inward[0]) > 0.5 and 0.03 < place[1] < 0.05:
                continue
            places.append(place)
            normals.append(inward)
    return np.array(places), np.array(normals)


PLACES, NORMALS = _contacts()
_ARMS = OUTLINE - CENTRE


def predict(block: np.ndarray, contact: np.ndarray, direction: np.ndarray, length: float) -> np.ndarray:
    """Return the poses (C, 3) of a block (3,) after pushes.

    Args:
        block: Origin and angle, world frame.
        contact: Places of contact, block frame (C, 2).
        direction: Directions of the pushes, block frame, unit length (C, 2); kept in the world while pushing.
        length: Of the pushes [m].
    """
    c, s = math.cos(block[2]), math.sin(block[2])
    turn = np.array([[c, -s], [s, c]])
    centre = np.tile(block[:2] + turn @ CENTRE, (len(contact), 1))
    yaw = np.full(len(contact), block[2])
    push = direction @ turn.T * (length / SLICES)
    arm = (contact - CENTRE) @ turn.T
    for _ in range(SLICES):
        square = CHARACTERISTIC**2
        along = (arm * push).sum(axis=1, keepdims=True)
        moved = (square * push + arm * along) / (square + (arm**2).sum(axis=1, keepdims=True))
        angle = (arm[:, 0] * moved[:, 1] - arm[:, 1] * moved[:, 0]) / square
        centre, yaw = centre + moved, yaw + angle
        cosine, sine = np.cos(angle), np.sin(angle)
        arm = np.stack([cosine * arm[:, 0] - sine * arm[:, 1], sine * arm[:, 0] + cosine * arm[:, 1]], axis=1)
    cosine, sine = np.cos(yaw), np.sin(yaw)
    origin = centre - np.stack(
        [cosine * CENTRE[0] - sine * CENTRE[1], sine * CENTRE[0] + cosine * CENTRE[1]], axis=1
    )
    return np.concatenate([origin, yaw[:, None]], axis=1)


def distance(blocks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the root mean square distance of the corners of blocks (C, 3) from the target's (3,), (C,) [m]."""
    cosine, sine = np.cos(blocks[:, 2:]), np.sin(blocks[:, 2:])
    x = cosine * OUTLINE[:, 0] - sine * OUTLINE[:, 1] + blocks[:, :1]
    y = sine * OUTLINE[:, 0] + cosine * OUTLINE[:, 1] + blocks[:, 1:2]
    c, s = math.cos(target[2]), math.sin(target[2])
    goal = OUTLINE @ np.array([[c, s], [-s, c]]) + target[:2]
    return np.sqrt(((x - goal[:, 0]) ** 2 + (y - goal[:, 1]) ** 2).mean(axis=1))


class PushTExpert:
    """See the module's docstring.

    Args:
        view: What the task tells; see `PushTView`.
        noise: Standard deviation of the disturbance of the action, executed, not recorded [m].
    """

    def __init__(self, view: PushTView, *, noise: float = DEFAULT_NOISE) -> None:
        self._view, self._noise = view, noise
        self._env: TaskEnv | None = None
        self._random = np.random.default_rng(0)
        self._route: list[tuple[np.ndarray, float]] = []
        self._goal = np.zeros(2)
        self._direction = np.zeros(2)
        self._best, self._stale = math.inf, 0
        self._on_the_way = 0
        self._hindrance, self._lead = 0.0, 0.0
        self._before = np.zeros(2)

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Forget the last episode; `seed` fixes the noise."""
        self._env = env
        self._random = np.random.default_rng([seed, 1])
        self._route, self._best, self._stale = [], -math.inf, 0
        self._on_the_way = 0
        self._hindrance, self._lead = 0.0, 0.0

    def act(self, observation: Observation) -> np.ndarray:
        """Return where to pull the pusher (2,) [m]."""
        del observation
        assert self._env is not None, "reset comes first"
        now = self._view.situation(self._env)
        if not self._route and self._is_over(now):
            self._plan(now)
        while self._route:
            place, near = self._route[0]
            self._on_the_way += 1
            if np.linalg.norm(place - now.pusher) > near and self._on_the_way < LOST:
                return _towards(now.pusher, place, FAST)
            self._route.pop(0)
            self._on_the_way = 0
        ahead = float((self._goal - now.pusher) @ self._direction)
        self._learn_hindrance(now)
        self._lead = min(max(ahead, 0.0) + 0.004, SLOW) + self._hindrance
        self._before = now.pusher.copy()
        aim = now.pusher + self._direction * self._lead
        aside = self._goal - now.pusher - self._direction * ahead
        return (aim + aside).astype(np.float32)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        return (action + self._random.normal(0.0, self._noise, 2)).astype(np.float32)

    def _learn_hindrance(self, now: Situation) -> None:
        """Learn how far ahead the pusher must be pulled before it moves.

        A pusher is pulled to its goal as by a spring, and the block's friction holds it back by so many millimetres:
        2 with a Panda, 8 with a UR5e, whose hand yields more to the same force. Without an allowance for it a push
        creeps over its last millimetres for seconds.
        """
        if self._lead == 0.0:
            return  # the first step of a push says nothing
        moved = float((now.pusher - self._before) @ self._direction)
        seen = self._lead - moved / RESPONSE
        self._hindrance += LEARNING * (seen - self._hindrance)
        self._hindrance = min(max(self._hindrance, 0.0), HINDRANCE)

    def _is_over(self, now: Situation) -> bool:
        """Whether the push has done what it can."""
        left = float(distance(now.block[None], now.target)[0])
        if left < self._best - 1e-4:
            self._best, self._stale = left, 0
        else:
            self._stale += 1
        done = float((self._goal - now.pusher) @ self._direction) < 0.001
        return done or self._stale > PATIENCE or left > self._best + 0.002

    def _plan(self, now: Situation) -> None:
        """Choose the next push and the way to its start."""
        radius = self._view.pusher_radius
        c, s = math.cos(now.block[2]), math.sin(now.block[2])
        turn = np.array([[c, -s], [s, c]])
        starts = (PLACES - NORMALS * (radius + CLEARANCE)) @ turn.T + now.block[:2]
        way = DETOUR * np.linalg.norm(starts - now.pusher, axis=1)
        outside = (starts < self._view.low) | (starts > self._view.high)
        way[outside.any(axis=1)] = 1.0  # more than any push can gain: taken only if there is nothing else
        best = (math.inf, 0, 0.0)
        for length in LENGTHS:
            cost = distance(predict(now.block, PLACES, NORMALS, length), now.target) + way
            index = int(np.argmin(cost))
            best = min(best, (float(cost[index]), index, float(length)))
        _, index, length = best
        self._direction = turn @ NORMALS[index]
        self._goal = starts[index] + self._direction * (CLEARANCE + length)
        self._route = [
            (np.clip(place, self._view.low, self._view.high), near)
            for place, near in self._way(now, starts[index])
        ]
        self._best, self._stale = math.inf, -round(CLEARANCE / 0.004)
        self._hindrance, self._lead = 0.0, 0.0

    def _way(self, now: Situation, start: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Return places on the way to `start` that keep clear of the block: round it in a circle.

        With each comes the distance at which it counts as reached [m]: on the circle the pusher does not stop.
        """
        c, s = math.cos(now.block[2]), math.sin(now.block[2])
        centre = now.block[:2] + np.array([[c, -s], [s, c]]) @ CENTRE
        radius = float(np.linalg.norm(_ARMS, axis=1).max()) + self._view.pusher_radius + CLEARANCE
        here, there = now.pusher - centre, start - centre
        begin, end = math.atan2(here[1], here[0]), math.atan2(there[1], there[0])
        turn = (end - begin + math.pi) % (2 * math.pi) - math.pi
        if abs(turn) < 0.15 and np.linalg.norm(here) > np.linalg.norm(there) - 0.01:
            return [(start, NEAR)]
        back = now.pusher - 0.5 * self._direction * CLEARANCE
        steps = max(1, math.ceil(abs(turn) / 0.5))
        arc = [begin + turn * i / steps for i in range(steps + 1)]
        circle = [centre + radius * np.array([math.cos(a), math.sin(a)]) for a in arc]
        passed = [(place, PASSING) for place in circle[1:-1]]
        return [(back, NEAR), (circle[0], NEAR), *passed, (circle[-1], NEAR), (start, NEAR)]


def _towards(here: np.ndarray, there: np.ndarray, most: float) -> np.ndarray:
    way = there - here
    return (here + way * min(1.0, most / max(float(np.linalg.norm(way)), 1e-9))).astype(np.float32)
