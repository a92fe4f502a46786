"""Rules about single signals: frozen, held, spiking, wrapping, far out, constant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robot_datasets.checks.context import EpisodeContext, StoreContext, longest_run
from robot_datasets.checks.finding import Finding
from robot_datasets.features import ACTION

FROZEN = 1e-4
"""A signal whose components all stay within this share of their usual range is frozen."""
AT_WORK = 0.1
"""The robot is at work where its reference covers more than this share of its usual range."""
STUCK_SECONDS = 1.0
HELD_STEPS = 0.3
HELD_MOVES = 0.02
SPIKE_CHANGES = 10.0
SPIKE_SPAN = 0.3
SPIKE_RETURN = 0.25
FEW_VALUES = 8
OUTLIER_SPANS = 5.0

_DROP = "drop the episode (robot-policies drop), or repair its source"


def frozen_signal(episode: EpisodeContext) -> Iterator[Finding]:
    """An observation that keeps its value in an episode in which the robot works."""
    for signal in episode.parent.observations:
        reference = episode.reference(signal.name)
        if reference is None or not signal.varies.any() or episode.n_steps < 3:
            continue
        rows = episode.rows(signal)
        still = np.ptp(rows, axis=0)[signal.varies] <= FROZEN * signal.span[signal.varies]
        if still.all() and rows.any() and episode.travel(reference) > AT_WORK:
            travel = episode.travel(reference)
            yield Finding(
                code="frozen-signal",
                severity="warning",
                feature=signal.name,
                number=travel,
                detail=f"never changes, while {reference.name} covers {travel:.0%} of its usual range",
                remedy=_DROP,
            )


def stuck_signal(episode: EpisodeContext) -> Iterator[Finding]:
    """An observation that stops for a while although the robot goes on."""
    steps = max(3, round(STUCK_SECONDS * episode.fps))
    for signal in episode.parent.observations:
        reference = episode.reference(signal.name)
        rows = episode.rows(signal)
        if reference is None or not signal.varies.any() or not rows.any():
            continue
        first, end = longest_run((np.diff(rows, axis=0) == 0).all(axis=1))
        if end - first < steps or end - first >= episode.n_steps - 1:
            continue
        travel = episode.travel(reference, first, end + 1)
        if travel > AT_WORK:
            yield Finding(
                code="stuck-signal",
                severity="warning",
                feature=signal.name,
                number=(end - first) / episode.fps,
                detail=f"stands still from step {first} to {end}, while {reference.name} covers {travel:.0%} of its "
                "usual range",
                remedy="cut that part out (robot-policies trim), or drop the episode",
            )


def slow_signal(episode: EpisodeContext) -> Iterator[Finding]:
    """A signal that is refreshed less often than it is stored."""
    for signal in episode.parent.observations:
        reference = episode.reference(signal.name)
        if reference is None or not signal.varies.any():
            continue
        moving = episode.moves(reference, HELD_MOVES)
        held = (np.diff(episode.rows(signal), axis=0) == 0).all(axis=1)
        if moving.sum() < 20 or not held.any() or held.all():
            continue
        first, end = longest_run(held)
        share = float(held[moving].mean())
        if share > HELD_STEPS and end - first <= 10:
            yield Finding(
                code="slow-signal",
                severity="warning",
                feature=signal.name,
                number=share,
                detail=f"repeats its last value in {share:.0%} of the steps in which {reference.name} moves, as if "
                f"refreshed at {episode.fps * (1 - share):.1f} of {episode.fps:g} Hz",
                remedy="convert at the rate of the slowest signal, or resample by interpolation",
            )


def spike(episode: EpisodeContext) -> Iterator[Finding]:
    """A single sample far from both neighbours, which are close to each other: a glitch, not a motion."""
    for signal in episode.parent.signals.values():
        rows = episode.rows(signal)
        if len(rows) < 3:
            continue
        out, back = np.diff(rows, axis=0)[:-1], np.diff(rows, axis=0)[1:]
        size = np.minimum(np.abs(out), np.abs(back))
        returns = np.abs(out + back) < SPIKE_RETURN * size
        far = size > np.maximum(SPIKE_CHANGES * episode.parent.change_scale(signal), SPIKE_SPAN * signal.span)
        found = returns & far & (size > 0) & signal.varies
        for component in np.flatnonzero(found.any(axis=0)):
            if len(np.unique(rows[:, component])) <= FEW_VALUES:  # a switch
                continue
            steps = np.flatnonzero(found[:, component]) + 1
            worst = float(size[:, component].max())
            yield Finding(
                code="spike",
                severity="warning",
                feature=signal.name,
                number=worst,
                detail=f"{signal.label(int(component))} jumps by {worst:.3g} for one step and back, "
                f"{len(steps)} times, first at step {steps[0]}",
                remedy="interpolate these samples in the source, or drop the episode",
            )


def angle_wrap(episode: EpisodeContext) -> Iterator[Finding]:
    """An angle that jumps by a full turn."""
    for signal in episode.parent.signals.values():
        radians = [i for i in range(signal.values.shape[1]) if signal.unit(i) == "rad"]
        if not radians:
            continue
        jumps = np.abs(np.abs(np.diff(episode.rows(signal)[:, radians], axis=0)) - 2 * np.pi) < 0.5
        for i in np.flatnonzero(jumps.any(axis=0)):
            steps = np.flatnonzero(jumps[:, i]) + 1
            yield Finding(
                code="angle-wrap",
                severity="note",
                feature=signal.name,
                number=len(steps),
                detail=f"{signal.label(radians[i])} jumps by a full turn, {len(steps)} in all, first at step "
                f"{steps[0]}",
                remedy="unwrap the angle, or use a rotation without a seam (rot6d)",
            )


def constant_component(context: StoreContext) -> Iterator[Finding]:
    """A component that is the same in all steps of the store."""
    for signal in context.signals.values():
        lowest, highest = signal.values.min(axis=0), signal.values.max(axis=0)
        same = np.flatnonzero(lowest == highest)
        if len(same):
            names = ", ".join(signal.label(int(i)) for i in same[:6]) + (", ..." if len(same) > 6 else "")
            every = len(same) == len(lowest)
            yield Finding(
                code="constant-component",
                severity="warning" if every and signal.name == ACTION else "note",
                feature=signal.name,
                number=len(same),
                detail=f"{len(same)} of {len(lowest)} components never change: {names}",
                remedy="nothing to learn there; they are shifted to 0 and not scaled",
            )


def outlier(context: StoreContext) -> Iterator[Finding]:
    """An extreme so far out that min-max normalisation squeezes everything else."""
    for signal in context.signals.values():
        lowest, highest = signal.values.min(axis=0), signal.values.max(axis=0)
        reach = np.maximum(signal.low - lowest, highest - signal.high)
        for component in np.flatnonzero(signal.varies & (reach > OUTLIER_SPANS * signal.span)):
            column = signal.values[:, component]
            middle = (signal.low[component] + signal.high[component]) / 2
            step = int(np.argmax(np.abs(column - middle)))
            episode = int(np.searchsorted(context.ends, step, side="right"))
            factor, place = float(reach[component] / signal.span[component]), step - context.starts[episode]
            yield Finding(
                code="outlier",
                severity="warning",
                feature=signal.name,
                episode=episode,
                source_id=context.store.episodes["source_id"][episode],
                number=factor,
                detail=f"{signal.label(int(component))} is {column[step]:.4g} at step {place}, "
                f"{factor:.1f} usual ranges beyond the usual {signal.low[component]:.4g} to "
                f"{signal.high[component]:.4g}",
                remedy="drop the episode or repair the sample; otherwise use z_score instead of min_max",
            )
