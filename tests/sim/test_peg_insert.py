"""Peg insertion with the Robotiq gripper: a linkage that stays parallel, and a peg that met the rim tried again."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from robot_sim.registry import make_expert, make_task


@dataclass
class _Played:
    """One episode: whether the peg went in, how far linkages gave way under the grip [rad], waypoints of insert."""

    success: bool = False
    worst_linkage: float = 0.0
    waypoints: list[Any] = field(default_factory=list)


@pytest.fixture(scope="module")
def played() -> _Played:
    """An episode of the UR5e in which the peg meets the rim of the hole."""
    pytest.importorskip("robosuite", reason="the arms come from robosuite")
    seed, found = 6, _Played()
    env: Any = make_task("tabletop_peg_insert", arm="ur5e")
    expert: Any = make_expert("tabletop_peg_insert")
    try:
        observation, _ = env.reset(seed=seed)
        expert.reset(env, seed)
        task, done = env.simulation.task, False
        mount = task.arm.mount
        pairs = [(joint, *driven) for joint, driven in mount.gripper_model.linkage.items()]
        while not done:
            observation, _, terminated, truncated, info = env.step(expert.perturb(expert.act(observation)))
            found.success = found.success or info["is_success"]
            done = terminated or truncated or found.success
            follower = expert._followers[0]
            if follower.skill == "insert" and all(follower._current is not w for w in found.waypoints):
                found.waypoints.append(follower._current)
            if follower.skill == "lift":
                joints = {
                    name: task.joint(env.simulation, mount.prefix + name)[0]
                    for pair in pairs
                    for name in pair[:2]
                }
                gaps = [abs(joints[joint] - ratio * joints[driver]) for joint, driver, ratio in pairs]
                found.worst_linkage = max(found.worst_linkage, *map(float, gaps))
    finally:
        env.close()
    return found


def test_the_grip_does_not_bend_the_linkage(played: _Played) -> None:
    """Pads stay parallel within a degree while the peg is held, so that it does not turn about an edge of theirs."""
    assert 0 < played.worst_linkage < np.radians(1.0)


def test_a_peg_on_the_rim_is_raised_and_let_down_again(played: _Played) -> None:
    """The hand goes over the hole more than once, and the peg ends in it."""
    heights = [waypoint.position[2] for waypoint in played.waypoints]
    assert np.any(np.diff(heights[1:]) > 0.01)
    assert played.success
