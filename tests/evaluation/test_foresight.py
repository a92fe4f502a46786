"""Predicted frames of an evaluation: kept by chunk, paired with what happened, shown in the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_datasets.features import IMAGE_PREFIX, Feature
from robot_policies.evaluation.environments import LocalPool, RolloutPlan
from robot_policies.evaluation.foresight import FOLDER, Foresight, ForesightLog, Watch, read_seen
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.evaluation.report_foresight import foresight_section
from robot_policies.evaluation.rollout import Rollout, film_results
from robot_policies.execution import build_executor
from robot_policies.policy import ActionChunk, Policy, PredictedFrames
from robot_policies.spec import PolicySpec

TOP = IMAGE_PREFIX + "top"


class FilmedPoint(PointMass):
    """A point mass that is also observed by a camera."""

    def __init__(self) -> None:
        super().__init__(max_steps=12, image_size=16)
        self.task_spec = self.task_spec.__class__(
            **{
                **vars(self.task_spec),
                "observation": {
                    **self.task_spec.observation,
                    TOP: Feature(dtype="uint8", shape=(16, 16, 3)),
                },
            }
        )

    def _observe(self) -> dict[str, np.ndarray]:
        return {**super()._observe(), TOP: self.render()}


class Seer(Policy):
    """Stays where it is, and expects to see grey levels that tell chunk and offset apart."""

    def __init__(self) -> None:
        super().__init__(
            PolicySpec(
                observation={"observation.state": POSITION},
                action=VELOCITY,
                n_obs_steps=1,
                horizon=5,
                n_action_steps=5,
                fps=FPS,
                future={TOP: (2, 5)},
            )
        )
        self.calls = 0

    def compute_loss(self, batch: Any) -> Any:
        raise NotImplementedError

    def predict_chunk(self, observation: Any, **_: Any) -> ActionChunk:
        size = self.check_observation(observation)
        frames = torch.empty(size, 2, 3, 8, 8, dtype=torch.uint8)
        frames[:, 0], frames[:, 1] = 10 * self.calls, 10 * self.calls + 1
        self.calls += 1
        return ActionChunk(
            actions=torch.zeros(size, 5, 2),
            n_network_calls=1,
            predicted_frames=PredictedFrames(frames={TOP: frames}, offsets={TOP: (2, 5)}),
        )


@pytest.fixture
def evaluated(tmp_path: Path) -> tuple[Path, list[Any]]:
    """Six episodes of the seer, filmed into a results folder."""
    policy = Seer()
    plan = RolloutPlan(make_env=FilmedPoint, spec=policy.spec, executor=build_executor(None, policy.spec))
    pool = LocalPool(plan)
    results = Rollout(pool, policy).run(range(6), 6)
    for result in results:
        if result.foresight is not None:
            result.foresight.save(tmp_path, result.seed)
    film_results(pool, results[:2], tmp_path / "videos", 2)
    pool.close()
    return tmp_path, results


def test_predictions_are_kept_by_chunk_for_the_first_episodes(evaluated: Any) -> None:
    """Steps 0, 5 and 10 of an episode of twelve steps, and only four episodes."""
    _, results = evaluated
    assert [result.foresight is not None for result in results] == [True] * 4 + [False] * 2
    foresight = results[0].foresight
    assert foresight.steps.tolist() == [0, 5, 10]
    assert foresight.offsets.tolist() == [2, 5]
    assert foresight.predicted.shape == (3, 2, 8, 8, 3)
    assert foresight.predicted[:, :, 0, 0, 0].tolist() == [[0, 1], [10, 11], [20, 21]]
    assert "foresight" not in results[0].record()


def test_what_happened_is_taken_from_the_replay(evaluated: Any) -> None:
    """The watched steps are those of chunks and offsets, as far as the episode went; frames are the camera's."""
    folder, _ = evaluated
    seen = read_seen(folder, 0)
    assert sorted(seen) == [0, 2, 5, 7, 10, 12]
    env = FilmedPoint()
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(seen[0], observation[TOP])
    for _ in range(2):
        observation, *_ = env.step(np.zeros(2))
    np.testing.assert_array_equal(seen[2], observation[TOP])
    assert read_seen(folder, 3) == {}


def test_the_report_shows_both_side_by_side(evaluated: Any) -> None:
    """Of each filmed episode: three rows of what was seen, expected and there; what never came is said."""
    folder, _ = evaluated
    page = foresight_section(folder)
    assert page.count("seed ") == 2
    # Per episode: 3 chunks x (now, 2 expected) pictures, and 4 of the 6 later frames were seen.
    assert page.count("data:image/png") == 2 * (9 + 5)
    assert page.count("the episode was over") == 2
    assert foresight_section(folder / "nowhere") == ""


def test_files_come_back(tmp_path: Path) -> None:
    """Saving and loading keeps every number; nothing is watched where nothing was predicted."""
    before = Foresight(
        camera=TOP,
        steps=np.array([0, 8]),
        offsets=np.array([8]),
        predicted=np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 1, 4, 4, 3),
    )
    before.save(tmp_path, 7)
    after = Foresight.load(tmp_path / FOLDER / "7.npz")
    np.testing.assert_array_equal(after.predicted, before.predicted)
    assert after.watched.tolist() == [0, 8, 16]
    watch = Watch.of(tmp_path, 7)
    assert watch is not None
    assert watch.camera == TOP
    assert Watch.of(tmp_path, 8) is None
    assert ForesightLog().result() is None
