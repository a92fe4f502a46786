r"""Consistency distillation: a trained denoising policy in one to three network calls.

Song et al., "Consistency Models", ICML 2023 (arXiv 2303.01469), for action chunks as in Prasad et al.,
"Consistency Policy", RSS 2024 (arXiv 2405.07503).

The teacher is any checkpoint of a denoising policy (`diffusion`, `beso`), with its process, x = alpha A + sigma n, on
N + 1 levels from noise (0) to data (N). The student f has the teacher's network and starts from its weights:

    f(x, i) = c_skip x / alpha + (1 - c_skip) D(x, i),   c_skip = sigma_d^2 / ((s sigma / alpha)^2 + sigma_d^2)

with the data estimate D of the network. At the last level sigma = 0, so f(x, N) = x: the boundary condition. s (10, as
in latent consistency models, Luo et al., 2023, arXiv 2310.04378) confines x to the last levels, so that the student
begins as the teacher's estimate; with 1 it begins as a mixture of that with noise. Every point of one path of the
teacher's ODE shall be mapped to that path's end:

    training    level i uniform, x_i = alpha A + sigma n
                x_{i+1} = the teacher's DDIM step from x_i              teacher: frozen
                loss = mean (f(x_i, i) - f'(x_{i+1}, i + 1))^2          f': average of f (decay `target_decay`), frozen
    inference   x ~ N(0, I), A = f(x, 0); with k steps, at k - 1 evenly spaced levels j:
                x = alpha_j A + sigma_j n, A = f(x, j)                  n fresh

    level        0 ------ 6 ------ 12 ------ 18 = N        N = 18, three steps
    step 1       f
    step 2                f
    step 3                         f

Because f is no denoiser (it answers with an end of a path, not with a mean), other samplers have no meaning for it
and are refused. Time window: `robot_policies.spec.PolicySpec`, the teacher's. Consistency Policy also trains a
denoising term and learns to jump between any two levels (CTM); this is plain consistency distillation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robot_datasets.features import ACTION
from robot_policies.configuration import ConfigError, Registry
from robot_policies.denoising import NoiseSource
from robot_policies.denoising.processes import DiffusionProcess, Levels
from robot_policies.denoising.samplers import Network, clip
from robot_policies.normalizer import Stats
from robot_policies.policies.diffusion import DiffusionPolicy
from robot_policies.policies.registry import policies
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class ConsistencyInference:
    """Inference of a `ConsistencyPolicy`, ``{"type": "consistency", ...}``.

    Attributes:
        steps: Network calls.
        temperature: Scale of the initial noise.
    """

    steps: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"inference.steps must be >= 1, got {self.steps}")


inferences: Registry[ConsistencyInference] = Registry("sampler of a distilled policy")
inferences.register("consistency", ConsistencyInference)(lambda config: config)


@dataclass(frozen=True, kw_only=True)
class ConsistencyPolicyConfig:
    """Options of a `ConsistencyPolicy`; see the module docstring.

    Attributes:
        teacher: Run or checkpoint directory of the teacher; the trainer reads it, a loaded student does without.
        student: The teacher's ``policy`` section; the trainer fills it in from the teacher's checkpoint if it is null.
        levels: N.
        target_decay: Decay of f' per step; 0 takes f itself.
        sigma_data: sigma_d.
        boundary_scale: s.
        goal_scale: Classifier-free guidance of the teacher, which the student learns into one call.
        inference: Default inference; a checkpoint accepts another one.
        sampler: Not used; accepted because every training configuration has one.
    """

    teacher: str
    student: Mapping[str, Any] | None = None
    levels: int = 18
    target_decay: float = 0.95
    sigma_data: float = 0.5
    boundary_scale: float = 10.0
    goal_scale: float = 1.0
    inference: Mapping[str, Any] = field(default_factory=lambda: {"type": "consistency"})
    sampler: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if (
            self.levels < 2
            or not 0 <= self.target_decay < 1
            or min(self.sigma_data, self.boundary_scale) <= 0
        ):
            raise ConfigError(
                "policy needs levels >= 2, target_decay in [0, 1), sigma_data > 0 and boundary_scale > 0, got "
                f"{self.levels}, {self.target_decay}, {self.sigma_data} and {self.boundary_scale}"
            )


class _Frozen:
    """A policy beside the module tree: not saved, not averaged, not copied with its owner."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.policy = policy.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Frozen:
        return self


class ConsistencyPolicy(Policy):
    """A student and, in training, its teacher; see the module docstring."""

    def __init__(self, config: ConsistencyPolicyConfig, spec: PolicySpec, stats: Stats | None) -> None:
        super().__init__(spec)
        if config.student is None:
            raise ConfigError("policy.student is missing; give the teacher's policy section")
        self.config = config
        self.inference = self._build_inference(config.inference)
        self.student = _denoising(
            policies.build(config.student, where="policy.student", spec=spec, stats=stats)
        )
        self.spec = self.student.spec
        self._teacher: _Frozen | None = None
        self.target = copy.deepcopy(self.student).requires_grad_(False) if config.target_decay else None

    @cached_property
    def levels(self) -> Levels:
        """The N + 1 levels, on the CPU."""
        return self.student.process.grid(self.config.levels)

    def set_teacher(self, teacher: Policy) -> None:
        """Learn from `teacher`, starting from its weights; they are not saved with the student.

        Raises:
            ConfigError: It is no denoising policy, has another specification or network, or cannot be distilled.
        """
        theirs, ours = teacher.spec.to_dict(), self.spec.to_dict()
        different = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        if different:
            raise ConfigError(
                f"policy.teacher: {self.config.teacher} was trained with another {', '.join(different)}; "
                "use the dataset and window it was trained with"
            )
        weights, wanted = teacher.state_dict(), self.student.state_dict()
        if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in wanted.items()}:
            raise ConfigError(
                f"policy.student does not fit the weights of {self.config.teacher}; leave it out, or copy the "
                "teacher's policy section"
            )
        process, alpha = self.student.process, float(self.levels.alpha[0])
        if isinstance(process, DiffusionProcess) and process.config.prediction == "epsilon" and alpha < 0.02:
            raise ConfigError(
                f"{self.config.teacher} predicts epsilon, which says nothing of the data at its noisiest level (alpha "
                f"{alpha:.4f}); distil a teacher with process.spacing=leading, or one that predicts v or sample"
            )
        self._teacher = _Frozen(_denoising(teacher))
        self.student.load_state_dict(weights)
        if self.target is not None:
            self.target.load_state_dict(weights)

    def train(self, mode: bool = True) -> ConsistencyPolicy:
        """Set the student's mode; the target always answers as it would at inference."""
        super().train(mode)
        if self.target is not None:
            self.target.eval()
        return self

    def boundary(self, alpha: Any, sigma: Any) -> tuple[Any, Any]:
        """Factors of x and of the data estimate in f; numbers, or tensors of one shape."""
        noise_variance = (self.config.boundary_scale * sigma) ** 2
        data_variance = self.config.sigma_data**2
        spread = noise_variance + data_variance * alpha**2
        return data_variance * alpha / spread, noise_variance / spread

    def consistent(self, network: Network, x: Tensor, levels: Levels) -> Tensor:
        """F of the module docstring; `levels` are scalars or (B, 1, 1), x is (B, T_p, A)."""
        process = self.student.process
        time = levels.time.flatten().expand(len(x))
        estimate = process.recover(network(process.network_input(x, levels), time).float(), x, levels)
        keep, take = self.boundary(levels.alpha, levels.sigma)
        return keep * x + take * self._bounded(estimate)

    def compute_loss(self, batch: Mapping[str, Any]) -> LossOutput:
        """Return the distillation loss; in training, first move the target towards the student."""
        if self._teacher is None:
            raise ConfigError("this distilled policy has no teacher to learn from; set_teacher gives it one")
        student, actions = self.student, self.student.normalized_actions(batch)
        self._teacher.policy.to(actions.device)
        if self.training:
            self._follow()
        index = torch.randint(self.config.levels, (len(actions),)).to(actions.device)
        here, there = self._at(index, actions), self._at(index + 1, actions)
        x = here.alpha * actions + here.sigma * torch.randn_like(actions)
        with torch.no_grad():
            teacher = self._teacher.policy
            seen, _ = teacher.conditioned(teacher.encode(batch), self.config.goal_scale)
            raw = seen(teacher.process.network_input(x, here), here.time.flatten())
            data = self._bounded(teacher.process.recover(raw.float(), x, here))
            following = there.alpha * data + there.sigma / here.sigma * (x - here.alpha * data)
            target = student if self.target is None else self.target
            network, _ = target.conditioned(target.encode(batch), 1.0)
            end = self.consistent(network, following, there)
        network, _ = student.conditioned(student.encode(batch), 1.0)
        error = (self.consistent(network, x, here) - end).square()
        return LossOutput(loss=student.mean_over_chunk(error, batch))

    @torch.no_grad()
    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Map noise to a chunk; see `Policy.predict_chunk`."""
        inference = self.inference if sampler is None else self._build_inference(sampler)
        encoded = self.student.encode_checked(observation, goal)
        network, _ = self.student.conditioned(encoded, 1.0)
        draw = NoiseSource(self.student.chunk_shape(encoded), generator, encoded)
        levels = Levels(*(level.to(encoded) for level in self.levels))
        chosen = torch.linspace(0, self.config.levels, inference.steps + 1).round().long()[:-1].tolist()
        x = draw() * (self.student.process.initial_scale * inference.temperature)
        data = x
        for number, i in enumerate(chosen):
            here = Levels(levels.alpha[i], levels.sigma[i], levels.time[i])
            if number > 0:
                x = here.alpha * data + here.sigma * draw()
            data = self._bounded(self.consistent(network, x, here))
        actions = self.student.normalizer[ACTION].unnormalize(data)
        return ActionChunk(actions=actions, n_network_calls=len(chosen))

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Those of the student."""
        return self.student.parameter_groups(weight_decay)

    def _at(self, index: Tensor, like: Tensor) -> Levels:
        """Levels of each row, (B, 1, 1)."""
        return Levels(*(level.to(like)[index][:, None, None] for level in self.levels))

    def _bounded(self, data: Tensor) -> Tensor:
        return clip(data, 1.0 if self.student.config.bounded_actions else None)

    @torch.no_grad()
    def _follow(self) -> None:
        if self.target is None:
            return
        for slow, fast in zip(self.target.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.target_decay)

    def _build_inference(self, values: Mapping[str, Any]) -> ConsistencyInference:
        if values.get("type") not in inferences.names():
            raise ConfigError(
                f"sampler.type is {values.get('type')!r}, but this policy was distilled and answers in one to a few "
                "steps of its own; use type: consistency with steps: 1, 2 or 3, or sample from its teacher"
            )
        inference = inferences.build(values, where="sampler")
        if inference.steps > self.config.levels:
            raise ConfigError(
                f"sampler.steps={inference.steps} exceeds the {self.config.levels} distilled levels"
            )
        return inference


def _denoising(policy: Policy) -> DiffusionPolicy:
    if not isinstance(policy, DiffusionPolicy):
        raise ConfigError(
            f"policy.teacher is a {type(policy).__name__}; expected a denoising policy: diffusion or beso"
        )
    return policy


@policies.register("consistency", ConsistencyPolicyConfig)
def build_consistency_policy(
    config: ConsistencyPolicyConfig, *, spec: PolicySpec, stats: Stats | None
) -> ConsistencyPolicy:
    """Build a `ConsistencyPolicy`."""
    return ConsistencyPolicy(config, spec, stats)
