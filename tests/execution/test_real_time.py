"""Real-time chunking: no gap, order, alignment; weights as in the paper; in simulation and in a thread."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.features import Feature
from robot_policies.configuration import ConfigError
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.execution import ChunkExecutor, build_executor
from robot_policies.execution.asynchronous import BackgroundInference
from robot_policies.execution.real_time import RealTime, agreement
from robot_policies.policies import build_policy
from robot_policies.policy import ActionChunk, Policy
from robot_policies.spec import PolicySpec
from robot_policies.testing import example_stats


def spec_of(n_obs_steps, horizon, n_action_steps):
    vector = Feature(dtype="float32", shape=(2,))
    return PolicySpec(
        observation={"observation.state": vector},
        action=vector,
        n_obs_steps=n_obs_steps,
        horizon=horizon,
        n_action_steps=n_action_steps,
        fps=10.0,
    )


def real_time(n_obs_steps, horizon, every, **options):
    executor = build_executor({"type": "real_time", **options}, spec_of(n_obs_steps, horizon, every))
    assert isinstance(executor, RealTime)
    return executor


@given(st.integers(1, 3), st.integers(1, 14), st.data())
def test_no_gap_no_repetition_and_in_order(drive, n_obs_steps, room, data):
    """Whatever the delays up to the checked one: step t executes an action for t, from ever newer chunks."""
    every = data.draw(st.integers(1, room))
    delays = data.draw(st.lists(st.integers(0, room), min_size=1, max_size=5))
    horizon = n_obs_steps - 1 + room
    executor = real_time(n_obs_steps, horizon, every)
    assert isinstance(executor, ChunkExecutor)
    try:
        executor.check_delay(max(delays))
    except ConfigError:
        return
    taken, requests = drive(executor, n_obs_steps, horizon, delays, 40)
    assert taken[:, 0].tolist() == list(range(40))
    assert (np.diff(taken[:, 1]) >= 0).all()
    steps = np.array([step for step, _ in requests])
    assert (np.diff(steps) >= every).all()
    assert (np.diff(steps) <= max(every, max(delays))).all()


@given(st.integers(1, 3), st.integers(1, 14), st.data())
def test_without_delay_it_is_receding_horizon(drive, n_obs_steps, room, data):
    """Delay 0: the same requests and the same actions, guided or not."""
    every, horizon = data.draw(st.integers(1, room)), n_obs_steps - 1 + room
    reference = build_executor(None, spec_of(n_obs_steps, horizon, every))
    expected, asked = drive(reference, n_obs_steps, horizon, [0], 30)
    taken, requests = drive(real_time(n_obs_steps, horizon, every), n_obs_steps, horizon, [0], 30)
    np.testing.assert_array_equal(taken, expected)
    assert [step for step, _ in requests] == [step for step, _ in asked]


@given(st.integers(1, 3), st.integers(2, 14), st.integers(0, 5), st.data())
def test_the_continuation_is_what_will_be_executed(drive, n_obs_steps, room, delay, data):
    """Frozen entries, and those before now, equal the actions that were carried out in their steps."""
    every, horizon = data.draw(st.integers(1, room)), n_obs_steps - 1 + room
    executor = real_time(n_obs_steps, horizon, every, expected_delay=delay)
    try:
        executor.check_delay(delay)
    except ConfigError:
        return
    taken, requests = drive(executor, n_obs_steps, horizon, [delay], 40)
    assert requests[0][1] is None
    for step, continuation in requests[1:]:
        if every == room and delay == 0:  # the plan has just run out: there is nothing to agree with
            assert continuation is None
            continue
        assert continuation.actions.shape == (horizon, 2)
        certain = np.flatnonzero(continuation.weights == 1)
        assert len(certain) >= min(delay, 40 - step) + min(n_obs_steps - 1, step)
        for index in certain:
            executed_at = step + index - (n_obs_steps - 1)
            if 0 <= executed_at < 40:
                np.testing.assert_array_equal(continuation.actions[index], taken[executed_at])
        assert (continuation.actions[continuation.weights > 0][:, 0] >= 0).all()


@pytest.mark.parametrize("mask", ["exponential", "linear", "hard"])
def test_weights_fall_from_frozen_to_free(mask):
    """1 for what will have been executed, then falling, never below 0; the exponential one is the paper's."""
    weights = agreement(6, 2, mask)
    assert weights[:2].tolist() == [1, 1]
    assert (np.diff(weights[1:]) <= 0).all()
    assert weights.min() >= 0
    c = (6 - np.arange(2, 6)) / (6 - 2 + 1)
    expected = {"exponential": c * np.expm1(c) / np.expm1(1), "linear": c, "hard": 0 * c}[mask]
    np.testing.assert_allclose(weights[2:], expected)


@pytest.mark.parametrize(("n_planned", "n_frozen"), [(0, 0), (1, 0), (3, 3), (2, 7)])
def test_weights_of_degenerate_plans(n_planned, n_frozen):
    """A plan shorter than the delay is frozen whole; an empty one has no weights."""
    weights = agreement(n_planned, n_frozen, "exponential")
    assert weights.shape == (n_planned,)
    assert np.isfinite(weights).all()
    assert (weights[: min(n_planned, n_frozen)] == 1).all()


def test_the_delay_is_measured_and_the_largest_recent_one_expected(chunk_for):
    """The queue holds the last delays; the first chunk is waited for and says nothing."""
    executor = real_time(1, 20, 1, delay_window=2)
    executor.push(chunk_for(0, 1, 20), computed_for_step=0)
    assert executor.expected_delay == 0
    for delay, expected in ((3, 3), (1, 3), (2, 2)):
        asked = executor.step
        for _ in range(delay):
            executor.next_action()
        executor.push(chunk_for(asked, 1, 20), computed_for_step=asked)
        assert executor.expected_delay == expected
    executor.reset()
    assert executor.expected_delay == 0


def test_naive_execution_leaves_chunks_free(chunk_for):
    """``continuation: none`` asks as early, and offers nothing to continue."""
    executor = real_time(1, 8, 2, continuation="none")
    executor.push(chunk_for(0, 1, 8), computed_for_step=0)
    executor.next_action()
    assert executor.continuation() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_action_steps": 9}, "got 9, expected 1 to 8"),
        ({"limit": 0.0}, "limit > 0"),
        ({"mask": "soft"}, "unknown value 'soft'"),
        ({"delay": 3}, "unknown key 'delay'"),
    ],
)
def test_bad_options_are_explained(options, message):
    """Every mistake names the option and what would fit."""
    with pytest.raises(ConfigError, match=message):
        real_time(1, 8, 4, **options)


def test_chunks_that_end_before_the_next_one_is_there_are_refused():
    """Eight steps, one chunk every four: at most four steps late."""
    executor = real_time(1, 8, 4)
    executor.check_delay(4)
    with pytest.raises(ConfigError, match="has to last 10"):
        executor.check_delay(5)


class Clock(Policy):
    """Predicts, for each step, the number of that step, as counted by its observations."""

    def __init__(self, spec):
        super().__init__(spec)
        self.plans = []

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_chunk(self, observation, *, goal=None, generator=None, sampler=None):
        size = self.check_observation(observation)
        return ActionChunk(actions=torch.zeros(size, self.spec.horizon, 2), n_network_calls=1)

    def continue_chunk(self, observation, plan, *, goal=None, generator=None, sampler=None):
        self.plans.append(plan)
        return self.predict_chunk(observation)


POINT = PolicySpec(
    observation={"observation.state": POSITION},
    action=VELOCITY,
    n_obs_steps=2,
    horizon=11,
    n_action_steps=4,
    fps=FPS,
)


def test_simulation_goes_on_while_a_chunk_is_computed():
    """With a delay of 2 the requests are still 4 steps apart, and later ones freeze 2 steps."""
    policy = Clock(POINT)
    (result,) = evaluate_policy(
        policy, PointMass, [1], workers=0, executor={"type": "real_time"}, inference_delay=2
    )
    assert not result.failure
    assert result.steps == 20
    assert result.n_chunks == 5
    frozen = [int((plan.weights[0, 1:] == 1).sum()) for plan in policy.plans]
    assert frozen == [0, 2, 2, 2]
    assert policy.plans[0].actions.shape == (1, 11, 2)


def test_naive_and_free_rows_do_not_guide():
    """Without continuation no plan reaches the policy; a batch that mixes first and later chunks has free rows."""
    policy = Clock(POINT)
    evaluate_policy(
        policy,
        PointMass,
        [1],
        workers=0,
        executor={"type": "real_time", "continuation": "none"},
        inference_delay=2,
    )
    assert policy.plans == []


def test_an_impossible_delay_is_refused_before_anything_runs():
    """Receding horizon cannot be late, and a delay is not negative."""
    for options, delay, message in (
        (None, 1, "no action while a chunk is computed"),
        ({"type": "real_time"}, -1, "expected >= 0"),
        ({"type": "real_time"}, 6, "has to last 12"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_policy(Clock(POINT), PointMass, [1], workers=0, executor=options, inference_delay=delay)


def small_diffusion():
    torch.manual_seed(0)
    spec = POINT
    return build_policy(
        {
            "type": "diffusion",
            "network": {"type": "mlp", "width": 32, "n_blocks": 1},
            "process": {"type": "flow"},
            "sampler": {"type": "ddim", "steps": 5},
        },
        spec,
        example_stats(spec),
    ).eval()


def test_a_diffusion_policy_continues_plans_in_the_evaluation():
    """Guided inference runs inside the evaluator's inference mode, and does not depend on the batch."""
    policy = small_diffusion()
    options = {"executor": {"type": "real_time"}, "inference_delay": 2, "workers": 0}
    together = evaluate_policy(policy, PointMass, [1, 2, 3], **options)
    alone = evaluate_policy(policy, PointMass, [1, 2, 3], n_envs=1, **options)
    free = evaluate_policy(
        policy, PointMass, [1], **{**options, "executor": {"type": "real_time", "continuation": "none"}}
    )
    assert not any(r.failure for r in together)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.actions, b.actions, atol=1e-3)
    np.testing.assert_allclose(free[0].actions[:6], together[0].actions[:6], atol=1e-3)
    assert np.abs(free[0].actions[6:] - together[0].actions[6:]).max() > 1e-2


def test_a_policy_that_cannot_continue_says_so():
    """The default of `Policy` names the option that would work."""
    policy = build_policy(
        {"type": "regression", "network": {"type": "mlp", "width": 16, "n_blocks": 1}},
        POINT,
        example_stats(POINT),
    )
    with pytest.raises(ConfigError, match=r"executor\.continuation=none"):
        evaluate_policy(policy, PointMass, [1], workers=0, executor={"type": "real_time"})


class Slow:
    """A predictor that answers when it is told to."""

    def __init__(self, chunk_for):
        self.go, self.started = threading.Semaphore(0), threading.Semaphore(0)
        self.seen, self.chunk_for = [], chunk_for

    def __call__(self, window, continuation):
        self.seen.append((window, continuation))
        self.started.release()
        assert self.go.acquire(timeout=10)
        return self.chunk_for(window, 1, 12)


def tick(inference, step, n):
    """Call `n` steps; observations are the numbers of the steps."""
    return [inference.next_action(step + i)[0] for i in range(n)]


def test_background_inference_never_waits_but_for_the_first_chunk(chunk_for):
    """While a chunk is computed the loop goes on; its delay is measured in steps."""
    predict, executor = Slow(chunk_for), real_time(1, 12, 4)
    with BackgroundInference(executor, predict) as inference:
        predict.go.release()
        taken = tick(inference, 0, 7)  # asks again at step 4, which takes until step 7
        assert predict.started.acquire(timeout=10)
        assert predict.started.acquire(timeout=10)
        pending = inference._pending
        predict.go.release()
        assert pending is not None
        pending[1].result(timeout=10)
        taken += tick(inference, 7, 3)
        assert taken == list(range(10))
        assert executor.expected_delay == 3
        assert inference.stalls == 0
        window, continuation = predict.seen[1]
        assert window == 4
        assert continuation.actions[:3, 0].tolist() == [4, 5, 6]
        predict.go.release(10)


def test_background_inference_waits_when_the_plan_runs_out(chunk_for):
    """A receding horizon has to wait for every chunk; it is counted, not hidden."""
    predict = Slow(chunk_for)
    predict.go.release(10)
    with BackgroundInference(build_executor(None, spec_of(1, 12, 3)), predict) as inference:
        assert tick(inference, 0, 9) == list(range(9))
        assert inference.stalls == 2


def test_background_inference_passes_on_what_the_policy_raised():
    """An exception in the thread reaches the control loop, and a reset makes a new start possible."""

    def fail(window, continuation):
        raise ValueError("the camera is covered")

    with BackgroundInference(real_time(1, 12, 4), fail) as inference:
        with pytest.raises(ValueError, match="camera is covered"):
            inference.next_action(0)
        inference.reset()
        with pytest.raises(ValueError, match="camera is covered"):
            inference.next_action(0)
