"""Evaluation on a Ray cluster, here a local one: the code path and the results of local workers."""

import numpy as np
import pytest

from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.video import VideoConfig

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'robot-policies[distributed]'")

SEEDS = range(1000, 1008)
CLOCKS = ("wall_time_s", "policy_latency_ms", "failure", "failure_details")


@pytest.fixture
def cluster():
    """A local Ray; starting it takes seconds."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_ray_gives_the_results_of_local_workers(cluster, policy, point_mass, tmp_path):
    """To the last bit, while an actor dies twice of one episode and another one raises; each seed counts once."""
    task = point_mass(dies=(1001,), raises=(1004,))
    local = evaluate_policy(policy, task, SEEDS, workers=2, n_envs=4)
    seen = []
    remote = evaluate_policy(
        policy,
        task,
        SEEDS,
        workers=2,
        pool="ray",
        n_envs=4,
        on_result=seen.append,
        video=VideoConfig(keep="first-n", count=1),
        video_folder=tmp_path / "videos",
    )
    assert sorted(result.seed for result in seen) == list(SEEDS)
    assert [result.seed for result in remote if result.failure] == [1001, 1004]
    assert "died 2 times in this episode (Ray says" in remote[1].failure
    assert "fell off the plane" in remote[4].failure
    for a, b in zip(local, remote, strict=True):
        there, here = (
            {key: value for key, value in result.record().items() if key not in CLOCKS} for result in (a, b)
        )
        assert there == here
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.rewards, b.rewards)
    assert (tmp_path / "videos" / "1000.mp4").stat().st_size > 0
