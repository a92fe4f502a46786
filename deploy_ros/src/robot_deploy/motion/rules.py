"""The rules of the safety filter: their names, what each does when it is broken, and how often it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError


class Rule(IntEnum):
    """What can be wrong with a target, in the order of the checks.

    FINITE and SHAPE cannot be clamped: they always stop. STOPPABLE is broken when the target asks for a motion
    from which no stop would stay inside the limits; the motion is then weakened, down to the stop itself.
    """

    FINITE = 0
    SHAPE = 1
    POSITION = 2
    VELOCITY = 3
    ACCELERATION = 4
    JERK = 5
    STOPPABLE = 6
    WORKSPACE = 7
    DEVIATION = 8


N_RULES = len(Rule)
RULE_NAMES = tuple(rule.name.lower() for rule in Rule)


@dataclass(frozen=True, kw_only=True)
class RuleSetting:
    """What one rule does.

    Attributes:
        mode: ``clamp``: the nearest motion that keeps the rule, counted; ``stop``: brake to rest and stay there
            until the filter is reset.
        stop_above: With ``clamp``: stop nevertheless if the excess is larger than this. For POSITION in rad or m
            beyond the limit, for VELOCITY as a multiple of the limit; None never stops. The others ignore it.
    """

    mode: Literal["clamp", "stop"] = "clamp"
    stop_above: float | None = None

    def __post_init__(self) -> None:
        if self.stop_above is not None and not self.stop_above > 0:
            raise ConfigError(f"rules: stop_above {self.stop_above:g}; expected more than 0, or none")


def _defaults() -> dict[str, RuleSetting]:
    return {
        "position": RuleSetting(stop_above=0.5),
        "velocity": RuleSetting(),
        "workspace": RuleSetting(),
        "deviation": RuleSetting(mode="stop"),
    }


@dataclass(frozen=True, kw_only=True)
class FilterRules:
    """Settings of all rules.

    Attributes:
        rules: By name (`RULE_NAMES`); a rule left out takes its default. FINITE and SHAPE always stop;
            ACCELERATION, JERK and STOPPABLE default to clamping without a bound, because policies that
            predict positions break them in every chunk.
        max_deviation: Largest distance between commanded and measured position [rad or m]; None for no check.
    """

    rules: Mapping[str, RuleSetting] = field(default_factory=dict)
    max_deviation: float | None = 0.2

    def __post_init__(self) -> None:
        for name in self.rules:
            if name not in RULE_NAMES:
                raise ConfigError(f"filter.rules: {unknown_name('rule', name, RULE_NAMES)}")
            if name in ("finite", "shape") and self.rules[name].mode != "stop":
                raise ConfigError(f"filter.rules.{name}: cannot be clamped; leave it out, or set mode: stop")
        if self.max_deviation is not None and not self.max_deviation > 0:
            raise ConfigError(f"filter.max_deviation {self.max_deviation:g}; expected more than 0, or none")

    def setting(self, rule: Rule) -> RuleSetting:
        """The setting of a rule."""
        if rule in (Rule.FINITE, Rule.SHAPE):
            return RuleSetting(mode="stop")
        name = rule.name.lower()
        return self.rules.get(name, _defaults().get(name, RuleSetting()))

    def stop_mask(self) -> np.ndarray:
        """(N_RULES,) bool: rules that stop."""
        return np.array([self.setting(rule).mode == "stop" for rule in Rule])
