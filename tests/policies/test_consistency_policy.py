"""Consistency distillation: conformance, the boundary condition, and the exact solution for a known teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.denoising.processes import Levels
from robot_policies.policies import build_policy
from robot_policies.policies.consistency import ConsistencyPolicy
from robot_policies.policy import Policy
from robot_policies.testing import (
    GoalPolicyTests,
    PolicyTests,
    example_batch,
    example_spec,
    example_stats,
    predict,
    seeds,
)

MLP = {"type": "mlp", "width": 48, "n_blocks": 2}
DDIM = {"type": "ddim", "steps": 10}
EDM = {"type": "edm", "sigma_max": 10.0}
TEACHERS: dict[str, dict[str, Any]] = {
    "edm": {"type": "diffusion", "network": MLP, "process": EDM, "sampler": DDIM},
    "flow": {"type": "diffusion", "network": MLP, "process": {"type": "flow"}, "sampler": DDIM},
    "epsilon": {"type": "diffusion", "network": MLP, "process": {"type": "diffusion"}, "sampler": DDIM},
    "v": {
        "type": "diffusion",
        "network": MLP,
        "process": {"type": "diffusion", "prediction": "v", "spacing": "trailing"},
        "sampler": DDIM,
    },
    "beso": {
        "type": "beso",
        "network": {
            "type": "score_transformer",
            "width": 32,
            "n_layers": 1,
            "n_heads": 2,
            "attention_dropout": 0.0,
        },
    },
}


def config(teacher: str, **rest: Any) -> dict[str, Any]:
    return {
        "type": "consistency",
        "teacher": "runs/teacher",
        "student": TEACHERS[teacher],
        "levels": 8,
        **rest,
    }


def make_teacher(name: str, *, goals: bool = False, images: bool = False) -> Policy:
    torch.manual_seed(7)
    spec = example_spec(goals=goals, images=images)
    teacher = build_policy(TEACHERS[name], spec, example_stats(spec))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return teacher


class DistilledTests(PolicyTests):
    """Conformance of a student that has a teacher."""

    teacher = "edm"

    def policy_config(self) -> dict[str, Any]:
        """A student of few levels."""
        return config(self.teacher)

    def make(self, seed: int = 0) -> Policy:
        """A student that has moved away from its teacher."""
        policy = super().make(seed)
        state = policy.state_dict()
        assert isinstance(policy, ConsistencyPolicy)
        policy.set_teacher(make_teacher(self.teacher, goals=self.goals, images=self.images))
        policy.load_state_dict(state)
        return policy

    def test_loss_decreases_on_one_batch(self) -> None:
        """A student that was thrown off its trained teacher's path finds back to it."""
        policy = self.make()
        assert isinstance(policy, ConsistencyPolicy)
        teacher, batch = make_teacher(self.teacher, goals=self.goals), example_batch(policy.spec, 16)
        batch["action"] = batch["observation.state"][:, -1:, :2].repeat(1, 8, 1)
        descend(teacher.train(), batch, 100)
        policy.set_teacher(teacher)
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in policy.student.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            assert policy.target is not None
            policy.target.load_state_dict(policy.student.state_dict())
        losses = descend(policy.train(), batch, 100)
        assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def descend(policy: Policy, batch: dict[str, Any], steps: int) -> list[float]:
    """Train on one batch; the losses."""
    optimiser = torch.optim.AdamW(policy.parameter_groups(0.0), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = policy.compute_loss(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


class TestEdm(DistilledTests):
    """An EDM teacher."""


class TestFlow(DistilledTests):
    """Rectified flow, whose noisiest level holds no data at all."""

    teacher = "flow"


class TestEpsilon(DistilledTests):
    """The original Diffusion Policy, on its leading grid."""

    teacher = "epsilon"


class TestGoals(DistilledTests, GoalPolicyTests):
    """A goal-conditioned BESO."""

    teacher = "beso"


def make(name: str = "edm", **rest: Any) -> ConsistencyPolicy:
    spec = example_spec()
    torch.manual_seed(0)
    policy = build_policy(config(name, **rest), spec, example_stats(spec))
    assert isinstance(policy, ConsistencyPolicy)
    return policy


@pytest.mark.parametrize("name", ["edm", "flow", "v"])
def test_the_boundary_condition_holds_whatever_the_network_says(name: str) -> None:
    """On clean data f is the identity; at the noisiest level it is (almost) the data estimate."""
    policy = make(name)
    x, answer = torch.randn(4, 8, 2), torch.randn(4, 8, 2)
    levels = policy.levels

    def f(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        here = Levels(levels.alpha[i], levels.sigma[i], levels.time[i])
        estimate = policy.student.process.recover(answer, x, here).clamp(-1, 1)
        return policy.consistent(lambda inputs, time: answer, x, here), estimate

    torch.testing.assert_close(f(-1, x)[0], x)
    noisy, estimate = f(0, policy.student.process.initial_scale * x)
    assert (noisy - estimate).abs().max() < 0.1


class Exact(torch.nn.Module):
    """The best denoiser of data N(0.2, 0.3^2), as an output of EDM's network."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.process = policy.process

    def forward(self, inputs: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        sigma = (time / 10).exp()[:, None, None]
        x = inputs * (sigma**2 + 0.25).sqrt()
        data = 0.2 + 0.09 / (0.09 + sigma**2) * (x - 0.2)
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        return (data - c_skip * x) / c_out


class PerLevel(torch.nn.Module):
    """A student that can be exact: an affine map of its input at each level, as EDM's network output."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.register_buffer("times", levels.time[:-1])
        self.gain = torch.nn.Parameter(torch.zeros(len(levels.time) - 1))
        self.shift = torch.nn.Parameter(torch.zeros(len(levels.time) - 1))

    def forward(self, inputs: Tensor, time: Tensor, encoded: Tensor) -> Tensor:
        at = (time[:, None] - self.times[None]).abs().argmin(dim=1)  # type: ignore[operator]
        return self.gain[at][:, None, None] * inputs + self.shift[at][:, None, None]


def test_distillation_of_an_exact_teacher_is_the_solution_of_its_ode() -> None:
    """For Gaussian data the student learns, level by level, where the teacher's DDIM ends; one call suffices."""
    spec = example_spec()
    student = {**TEACHERS["edm"], "normalization": {"default": "identity"}, "sampler": {**DDIM, "clip": None}}
    policy = build_policy(
        {**config("edm"), "student": student, "target_decay": 0.0}, spec, example_stats(spec)
    )
    teacher = build_policy(student, spec, example_stats(spec))
    assert isinstance(policy, ConsistencyPolicy)
    policy.set_teacher(teacher)
    assert policy._teacher is not None
    policy._teacher.policy.network = Exact(policy._teacher.policy)
    policy.student.network = PerLevel(policy.levels)
    optimiser = torch.optim.Adam(policy.student.network.parameters(), lr=0.05)
    batch = example_batch(spec, 128)
    torch.manual_seed(1)
    for step in range(400):
        batch["action"] = 0.2 + 0.3 * torch.randn(128, 8, 2)
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        loss = policy.compute_loss(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    one = policy.eval().predict_chunk(
        {k: v for k, v in batch.items() if "observation" in k}, generator=seeds(128)
    )
    expected = teacher_path(policy, seeds(128))
    assert (one.actions - expected).abs().mean() < 0.02
    assert one.n_network_calls == 1


def teacher_path(policy: ConsistencyPolicy, generators: list[torch.Generator]) -> Tensor:
    """Where the teacher's DDIM takes the same noise: each step keeps part of the distance from the mean."""
    noise = torch.stack([torch.randn(8, 2, generator=g) for g in generators])
    x = noise * policy.student.process.initial_scale
    sigma = policy.levels.sigma
    for i in range(len(sigma) - 1):
        data = 0.2 + 0.09 / (0.09 + sigma[i] ** 2) * (x - 0.2)
        x = data + sigma[i + 1] / sigma[i] * (x - data)
    return x


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_each_step_is_a_network_call(steps: int) -> None:
    """One to three calls, chosen at inference; more steps draw more noise but stay reproducible."""
    policy = make().eval()
    batch = example_batch(policy.spec)
    sampler = {"type": "consistency", "steps": steps}
    chunk = predict(policy, batch, generator=seeds(6), sampler=sampler)
    assert chunk.n_network_calls == steps
    again = predict(policy, batch, generator=seeds(6), sampler=sampler)
    torch.testing.assert_close(chunk.actions, again.actions, atol=0, rtol=0)


def test_a_student_starts_as_its_teacher() -> None:
    """Weights and normaliser are the teacher's, in the student and in its target."""
    policy, teacher = make(), make_teacher("edm")
    policy.set_teacher(teacher)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(policy.state_dict()[f"student.{name}"], value)
        torch.testing.assert_close(policy.state_dict()[f"target.{name}"], value)


def test_the_target_follows_in_training_only() -> None:
    """Each training loss moves it by 1 - decay of the way; the teacher never moves, and is not saved."""
    policy, teacher = make(target_decay=0.75), make_teacher("edm")
    policy.set_teacher(teacher)
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for parameter in policy.student.parameters():
            parameter.add_(1.0)
    assert policy.target is not None
    start = next(policy.target.parameters()).clone()
    policy.eval().compute_loss(example_batch(policy.spec))
    torch.testing.assert_close(next(policy.target.parameters()), start)
    policy.train().compute_loss(example_batch(policy.spec))
    assert policy.student.training
    assert not policy.target.training
    torch.testing.assert_close(next(policy.target.parameters()), start + 0.25)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert {name.split(".")[0] for name in policy.state_dict()} == {"student", "target"}


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"type": "ddim", "steps": 4}, "was distilled and answers in one to a few steps"),
        ({"type": "consistency", "steps": 9}, "exceeds the 8 distilled levels"),
        ({"type": "consistency", "steps": 0}, "steps must be >= 1"),
    ],
)
def test_samplers_that_have_no_meaning_here_are_refused(sampler: dict[str, Any], message: str) -> None:
    """F is no denoiser: the error says what to use."""
    policy = make().eval()
    with pytest.raises(ConfigError, match=message):
        predict(policy, example_batch(policy.spec), sampler=sampler)


def test_a_consistency_sampler_does_not_fit_a_denoiser() -> None:
    """The other way round, too."""
    teacher = make_teacher("edm")
    with pytest.raises(ConfigError, match="unknown sampler 'consistency'"):
        predict(teacher, example_batch(teacher.spec), sampler={"type": "consistency"})


def test_teachers_that_do_not_fit_are_explained() -> None:
    """Another window, another network, no denoiser, or an epsilon teacher that starts without any data."""
    spec = example_spec()
    stats = example_stats(spec)
    with pytest.raises(ConfigError, match="was trained with another horizon"):
        make().set_teacher(build_policy(TEACHERS["edm"], replace(spec, horizon=10), stats))
    wider = {**TEACHERS["edm"], "network": {**MLP, "width": 56}}
    with pytest.raises(ConfigError, match=r"student does not fit the weights of runs/teacher"):
        make().set_teacher(build_policy(wider, spec, stats))
    regression = {"type": "regression", "network": MLP}
    with pytest.raises(ConfigError, match="is a RegressionPolicy; expected a denoising policy"):
        build_policy({**config("edm"), "student": regression}, spec, stats)
    trailing = {**TEACHERS["epsilon"], "process": {"type": "diffusion", "spacing": "trailing"}}
    policy = build_policy({**config("edm"), "student": trailing}, spec, stats)
    assert isinstance(policy, ConsistencyPolicy)
    with pytest.raises(ConfigError, match="says nothing of the data at its noisiest level"):
        policy.set_teacher(build_policy(trailing, spec, stats))


def test_without_a_teacher_there_is_no_loss() -> None:
    """A loaded student predicts but does not learn."""
    policy = make()
    with pytest.raises(ConfigError, match="no teacher to learn from"):
        policy.compute_loss(example_batch(policy.spec))
