r"""Looking at results while they come in, and stopping early, without fooling oneself.

An interval computed after every episode and a stop as soon as it looks good is wrong far more often than its level
says. A *confidence sequence* (Robbins 1970) is an interval for every n that covers the true rate at all n together
with the stated probability, so one may look as often as one likes. With a uniform prior over the rate, the mixture
martingale

.. math:: M_n(p) = \frac{B(s + 1, n - s + 1)}{p^s (1 - p)^{n - s}}

exceeds :math:`1/\alpha` for the true rate :math:`p` with probability at most :math:`\alpha` at any time (Ville's
inequality); the sequence holds the rates for which it has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import optimize, special

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """When an evaluation may end before all its episodes are played.

    Attributes:
        reference: Success rate that the policy is compared with; stop when the rate is known to be on one side of it.
        width: Stop when the rate is known this well: largest width of the interval; 0 never stops for that.
        confidence: Coverage of the confidence sequence.
        min_episodes: Never stop before so many.
    """

    reference: float | None = None
    width: float = 0.0
    confidence: float = 0.95
    min_episodes: int = 10

    def __post_init__(self) -> None:
        if self.reference is None and self.width <= 0:
            raise ConfigError(
                "stop: give a reference rate, e.g. stop.reference=0.5, or a width, e.g. stop.width=0.2"
            )
        if self.reference is not None and not 0 < self.reference < 1:
            raise ConfigError(f"stop.reference: {self.reference}, expected a rate between 0 and 1")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"stop.confidence: {self.confidence}, expected between 0 and 1")


def confidence_sequence(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the confidence sequence's interval after so many episodes; see the module's docstring."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    rate = successes / trials
    limit = -math.log(1.0 - confidence)
    mixture = float(special.betaln(successes + 1, trials - successes + 1))

    def excess(p: float) -> float:
        likelihood = special.xlogy(successes, p) + special.xlog1py(trials - successes, -p)
        return mixture - float(likelihood) - limit

    low = 0.0 if successes == 0 else _root(excess, 0.0, rate)
    high = 1.0 if successes == trials else _root(excess, 1.0, rate)
    return Interval(value=rate, low=low, high=high, confidence=confidence, method="confidence-sequence")


def _root(excess: Callable[[float], float], edge: float, rate: float) -> float:
    """Where the martingale crosses its limit between `edge`, where it is infinite, and the observed rate."""
    tiny = 1e-12
    outer = tiny if edge == 0.0 else 1.0 - tiny
    inner = min(max(rate, tiny), 1.0 - tiny)
    if excess(outer) <= 0:
        return edge
    root: Any = optimize.brentq(excess, outer, inner)
    return float(root)


def reason_to_stop(successes: Sequence[bool], stop: EarlyStop) -> str:
    """Return why an evaluation may end with these results, in words; empty if it may not."""
    n = len(successes)
    if n < max(1, stop.min_episodes):
        return ""
    interval = confidence_sequence(sum(successes), n, confidence=stop.confidence)
    span = f"[{interval.low:.3f}, {interval.high:.3f}] after {n} episodes"
    if stop.reference is not None and interval.low > stop.reference:
        return f"the success rate lies above {stop.reference:g}: {span}"
    if stop.reference is not None and interval.high < stop.reference:
        return f"the success rate lies below {stop.reference:g}: {span}"
    if stop.width > 0 and interval.high - interval.low <= stop.width:
        return f"the success rate is known to {interval.high - interval.low:.3f}: {span}"
    return ""
