"""The last T_o observations of an episode, in the layout a policy reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from robot_datasets.features import IMAGE_PREFIX
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
        first = self._select(observation)
        self._steps.extend(first for _ in range(self._length))

    def append(self, observation: Mapping[str, np.ndarray]) -> None:
        """Move the window on by one step."""
        if not self._steps:
            raise RuntimeError("append before reset; an episode starts with reset")
        self._steps.append(self._select(observation))

    def window(self) -> dict[str, np.ndarray]:
        """Return the window, per feature (T_o, ...), oldest first."""
        return {name: np.stack([step[name] for step in self._steps]) for name in self._features}

    def _select(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        selected: dict[str, np.ndarray] = {}
        for name, feature in self._features.items():
            if name not in observation:
                raise SpecError(
                    f"the policy reads '{name}', but the task observed only {', '.join(sorted(observation))}"
                )
            value = np.asarray(observation[name])
            if len(value.shape) != len(feature.shape) or any(
                want and want != have for want, have in zip(feature.shape, value.shape, strict=True)
            ):
                raise SpecError(
                    f"observation '{name}' has shape {value.shape}, but the policy reads {feature.shape}"
                )
            if name.startswith(IMAGE_PREFIX):
                selected[name] = np.ascontiguousarray(value.transpose(2, 0, 1))
            elif np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                raise ValueError(f"observation '{name}' holds NaN or infinity")
            else:
                selected[name] = np.array(value, dtype=np.float32)
        return selected
