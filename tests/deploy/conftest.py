"""Shared by the tests of deployment: the published limits of a Panda, and a ROS domain of one's own."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_datasets.features import Feature, is_image
from robot_deploy.motion.limits import MotionLimits

HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
LIFT_START = np.array(
    [0.0, np.pi / 16, 0.0, -np.pi / 2 - np.pi / 3, 0.0, np.pi - 0.2, np.pi / 4]
)  # robosuite's


@pytest.fixture
def home() -> np.ndarray:
    """A pose of the Panda in the middle of its range, (7,) rad."""
    return HOME.copy()


@pytest.fixture
def panda() -> MotionLimits:
    """The Panda's published limits with a margin of 0.1 rad."""
    return MotionLimits(
        names=tuple(f"panda_joint{i}" for i in range(1, 8)),
        lower=np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]),
        upper=np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
        velocity=np.array([2.175] * 4 + [2.61] * 3),
        acceleration=np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0]),
        jerk=np.array([7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0]),
    ).shrunk(0.1)


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Environment variables of a ROS domain that only this test and its child processes use.

    Message fields are checked while tests run; rclpy leaves that off by default.
    """
    pytest.importorskip(
        "rclpy", reason="rclpy is not installed: source ROS 2, or use the extra 'rclpy'", exc_type=ImportError
    )
    from robot_deploy.nodes.isolation import own_domain

    with own_domain() as variables:
        variables["ROS_PYTHON_CHECK_FIELDS"] = "1"
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield variables


STILL_POLICY = {
    "policy": {
        "type": "regression",
        "network": {"type": "mlp", "width": 16, "n_blocks": 1, "expansion": 1, "step_embed_dim": 8},
    }
}


def make_still_checkpoint(
    folder: Path,
    policy: Mapping[str, Any],
    observation: Mapping[str, Feature],
    action: Feature,
    middle: np.ndarray,
    fps: float = 5.0,
) -> Path:
    """An untrained policy whose actions stay within 0.01 of `middle`, written to a folder.

    At 5 Hz a chunk lasts for seconds: a busy machine's inference comes in time.
    """
    from robot_policies.checkpoint import save_policy
    from robot_policies.policies import build_policy
    from robot_policies.spec import PolicySpec

    spec = PolicySpec(
        observation=dict(observation),
        action=action,
        n_obs_steps=2,
        horizon=16,
        n_action_steps=8,
        fps=fps,
    )
    numbers = {name: feature for name, feature in observation.items() if not is_image(name)}
    middles = {name: np.zeros(feature.shape) for name, feature in numbers.items()} | {"action": middle}
    reach = dict.fromkeys(numbers, 1.0) | {"action": 0.01}
    stats = {
        name: {
            "min": m - reach[name],
            "max": m + reach[name],
            "mean": m,
            "std": np.full(m.shape, reach[name]),
        }
        for name, m in middles.items()
    }
    built = build_policy(policy["policy"], spec, stats)
    return save_policy(folder, built, config=dict(policy), stats=stats, dataset_card={})


@pytest.fixture(scope="session")
def make_still() -> Callable[..., Path]:
    """`make_still_checkpoint`, for tests that need a policy of their own."""
    return make_still_checkpoint


@pytest.fixture(scope="session")
def lift_start() -> np.ndarray:
    """Where the task lift_joint starts: seven joints [rad], one finger [m]."""
    return np.array([*LIFT_START, 0.039])


@pytest.fixture(scope="session")
def still_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy for the task lift_joint, whose actions stay within 0.01 of where that task starts."""
    pytest.importorskip("robosuite", reason="the sim extra is not installed")
    from robot_sim.tasks.lift_joint import ACTION_FEATURE, FEATURES

    folder = tmp_path_factory.mktemp("policy") / "checkpoint"
    middle = np.array([*LIFT_START, 0.039])
    return make_still_checkpoint(folder, STILL_POLICY, FEATURES, ACTION_FEATURE, middle)


@pytest.fixture(scope="session")
def push_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy for the task tabletop_push_t, which pulls the rod to places on the table."""
    from robot_policies.checkpoint import save_policy
    from robot_policies.policies import build_policy
    from robot_policies.spec import PolicySpec
    from robot_sim.twin.cell import load_cell
    from robot_sim.twin.scene import cell_task

    task = cell_task(load_cell("tabletop_push_t")).spec
    config = {
        "policy": {
            "type": "regression",
            "network": {"type": "mlp", "width": 16, "n_blocks": 1, "expansion": 1, "step_embed_dim": 8},
        }
    }
    spec = PolicySpec(
        observation=dict(task.observation), action=task.action, n_obs_steps=2, horizon=8, n_action_steps=4, fps=task.fps
    )  # fmt: skip
    stats = {}
    for name, feature in {**task.observation, "action": task.action}.items():
        ones = np.ones(feature.shape)
        stats[name] = {"min": -0.2 * ones, "max": 0.2 * ones, "mean": 0.0 * ones, "std": 0.2 * ones}
    folder = tmp_path_factory.mktemp("push") / "checkpoint"
    return save_policy(
        folder, build_policy(config["policy"], spec, stats), config=config, stats=stats, dataset_card={}
    )
