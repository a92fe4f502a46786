"""The PushT task: the published benchmark's initial states, keypoints, physics and baselines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

pytest.importorskip("gym_pusht", reason="the sim extra is not installed")

from gym_pusht.envs.pusht import PushTEnv

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.registry import make_task
from robot_sim.task import Observation, TaskEnv
from robot_sim.tasks import pusht
from robot_sim.testing import TaskTests


@pytest.fixture(scope="module")
def env() -> Iterator[TaskEnv]:
    """The state-only task."""
    task = make_task("pusht")
    yield task
    task.close()


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> dict[str, np.ndarray]:
    """Low-dimensional columns and the first images of the published human demonstrations."""
    path = shared_data / "pusht" / "pusht_cchi_v7_replay.zarr.zip"
    if not path.is_file():
        pytest.skip(f"no recorded PushT demonstrations at {path}")
    with ZipStore(path, mode="r") as store:
        data: Any = zarr.open_group(store, path="data", mode="r")
        columns = {name: np.asarray(data[name][:]) for name in ("state", "keypoint", "action")}
        columns["img"] = np.asarray(data["img"][:120])
    return columns


class TestContract(TaskTests):
    """PushT keeps the promises of the task contract."""

    n_steps = 40

    def make_env(self) -> TaskEnv:
        """Build the task."""
        return make_task("pusht")

    def idle_action(self, env: TaskEnv, observation: Observation) -> np.ndarray:
        """Stay where the agent is."""
        return observation[STATE]


def _play(env: TaskEnv, seed: int, actions: np.ndarray | None) -> float:
    """Largest reward of an episode that repeats `actions`, or holds still for None."""
    observation, _ = env.reset(seed=seed)
    best = 0.0
    for step in range(env.task_spec.max_steps):
        action = observation[STATE] if actions is None else actions[step]
        _, reward, terminated, _, _ = env.step(action)
        best = max(best, reward)
        if terminated:
            break
    return best


def test_initial_state_is_the_legacy_one(env: TaskEnv) -> None:
    """Seed 100000 puts the block where the Diffusion Policy benchmark has it."""
    requested = pusht.legacy_initial_state(100_000)
    assert requested[:4].tolist() == [235, 124, 335, 128]
    observation, _ = env.reset(seed=100_000)
    expected = pusht.block_keypoints(299.61288530901334, 145.20158073114663, 5.378257878755161)
    np.testing.assert_allclose(observation[ENVIRONMENT_STATE], expected.reshape(-1), atol=1e-3)


def test_steps_are_those_of_gym_pusht(env: TaskEnv) -> None:
    """Positions equal gym-pusht's own bit for bit over a contact-rich episode, coverage but for the last bit."""
    original: Any = PushTEnv(obs_type="state")
    original.reset(options={"reset_to_state": pusht.legacy_initial_state(3)})
    env.reset(seed=3)
    random = np.random.default_rng(0)
    touched = False
    for _ in range(200):
        block = np.array(original.block.position)
        action = (block + random.normal(0, 60, 2)).clip(0, 512).astype(np.float32)
        state, reward, _, _, expected = original.step(action.astype(np.float64))
        observation, ours, _, _, info = env.step(action)
        assert (ours, info["coverage"]) == pytest.approx((reward, expected["coverage"]), rel=1e-14)
        np.testing.assert_array_equal(observation[STATE], state[:2].astype(np.float32))
        ours_block = env._benchmark.block  # type: ignore[attr-defined]
        assert (*ours_block.position, ours_block.angle) == (*original.block.position, original.block.angle)
        touched = touched or bool(np.abs(state[2:4] - block).max() > 1)
    assert touched


@pytest.mark.parametrize(("policy", "expected"), [("noop", 0.076), ("random", 0.117)])
def test_baselines_are_the_published_protocols(env: TaskEnv, policy: str, expected: float) -> None:
    """Holding still and uniform random targets score over the 50 held-out seeds as measured elsewhere."""
    scores = []
    for seed in range(100_000, 100_050):
        actions = np.random.default_rng(seed).uniform(0, 512, (300, 2)) if policy == "random" else None
        scores.append(_play(env, seed, actions))
    assert np.mean(scores) == pytest.approx(expected, abs=5e-4)


def test_keypoints_are_those_of_the_published_data(
    recorded: dict[str, np.ndarray],
) -> None:
    """The recorded keypoints are our nine in the recorded block's frame, in the same order.

    The recorder read them a moment after the state, so while the disc pushes the block they lag apart:
    rows without contact agree to float32, the others as a rigid body that has moved on by a hair.
    """
    ours = np.array([pusht.block_keypoints(*row[2:]) for row in recorded["state"].astype(np.float64)])
    error = np.abs(ours - recorded["keypoint"]).max(axis=(1, 2))
    assert len(error) == 25_650
    assert np.median(error) < 3e-5
    assert (error < 1e-3).mean() > 0.75
    assert np.quantile(error, 0.99) < 0.1
    shape = ours - ours.mean(axis=1, keepdims=True)
    other = recorded["keypoint"] - recorded["keypoint"].mean(axis=1, keepdims=True)
    distances = [np.linalg.norm(k[:, :, None] - k[:, None], axis=-1) for k in (shape, other)]
    np.testing.assert_allclose(*distances, atol=1e-3)


def test_keypoint_constants_are_the_benchmarks_random_shifts() -> None:
    """The sub-pixel parts are the uniform numbers that follow the benchmark's first draw from seed 0."""
    random = np.random.default_rng(0)
    random.random()
    np.testing.assert_allclose(pusht.BLOCK_KEYPOINTS % 1.0, random.uniform(0, 1, (9, 2)), atol=1e-12)


def test_recorded_actions_reproduce_recorded_states(env: TaskEnv, recorded: dict[str, np.ndarray]) -> None:
    """Replaying the first human episode open loop ends where the human's ended, to float32."""
    state, action = recorded["state"].astype(np.float64), recorded["action"]
    env.reset(seed=0, options={"state": state[0]})
    for step in range(160):
        observation, *_ = env.step(action[step])
        expected = pusht.block_keypoints(*state[step + 1, 2:])
        np.testing.assert_allclose(observation[STATE], state[step + 1, :2], atol=1e-3)
        np.testing.assert_allclose(observation[ENVIRONMENT_STATE], expected.reshape(-1), atol=1e-2)


def test_images_look_like_the_recorded_ones(recorded: dict[str, np.ndarray]) -> None:
    """Same view, colour order and no action marker; only anti-aliased outlines differ."""
    env = make_task("pusht", images=True)
    for step in (0, 60, 119):
        observation, _ = env.reset(seed=0, options={"state": recorded["state"][step]})
        image = observation[pusht.IMAGE].astype(np.float64)
        error = np.abs(image - recorded["img"][step])
        assert error.mean() < 0.2
        assert (error.max(axis=-1) > 20).mean() < 0.005
    env.close()


def test_the_video_frame_marks_the_action_but_the_observation_does_not() -> None:
    """`render` shows a red cross at the last action; the camera image never does."""
    env = make_task("pusht", images=True, render_size=128)
    env.reset(seed=5)
    observation, *_ = env.step(np.array([400.0, 100.0]))
    red = np.array([255, 0, 0])
    assert (np.asarray(env.render()) == red).all(axis=-1).any()
    assert not (observation[pusht.IMAGE] == red).all(axis=-1).any()
    env.close()


def test_reaching_the_goal_succeeds_and_terminates(env: TaskEnv) -> None:
    """A block on its target has full coverage: reward 1, success, end of the episode."""
    env.reset(seed=0, options={"state": [60.0, 60.0, 256.0, 256.0, np.pi / 4]})
    _, reward, terminated, truncated, info = env.step(np.array([60.0, 60.0]))
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def test_the_goal_is_what_is_observed_on_the_target(env: TaskEnv) -> None:
    """A block on its target is observed where `goal` says; where the agent has to be it does not say."""
    observation, _ = env.reset(seed=0, options={"state": [60.0, 60.0, 256.0, 256.0, np.pi / 4]})
    goal = env.goal()
    assert set(goal) == {ENVIRONMENT_STATE}
    np.testing.assert_allclose(goal[ENVIRONMENT_STATE], observation[ENVIRONMENT_STATE], atol=1e-3)
