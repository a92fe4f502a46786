"""Rules about how the robot moves: idle time, the action against the state, episodes that are too short."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robot_datasets.checks.context import EpisodeContext, Signal, StoreContext, longest_run
from robot_datasets.checks.finding import Finding
from robot_datasets.features import ACTION, STATE

IDLE_SHARE = 0.3
IDLE_END_SECONDS = 2.0
IDLE_END_SHARE = 0.2
LAG_SECONDS = 1.0
LAG_CORRELATION = 0.5
SHORT_SHARE = 0.1
SHORT_STEPS = 5
_SAME = 1e-6


def idle_ends(episode: EpisodeContext) -> Iterator[Finding]:
    """An episode that begins or ends with waiting."""
    idle = episode.idle
    if not len(idle) or idle.all():
        return
    busy = np.flatnonzero(~idle)
    for where, steps in (("begins", int(busy[0])), ("ends", int(len(idle) - 1 - busy[-1]))):
        seconds, share = steps / episode.fps, steps / episode.n_steps
        if seconds >= IDLE_END_SECONDS and share >= IDLE_END_SHARE:
            yield Finding(
                code="idle-ends",
                severity="warning",
                number=seconds,
                detail=f"{where} with {seconds:.1f} s without motion ({share:.0%} of the episode)",
                remedy="cut it off (robot-policies trim --idle)",
            )


def motionless(episode: EpisodeContext) -> Iterator[Finding]:
    """An episode in which nothing moves at all."""
    idle = episode.idle
    if len(idle) and idle.all():
        yield Finding(
            code="motionless",
            severity="warning",
            number=episode.n_steps / episode.fps,
            detail=f"neither state nor action change in {episode.n_steps} steps",
            remedy="drop the episode (robot-policies drop)",
        )


def idle_ratio(context: StoreContext) -> Iterator[Finding]:
    """A large share of steps without motion in the store as a whole."""
    flags = [context.episode(e).idle for e in context.sampled_episodes()]
    steps = sum(map(len, flags))
    share = sum(int(f.sum()) for f in flags) / steps if steps else 0.0
    if share > IDLE_SHARE:
        yield Finding(
            code="idle-ratio",
            severity="warning",
            number=share,
            detail=f"{share:.0%} of all steps are without motion; a policy learns to wait",
            remedy="cut idle ends off (robot-policies trim --idle)",
        )


def short_episode(context: StoreContext) -> Iterator[Finding]:
    """Episodes much shorter than the others."""
    lengths = np.diff(context.ends, prepend=0)
    usual = float(np.median(lengths))
    if usual < 4 * SHORT_STEPS:
        return
    for episode in np.flatnonzero(lengths < max(SHORT_STEPS, SHORT_SHARE * usual)):
        yield Finding(
            code="short-episode",
            severity="warning",
            episode=int(episode),
            source_id=context.store.episodes["source_id"][episode],
            number=int(lengths[episode]),
            detail=f"has {lengths[episode]} steps, half of all have {usual:g} or more",
            remedy="look at it, and drop it if it was broken off (robot-policies drop)",
        )


def _common(context: StoreContext) -> tuple[Signal, Signal, list[int], list[int]] | None:
    """Return state, action and the components that both have (by name, else by place) and that vary, or None."""
    state, action = context.signals.get(STATE), context.signals.get(ACTION)
    if state is None or action is None or "delta" in action.feature.meaning:
        return None
    pairs = [
        (state.feature.names.index(name), i)
        for i, name in enumerate(action.feature.names)
        if name in state.feature.names
    ]
    sizes = state.values.shape[1], action.values.shape[1]
    if not pairs and sizes[0] == sizes[1] and action.feature.meaning.startswith("absolute"):
        pairs = [(i, i) for i in range(sizes[0]) if state.unit(i) == action.unit(i)]
    pairs = [(s, a) for s, a in pairs if state.varies[s] and action.varies[a]]
    return (state, action, [s for s, _ in pairs], [a for _, a in pairs]) if pairs else None


def action_is_state(context: StoreContext) -> Iterator[Finding]:
    """Actions that repeat the state of the same step: a policy that copies them stands still."""
    common = _common(context)
    if common is None:
        return
    state, action, s, a = common
    difference = np.abs(state.values[:, s].astype(np.float64) - action.values[:, a])
    if (difference <= _SAME * np.maximum(1.0, np.abs(action.values[:, a]))).all():
        yield Finding(
            code="action-is-state",
            severity="warning",
            feature=ACTION,
            number=float(difference.max()),
            detail=f"is the state of the same step in {len(s)} components; a policy learns to stand still",
            remedy="convert with an action that looks ahead (e.g. --option action=puppet_next)",
        )


def action_lag(context: StoreContext) -> Iterator[Finding]:
    """How many steps the state follows the action: their changes are correlated over shifts."""
    common = _common(context)
    if common is None:
        return
    shifts = _correlations(context, *common)
    best = max(shifts, key=lambda k: shifts[k])
    if shifts[best] < LAG_CORRELATION:
        return
    seconds = best / context.fps
    if best < 0:
        yield Finding(
            code="action-lag",
            severity="warning",
            feature=ACTION,
            number=best,
            detail=f"lags {-best} steps behind the state (correlation {shifts[best]:.2f}): it tells "
            "what was already done",
            remedy="check the action's shift in the schema and convert again",
        )
    elif best > 1:
        yield Finding(
            code="action-lag",
            severity="note",
            feature=ACTION,
            number=best,
            detail=f"the state follows {best} steps ({seconds:.2f} s) later (correlation {shifts[best]:.2f})",
            remedy="expect that delay at execution; the policy sees it as in the data",
        )


def _correlations(
    context: StoreContext, state: Signal, action: Signal, s: list[int], a: list[int]
) -> dict[int, float]:
    """Return shift -> mean correlation of the changes of action[t] and state[t + shift]."""
    reach = max(1, round(LAG_SECONDS * context.fps))
    totals = {k: np.zeros(3) for k in range(-reach, reach + 1)}
    for number in context.sampled_episodes():
        episode = context.episode(number)
        if episode.n_steps < 2 * reach + 10:
            continue
        x = np.diff(episode.rows(action)[:, a], axis=0) / action.span[a]
        y = np.diff(episode.rows(state)[:, s], axis=0) / state.span[s]
        inner = slice(reach, len(x) - reach)
        for k, sums in totals.items():
            u, v = x[inner], y[inner.start + k : inner.stop + k]
            sums += (u * v).sum(), (u * u).sum(), (v * v).sum()
    return {k: float(p / np.sqrt(q * r)) if q * r > 0 else 0.0 for k, (p, q, r) in totals.items()}


def waiting(episode: EpisodeContext) -> Iterator[Finding]:
    """A long pause in the middle of an episode."""
    idle = episode.idle
    if not len(idle) or idle.all():
        return
    busy = np.flatnonzero(~idle)
    inner = idle[busy[0] : busy[-1]]
    first, end = longest_run(inner)
    seconds = (end - first) / episode.fps
    if seconds >= 2 * IDLE_END_SECONDS and (end - first) / episode.n_steps >= IDLE_END_SHARE:
        yield Finding(
            code="pause",
            severity="note",
            number=seconds,
            detail=f"stands still for {seconds:.1f} s from step {busy[0] + first}",
            remedy="look at it; a policy learns such pauses",
        )
