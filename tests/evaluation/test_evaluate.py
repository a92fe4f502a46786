"""The rollout loop: seeds own their episodes, trouble is recorded, configuration errors are early."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from robot_datasets.errors import DatasetError
from robot_policies.configuration import ConfigError
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.inference import episode_generator
from robot_policies.spec import SpecError

SEEDS = range(1000, 1012)


def without_times(result):
    """A result's record without what a clock measured."""
    return {k: v for k, v in result.record().items() if k not in ("wall_time_s", "policy_latency_ms")}


def test_one_result_per_seed_in_order(policy, point_mass):
    """Results come back in the order of the seeds, with chunks and network calls counted."""
    results = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=5)
    assert [r.seed for r in results] == list(SEEDS)
    assert all(r.n_chunks == -(-r.steps // 4) and r.n_network_calls == 3 * r.n_chunks for r in results)
    assert all(len(r.actions) == len(r.rewards) == r.steps for r in results)
    assert any(r.success for r in results)


def test_results_do_not_depend_on_the_number_of_environments(policy, point_mass):
    """Any batch size gives the same episodes up to rounding, and the same verdicts."""
    one = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=1)
    many = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=7)
    assert max(policy.batch_sizes) == 7
    for a, b in zip(one, many, strict=True):
        assert a.success_step == b.success_step
        np.testing.assert_allclose(a.actions, b.actions, rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_workers(policy, point_mass):
    """Worker processes change nothing at all: batches are composed by slot, not by arrival."""
    here = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=5)
    there = evaluate_policy(policy, point_mass(), SEEDS, workers=2, n_envs=5)
    for a, b in zip(here, there, strict=True):
        assert without_times(a) == without_times(b)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.rewards, b.rewards)


def test_a_seed_does_not_depend_on_which_other_seeds_run(policy, point_mass):
    """One seed alone and among others is the same episode."""
    alone = evaluate_policy(policy, point_mass(), [1005], workers=0)
    among = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=4)
    np.testing.assert_allclose(alone[0].actions, among[5].actions, rtol=1e-5, atol=1e-6)


def test_policy_seed_changes_the_noise_but_not_the_start(policy, point_mass):
    """Another policy seed repeats the initial state with other actions."""
    a = evaluate_policy(policy, point_mass(), [1000], workers=0, policy_seed=0)
    b = evaluate_policy(policy, point_mass(), [1000], workers=0, policy_seed=1)
    assert not np.array_equal(a[0].actions, b[0].actions)


def test_noise_streams_of_neighbouring_seeds_differ():
    """Generators of neighbouring seeds share no draws, and the same seed repeats them."""
    draws = [torch.randn(4, generator=episode_generator(s, 0)) for s in (7, 8, 7)]
    assert not torch.isclose(draws[0], draws[1]).any()
    assert torch.equal(draws[0], draws[2])


def test_an_exception_is_a_failed_episode(policy, point_mass):
    """An environment that raises is recorded with the exception's text; the others are untouched."""
    clean = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=4)
    results = evaluate_policy(policy, point_mass(raises=(1002, 1003)), SEEDS, workers=0, n_envs=4)
    failed = [r for r in results if r.failure]
    assert [r.seed for r in failed] == [1002, 1003]
    assert "fell off the plane (seed 1002)" in failed[0].failure
    assert "Traceback" in failed[0].failure_details
    assert (failed[0].score, failed[0].success, failed[0].steps) == (0, False, 2)
    for a, b in zip(clean, results, strict=True):
        assert b.failure or a.success_step == b.success_step


def test_a_dying_worker_costs_one_episode(policy, point_mass):
    """A killed worker is replaced; only the episode that kills it twice is recorded as failed."""
    clean = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=4)
    results = evaluate_policy(policy, point_mass(dies=(1001,)), SEEDS, workers=2, n_envs=4)
    assert [r.seed for r in results if r.failure] == [1001]
    assert "died 2 times" in results[1].failure
    assert "SIGKILL" in results[1].failure
    for a, b in zip(clean, results, strict=True):
        assert b.failure or a.success_step == b.success_step


def test_a_hanging_worker_is_killed(policy, point_mass):
    """An environment that never returns is cut off after the timeout and recorded."""
    results = evaluate_policy(
        policy, point_mass(hangs=(1001,)), range(1000, 1003), workers=1, n_envs=2, timeout_s=1.5
    )
    assert [bool(r.failure) for r in results] == [False, True, False]
    assert "no answer for 1.5 s" in results[1].failure


def test_nan_from_the_policy_is_a_failed_episode(policy, point_mass):
    """A chunk with NaN never reaches the environment; its episode is recorded as failed."""
    policy.spoil_call = 1
    results = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=4)
    assert [r.seed for r in results if r.failure] == [1000]
    assert "NaN" in results[0].failure
    assert results[0].steps == 0


def test_max_reward_score(policy, point_mass):
    """The score max_reward is the best reward of the episode, and the episode goes on after success."""
    results = evaluate_policy(policy, point_mass(score="max_reward"), SEEDS, workers=0)
    assert all(r.score == r.rewards.max() == r.max_reward for r in results)
    assert any(r.success_step is not None and r.success_step < r.steps for r in results)


def test_a_success_task_ends_with_success(policy, point_mass):
    """Under the score success nothing is simulated after the first success."""
    results = evaluate_policy(policy, point_mass(), SEEDS, workers=0)
    assert all(r.steps == r.success_step for r in results if r.success)
    assert all(r.score == float(r.success) for r in results)


def test_sampler_reaches_the_policy(policy, point_mass):
    """The sampler override is passed to every prediction."""
    evaluate_policy(policy, point_mass(), [1000], workers=0, sampler={"type": "ddim", "steps": 4})
    assert set(map(str, policy.samplers)) == {"{'type': 'ddim', 'steps': 4}"}


def test_results_are_reported_as_they_end(policy, point_mass):
    """`on_result` sees every result once."""
    seen = []
    results = evaluate_policy(policy, point_mass(), SEEDS, workers=0, n_envs=3, on_result=seen.append)
    assert sorted(r.seed for r in seen) == [r.seed for r in results]


def test_training_mode_comes_back(policy, point_mass):
    """Evaluation leaves a policy that was training in training mode."""
    policy.train()
    evaluate_policy(policy, point_mass(), [1000], workers=0)
    assert policy.training


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "got 0 episodes"), ([3, 4, 3], "3 is given twice"), ([-1], ">= 0")],
)
def test_bad_seeds(policy, point_mass, seeds, message):
    """No seeds, repeated seeds and negative seeds are configuration errors."""
    with pytest.raises(ConfigError, match=message):
        evaluate_policy(policy, point_mass(), seeds, workers=0)


@pytest.mark.parametrize(
    ("kind", "workers", "message"),
    [
        ("rey", 2, "did you mean 'ray'"),
        ("ray", 0, "pool=ray has at least one, got 0"),
        ("process", -1, "expected >= 0"),
    ],
)
def test_pools_that_do_not_exist(policy, point_mass, kind, workers, message):
    """An unknown pool, or one that does not go with the number of workers, is refused with what would."""
    with pytest.raises(ConfigError, match=message):
        evaluate_policy(policy, point_mass(), [1], workers=workers, pool=kind)


def test_a_missing_ray_is_one_clear_line(policy, point_mass, monkeypatch):
    """Without the package, the error says how to get it and what to do without it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DatasetError, match=r"robot-policies\[distributed\].*use pool=process"):
        evaluate_policy(policy, point_mass(), [1], workers=1, pool="ray")


def test_unknown_executor(policy, point_mass):
    """An unknown executor is refused with the ones there are."""
    with pytest.raises(ConfigError, match="receding_horizon"):
        evaluate_policy(policy, point_mass(), [1], workers=0, executor={"type": "receding_horizons"})


@pytest.mark.parametrize("workers", [0, 1])
def test_task_that_does_not_fit(policy, point_mass, workers):
    """A policy of another rate is refused before any episode."""
    policy.spec = replace(policy.spec, fps=25.0)
    with pytest.raises(SpecError, match="rate is 10 Hz, expected 25 Hz"):
        evaluate_policy(policy, point_mass(), SEEDS, workers=workers)
