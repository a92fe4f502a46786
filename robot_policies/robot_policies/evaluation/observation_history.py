"""The last T_o observations of an episode, in the layout a policy reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_datasets.features import IMAGE_PREFIX, Feature
from robot_datasets.goals import TASK
from robot_policies.spec import PolicySpec, SpecError


class ObservationHistory:
    """A window of T_o observations; at the start of an episode the first one is repeated.

    Keeps the policy's features only. Numbers become float32; images go from the task's (H, W, C) to the
    policy's (C, H, W) and stay uint8.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._features = dict(spec.observation)
        self._length = spec.n_obs_steps
        self._steps: deque[dict[str, np.ndarray]] = deque(maxlen=self._length)

    def reset(self, observation: Mapping[str, np.ndarray]) -> None:
        """Start an episode: fill the window with its first observation."""
        first = select_features(self._features, observation)
        self._steps.extend(first for _ in range(self._length))

    def append(self, observation: Mapping[str, np.ndarray]) -> None:
        """Move the window on by one step."""
        if not self._steps:
            raise RuntimeError("append before reset; an episode starts with reset")
        self._steps.append(select_features(self._features, observation))

    def window(self) -> dict[str, np.ndarray]:
        """Return the window, per feature (T_o, ...), oldest first."""
        return {name: np.stack([step[name] for step in self._steps]) for name in self._features}


def goal_of(spec: PolicySpec, goal: Mapping[str, np.ndarray], instruction: str) -> dict[str, Any]:
    """What a policy is told of its goal: features (G, ...), each repeated G times, and the instruction.

    Args:
        spec: What the policy was trained with.
        goal: What the task says of its goal, one time step.
        instruction: The task in words.
    """
    wanted = spec.goal if not spec.either_goal or goal else {}
    chosen = select_features(wanted, goal, kind="goal")
    told: dict[str, Any] = {
        name: np.repeat(value[None], spec.n_goal_steps, axis=0) for name, value in chosen.items()
    }
    return {**told, TASK: instruction} if spec.instructed else told


def select_features(
    features: Mapping[str, Feature], values: Mapping[str, np.ndarray], *, kind: str = "observation"
) -> dict[str, np.ndarray]:
    """One time step of the policy's features, in its layout and dtypes.

    Raises:
        SpecError: A feature is missing or has another shape.
        ValueError: A number is not finite.
    """
    selected: dict[str, np.ndarray] = {}
    for name, feature in features.items():
        if name not in values:
            raise SpecError(
                f"the policy reads the {kind} '{name}', but the task offers {', '.join(sorted(values)) or 'none'}"
            )
        value = np.asarray(values[name])
        if len(value.shape) != len(feature.shape) or any(
            want and want != have for want, have in zip(feature.shape, value.shape, strict=True)
        ):
            raise SpecError(f"{kind} '{name}' has shape {value.shape}, but the policy reads {feature.shape}")
        if name.startswith(IMAGE_PREFIX):
            selected[name] = np.ascontiguousarray(value.transpose(2, 0, 1))
        elif np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise ValueError(f"{kind} '{name}' holds NaN or infinity")
        else:
            selected[name] = np.array(value, dtype=np.float32)
    return selected
