r"""How far a twin's body is from the real one: a constant-velocity Kalman filter of the error, with late measurements.

State of a body: error :math:`e` (real minus twin: position, and rotation vector in the world frame) and its rate
:math:`\dot e`. The twin's own physics predicts the motion of the real body, so what has to be estimated is only what
the physics gets wrong, which grows while the body moves. A correction moves the twin by a known :math:`\Delta`:

.. math::
    e_{k+1} = e_k + T \dot e_k - \Delta_k, \qquad \dot e_{k+1} = e^{-T/\tau} \dot e_k + w

An observation of age :math:`a` is compared with the twin as it was at its stamp. With the corrections since then
taken off, that is a measurement of the present state, and no history has to be filtered again:

.. math::
    z = (\text{observed} - \text{twin at the stamp}) - \sum \Delta = e - a \dot e + v
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from robot_datasets.mapping import ConfigError

Verdict = Literal["taken", "outlier", "moved"]


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """How much the physics is trusted.

    Attributes:
        mismatch: Share of a body's speed by which the real one's may differ: what pushes go wrong by.
        drift: Speed that an error may have though the twin's body rests [m/s].
        turn_drift: The same for the orientation [rad/s].
        settle: Time constant with which an error's rate decays, tau [s].
        gate: Squared Mahalanobis distance beyond which an observation is an outlier; 22.5 is 99.9 % for 6 numbers.
        outliers: So many outliers in a row mean that the body was moved, and are believed.
    """

    mismatch: float = 0.5
    drift: float = 0.002
    turn_drift: float = 0.02
    settle: float = 0.3
    gate: float = 22.5
    outliers: int = 3

    def __post_init__(self) -> None:
        for name in ("mismatch", "drift", "turn_drift", "settle", "gate", "outliers"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"filter.{name}: got {getattr(self, name)}, expected above 0")


class PoseFilter:
    """The filter of one body; see the module's docstring.

    Attributes:
        error: (6,) real minus twin: position [m], rotation vector [rad].
        rate: (6,) its rate [m/s, rad/s].
        covariance: (12, 12) of both.
        known: Whether there was an observation since the last `restart`.
    """

    def __init__(self, config: FilterConfig | None = None) -> None:
        self._config = config or FilterConfig()
        self.restart()

    def restart(self) -> None:
        """Know nothing: the next observation is believed as it is."""
        self.error, self.rate = np.zeros(6), np.zeros(6)
        self.covariance = np.diag([1.0] * 3 + [10.0] * 3 + [0.01] * 3 + [0.1] * 3)
        self.known = False
        self._outliers = 0

    def predict(
        self, period: float, *, moved: np.ndarray | None = None, speed: float = 0.0, turning: float = 0.0
    ) -> None:
        """Let one tick pass.

        Args:
            period: Its length [s].
            moved: (6,) by how much a correction moved the twin's body in it.
            speed: Of the twin's body [m/s].
            turning: Its angular speed [rad/s].
        """
        config = self._config
        decay = float(np.exp(-period / config.settle))
        step = np.eye(12)
        step[:6, 6:] = period * np.eye(6)
        step[6:, 6:] *= decay
        self.error = self.error + period * self.rate - (0.0 if moved is None else moved)
        self.rate = decay * self.rate
        linear = config.drift + config.mismatch * speed
        angular = config.turn_drift + config.mismatch * turning
        spread = np.repeat([linear, angular], 3) ** 2 * (1.0 - decay**2)
        noise = np.diag(np.concatenate([spread * period**2 / 3.0, spread]))
        self.covariance = step @ self.covariance @ step.T + noise

    def update(self, difference: np.ndarray, covariance: np.ndarray, *, age: float) -> Verdict:
        """Take an observation.

        Args:
            difference: (6,) observed pose minus the twin's at the stamp, less what corrections did since then.
            covariance: (6, 6) of the observation.
            age: Of the observation [s].

        Returns:
            Whether it was taken, refused as an outlier, or believed because so many of its kind came: the body was
            moved.
        """
        measure = np.concatenate([np.eye(6), -age * np.eye(6)], axis=1)
        surprise = difference - measure @ np.concatenate([self.error, self.rate])
        spread = measure @ self.covariance @ measure.T + covariance
        verdict: Verdict = "taken"
        if self.known and float(surprise @ np.linalg.solve(spread, surprise)) > self._config.gate:
            self._outliers += 1
            if self._outliers < self._config.outliers:
                return "outlier"
            verdict = "moved"
            self.restart()
            surprise = difference
            spread = measure @ self.covariance @ measure.T + covariance
        gain = np.linalg.solve(spread, measure @ self.covariance).T
        change = gain @ surprise
        self.error, self.rate = self.error + change[:6], self.rate + change[6:]
        keep = np.eye(12) - gain @ measure
        self.covariance = keep @ self.covariance @ keep.T + gain @ covariance @ gain.T  # Joseph's form
        self.known, self._outliers = True, 0
        return verdict
