"""A linter for demonstrations: small rules, each of which looks for one fault that recordings are known to have.

A rule is a function that yields `Finding`s, of one episode or of the whole store. `lint` runs them. Whether a store is
damaged is another question, which `robot_datasets.check` answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robot_datasets.checks import episodes, frames, meaning, motion, signals, timing
from robot_datasets.checks.context import EpisodeContext, StoreContext
from robot_datasets.checks.finding import SEVERITIES, Finding
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.store import EpisodeStore

__all__ = ["EPISODE_RULES", "STORE_RULES", "Finding", "LintReport", "lint", "rule_codes"]

EpisodeRule = Callable[[EpisodeContext], Iterator[Finding]]
StoreRule = Callable[[StoreContext], Iterator[Finding]]

EPISODE_RULES: dict[str, EpisodeRule] = {
    "time-order": timing.time_order,
    "rate-jitter": timing.rate_jitter,
    "time-gap": timing.time_gap,
    "rate-mismatch": timing.rate_mismatch,
    "frozen-signal": signals.frozen_signal,
    "stuck-signal": signals.stuck_signal,
    "slow-signal": signals.slow_signal,
    "spike": signals.spike,
    "angle-wrap": signals.angle_wrap,
    "idle-ends": motion.idle_ends,
    "pause": motion.waiting,
    "motionless": motion.motionless,
    "dark-frames": frames.dark_frames,
    "frozen-frames": frames.frozen_frames,
    "slow-camera": frames.slow_camera,
}
STORE_RULES: dict[str, StoreRule] = {
    "constant-component": signals.constant_component,
    "outlier": signals.outlier,
    "idle-ratio": motion.idle_ratio,
    "short-episode": motion.short_episode,
    "action-is-state": motion.action_is_state,
    "action-lag": motion.action_lag,
    "not-finite": meaning.not_finite,
    "unit-range": meaning.unit_range,
    "quaternion-norm": meaning.quaternion_norm,
    "gripper-polarity": meaning.gripper_polarity,
    "gripper-range": meaning.gripper_range,
    "depth-unit": meaning.depth_unit,
    "duplicate-episode": episodes.duplicate_episodes,
    "no-instruction": episodes.no_instruction,
}

_MAX_PER_CODE = 100


@dataclass(frozen=True)
class LintReport:
    """Outcome of `lint`.

    Attributes:
        store: The store's address.
        findings: The most serious first; of each code at most 100 are listed.
        counts: Findings by code, the ones not listed included.
    """

    store: str
    findings: list[Finding]
    counts: dict[str, int]

    def worst(self) -> str:
        """The gravest severity found; empty if nothing was."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in SEVERITIES if severity in found), "")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        findings = [finding.to_dict() for finding in self.findings]
        return {"store": self.store, "findings": findings, "counts": self.counts}


def rule_codes() -> list[str]:
    """Return the names of all rules, sorted."""
    return sorted((*EPISODE_RULES, *STORE_RULES))


def lint(
    store: EpisodeStore,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> LintReport:
    """Look for faults of the recordings.

    Args:
        store: An open store.
        only: Rules to run; empty runs all.
        skip: Rules to leave out.
        progress: Called with (episodes looked at, episodes) after each.

    Raises:
        DatasetError: An unknown rule, with the nearest match, or a column that cannot be read.
    """
    for name in (*only, *skip):
        if name not in rule_codes():
            raise DatasetError(unknown_name("rule", name, rule_codes()))
    chosen = set(only or rule_codes()) - set(skip)
    context = StoreContext(store)
    counts: Counter[str] = Counter()
    kept: list[Finding] = []

    def keep(finding: Finding) -> None:
        counts[finding.code] += 1
        if counts[finding.code] <= _MAX_PER_CODE:
            kept.append(finding)

    for name, rule in STORE_RULES.items():
        if name in chosen:
            for finding in rule(context):
                keep(finding)
    rules = [rule for name, rule in EPISODE_RULES.items() if name in chosen]
    for number in range(store.n_episodes if rules else 0):
        episode = context.episode(number)
        for rule in rules:
            for finding in rule(episode):
                keep(replace(finding, episode=number, source_id=episode.source_id))
        if progress is not None:
            progress(number + 1, store.n_episodes)
    kept.sort(key=lambda f: (SEVERITIES.index(f.severity), f.code, -1 if f.episode is None else f.episode))
    return LintReport(store.path, kept, dict(sorted(counts.items())))
