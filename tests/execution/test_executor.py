"""Receding horizon against an obvious reference, and two other executors that fit the same interface."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.features import Feature
from robot_policies.configuration import ConfigError, Registry
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY, PointMass
from robot_policies.execution.executor import (
    ChunkExecutor,
    RecedingHorizon,
    build_executor,
    check_chunk,
    executors,
)
from robot_policies.policy import ActionChunk, Policy
from robot_policies.spec import PolicySpec


@st.composite
def horizons(draw):
    """(T_o, T_p, T_a) that fit together."""
    n_obs_steps = draw(st.integers(1, 4))
    horizon = draw(st.integers(n_obs_steps, 20))
    return n_obs_steps, horizon, draw(st.integers(1, horizon - n_obs_steps + 1))


def chunk_for(step, n_obs_steps, horizon):
    """A chunk whose entries say which step they are for and which step they were computed for."""
    target = np.arange(horizon) - (n_obs_steps - 1) + step
    return np.stack([target, np.full(horizon, step)], axis=1).astype(np.float64)


def receding(n_obs_steps, horizon, n_action_steps):
    return RecedingHorizon(
        n_obs_steps=n_obs_steps, horizon=horizon, n_action_steps=n_action_steps, action_dim=2
    )


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


@given(horizons(), st.integers(1, 60))
def test_every_step_gets_its_own_action_from_the_last_chunk(sizes, n_steps):
    """Step t executes index T_o - 1 + t mod T_a of the chunk computed at the last multiple of T_a."""
    n_obs_steps, horizon, n_action_steps = sizes
    executor = receding(*sizes)
    for step in range(n_steps):
        assert executor.step == step
        assert executor.needs_chunk() == (step % n_action_steps == 0)
        if executor.needs_chunk():
            executor.push(chunk_for(step, n_obs_steps, horizon), computed_for_step=step)
        assert executor.next_action().tolist() == [step, step - step % n_action_steps]


@given(horizons(), st.data())
def test_a_late_chunk_skips_what_has_passed(sizes, data):
    """A chunk computed d steps ago starts with the action for now, not with its first one."""
    n_obs_steps, horizon, n_action_steps = sizes
    delay = data.draw(st.integers(0, n_action_steps - 1))
    executor = receding(*sizes)
    executor.push(chunk_for(0, n_obs_steps, horizon), computed_for_step=0)
    for _ in range(delay):
        executor.next_action()
    executor.push(np.add(chunk_for(0, n_obs_steps, horizon), (0, 100)), computed_for_step=0)
    taken = [executor.next_action().tolist() for _ in range(n_action_steps - delay)]
    assert taken == [[step, 100] for step in range(delay, n_action_steps)]
    assert executor.needs_chunk()


@given(horizons())
def test_planned_reaches_to_the_end_of_the_chunk(sizes):
    """`planned` is the prediction from now to the chunk's end, also beyond what will be executed."""
    n_obs_steps, horizon, _ = sizes
    executor = receding(*sizes)
    assert executor.planned().shape == (0, 2)
    executor.push(chunk_for(0, n_obs_steps, horizon), computed_for_step=0)
    executor.next_action()
    assert executor.planned()[:, 0].tolist() == list(range(1, horizon - n_obs_steps + 1))


def test_the_caller_may_reuse_its_array():
    """Changing the pushed array, or a returned action, changes nothing inside."""
    executor = receding(1, 3, 3)
    chunk = chunk_for(0, 1, 3)
    executor.push(chunk, computed_for_step=0)
    chunk[:] = -1
    executor.next_action()[:] = -2
    executor.planned()[:] = -3
    assert executor.next_action().tolist() == [1, 0]


def test_no_chunk_no_action():
    """Asking for an action that no chunk covers is an error, before the first chunk and after the last."""
    executor = receding(1, 2, 2)
    with pytest.raises(RuntimeError, match="no chunk covers step 0"):
        executor.next_action()
    executor.push(chunk_for(0, 1, 2), computed_for_step=0)
    executor.next_action()
    executor.next_action()
    with pytest.raises(RuntimeError, match="no chunk covers step 2"):
        executor.next_action()


@pytest.mark.parametrize("computed_for_step", [-2, 1])
def test_stale_and_future_chunks_are_refused(computed_for_step):
    """A chunk that has no action for the current step is not silently executed."""
    executor = receding(1, 2, 2)
    with pytest.raises(ValueError, match="current step is 0"):
        executor.push(chunk_for(0, 1, 2), computed_for_step=computed_for_step)


def test_reset_forgets_the_chunk():
    """After a reset the executor is at step 0 and wants a chunk."""
    executor = receding(2, 8, 4)
    executor.push(chunk_for(0, 2, 8), computed_for_step=0)
    executor.next_action()
    executor.reset()
    assert executor.step == 0
    assert executor.needs_chunk()


def test_bad_chunks_are_refused():
    """Shape and finiteness are checked where a chunk enters."""
    with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(3, 2\)"):
        check_chunk(np.zeros((2, 3)), horizon=3, action_dim=2)
    with pytest.raises(ValueError, match="first at index 1 of 3"):
        check_chunk(np.array([[0, 0], [np.inf, 0], [0, np.nan]]), horizon=3, action_dim=2)


def test_execution_horizon_can_be_overridden_within_the_chunk():
    """A configured T_a replaces the policy's, up to what was predicted."""
    executor = build_executor({"type": "receding_horizon", "n_action_steps": 7}, spec_of(2, 8, 4))
    executor.push(chunk_for(0, 2, 8), computed_for_step=0)
    assert [executor.next_action()[0] for _ in range(7)] == list(range(7))
    with pytest.raises(ConfigError, match="got 8, expected 1 to 7"):
        build_executor({"type": "receding_horizon", "n_action_steps": 8}, spec_of(2, 8, 4))


def test_default_executor_takes_the_policys_horizon():
    """Without a configuration, T_a actions of each chunk are executed."""
    executor = build_executor(None, spec_of(1, 6, 3))
    executor.push(chunk_for(0, 1, 6), computed_for_step=0)
    for _ in range(3):
        executor.next_action()
    assert executor.needs_chunk()


@dataclass
class EnsembleConfig:
    decay: float = 0.1


class Ensemble:
    """Temporal ensembling as ACT does it: a chunk per step, older predictions weigh more."""

    def __init__(self, spec, decay):
        self.spec, self.decay = spec, decay
        self.reset()

    def reset(self):
        self.step, self.chunks = 0, {}

    def needs_chunk(self):
        return self.step not in self.chunks

    def push(self, chunk, *, computed_for_step):
        self.chunks[computed_for_step] = chunk

    def covering(self, step):
        now, last = self.spec.n_obs_steps - 1, self.spec.horizon
        return [
            c[now + step - start] for start, c in sorted(self.chunks.items()) if now + step - start < last
        ]

    def planned(self):
        return np.array([self.covering(self.step)[-1]])

    def next_action(self):
        votes = self.covering(self.step)
        weights = np.exp(-self.decay * np.arange(len(votes)))
        self.step += 1
        return np.average(votes, axis=0, weights=weights)


def test_temporal_ensembling_fits_the_interface():
    """An executor that wants a chunk at every step runs in the same loop, and averages the overlap."""
    plugins = Registry("executor")
    plugins.register("ensemble", EnsembleConfig)(lambda config, spec: Ensemble(spec, config.decay))
    executor = plugins.build({"type": "ensemble", "decay": 0.0}, where="executor", spec=spec_of(2, 5, 1))
    assert isinstance(executor, ChunkExecutor)
    taken = []
    for step in range(6):
        assert executor.needs_chunk()
        executor.push(chunk_for(step, 2, 5), computed_for_step=executor.step)
        taken.append(executor.next_action().tolist())
    # Four chunks cover a step (indices 1 to 4), so the mean origin lags by 1.5 steps.
    assert taken[-1] == [5, 3.5]


class Still(Policy):
    """A policy that stays where it is."""

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_chunk(self, observation, *, goal=None, generator=None, sampler=None):
        size = self.check_observation(observation)
        return ActionChunk(actions=torch.zeros(size, self.spec.horizon, 2), n_network_calls=1)


class Continuing:
    """The bookkeeping of real-time chunking: ask early, go on executing, splice the late chunk in."""

    def __init__(self, spec, every):
        self.spec, self.every = spec, every
        self.reset()

    def reset(self):
        self.step, self.start, self.chunk = 0, 0, np.empty((0, 2))

    def needs_chunk(self):
        return len(self.chunk) == 0 or self.step - self.start >= self.every

    def planned(self):
        return self.chunk[self.spec.n_obs_steps - 1 + self.step - self.start :]

    def push(self, chunk, *, computed_for_step):
        self.chunk, self.start = chunk, computed_for_step

    def next_action(self):
        action = self.planned()[0]
        self.step += 1
        return action


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_real_time_chunking_fits_the_interface(delay):
    """A caller whose policy takes `delay` steps never waits, and the policy sees the plan it must continue."""
    spec = spec_of(2, 12, 4)
    executor = Continuing(spec, every=4)
    assert isinstance(executor, ChunkExecutor)
    executor.push(chunk_for(0, 2, 12), computed_for_step=0)
    under_way = None
    prefixes = []
    for step in range(24):
        if under_way is None and executor.needs_chunk():
            under_way = executor.step
            prefixes.append(executor.planned()[: delay + 1, 0].tolist())
        if under_way is not None and step - under_way == delay:
            executor.push(chunk_for(under_way, 2, 12), computed_for_step=under_way)
            under_way = None
        assert executor.next_action()[0] == step
    assert prefixes[0] == list(range(4, 5 + delay))


def test_the_evaluation_loop_runs_any_executor(monkeypatch):
    """A registered executor is chosen by its type in an evaluation; it asks for a chunk at every step."""
    monkeypatch.setitem(
        executors._entries, "ensemble", (EnsembleConfig, lambda c, spec: Ensemble(spec, c.decay))
    )
    policy = Still(
        PolicySpec(
            observation={"observation.state": POSITION}, action=VELOCITY,
            n_obs_steps=1, horizon=5, n_action_steps=5, fps=FPS,
        )
    )  # fmt: skip
    results = evaluate_policy(policy, PointMass, [1, 2], workers=0, executor={"type": "ensemble"})
    assert [r.n_chunks for r in results] == [r.steps for r in results] == [20, 20]
    assert [r.n_chunks for r in evaluate_policy(policy, PointMass, [1, 2], workers=0)] == [4, 4]
