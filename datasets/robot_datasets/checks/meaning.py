"""Rules that compare numbers with what they are said to mean: units, quaternions, grippers, depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robot_datasets.checks.context import Signal, StoreContext
from robot_datasets.checks.finding import Finding
from robot_datasets.features import ACTION, DEPTH_PREFIX, STATE

TURNS = 2.0
"""Joint angles beyond so many turns are probably degrees [turns]."""
FAR_METRES = 20.0
NORM_ERROR = 1e-2
DEPTH_METRES = 100
"""Depth in mm whose largest value is at most this is probably in metres (RoboMIND's own rule)."""
OPPOSITE = -0.5

_LIMITS = {"rad": (TURNS * 2 * np.pi, "degrees"), "m": (FAR_METRES, "millimetres")}


def not_finite(context: StoreContext) -> Iterator[Finding]:
    """Values that are no numbers; other rules then leave the feature out."""
    for name in context.store.spec.low_dim:
        values = context.store.column(name)
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        episode = int(np.searchsorted(context.ends, bad[0], side="right"))
        yield Finding(
            code="not-finite",
            severity="error",
            feature=name,
            episode=episode,
            source_id=context.store.episodes["source_id"][episode],
            number=len(bad),
            detail=f"NaN or infinity in {len(bad):,} steps, first at step {bad[0] - context.starts[episode]}",
            remedy="drop these episodes (robot-policies drop), or repair their source",
        )


def unit_range(context: StoreContext) -> Iterator[Finding]:
    """Values too large for their unit."""
    for signal in context.signals.values():
        reach = np.maximum(np.abs(signal.low), np.abs(signal.high))
        for component in range(len(reach)):
            unit = signal.unit(component)
            limit, suspected = _LIMITS.get(unit, (np.inf, ""))
            if reach[component] > limit:
                yield Finding(
                    code="unit-range",
                    severity="warning",
                    feature=signal.name,
                    number=float(reach[component]),
                    detail=f"{signal.label(component)} reaches {reach[component]:.4g} {unit}, more than {limit:.4g}; "
                    f"probably {suspected}",
                    remedy="correct the unit in the schema, or scale the source",
                )


def quaternion_norm(context: StoreContext) -> Iterator[Finding]:
    """Quaternions whose length is not 1."""
    for signal in context.signals.values():
        for columns in _quaternions(signal):
            norm = np.linalg.norm(signal.values[:, columns].astype(np.float64), axis=1)
            bad = np.flatnonzero(np.abs(norm - 1) > NORM_ERROR)
            if not len(bad):
                continue
            episode = int(np.searchsorted(context.ends, bad[0], side="right"))
            zero = bool(norm[bad].max() < NORM_ERROR)
            yield Finding(
                code="quaternion-norm",
                severity="error",
                feature=signal.name,
                episode=episode,
                source_id=context.store.episodes["source_id"][episode],
                number=float(norm[bad[0]]),
                detail=f"the quaternion {signal.label(columns[0])}.. is {'zero' if zero else 'not of length 1'} in "
                f"{len(bad):,} steps, first at step {bad[0] - context.starts[episode]} ({norm[bad[0]]:.3f})",
                remedy="check the order and the columns in the schema, or drop these episodes",
            )


def _quaternions(signal: Signal) -> Iterator[list[int]]:
    """Components of each quaternion: four neighbours whose names end in qx, qy, qz and qw, in any order."""
    if not signal.feature.rotation.startswith("quat"):
        return
    names = signal.feature.names
    ends = [name.lower().replace("_", "")[-2:] for name in names]
    found = False
    for i in range(len(names) - 3):
        if sorted(ends[i : i + 4]) == ["qw", "qx", "qy", "qz"]:
            found = True
            yield list(range(i, i + 4))
    if not found and signal.values.shape[1] == 4:
        yield [0, 1, 2, 3]


def gripper_polarity(context: StoreContext) -> Iterator[Finding]:
    """A gripper whose command closes while its measured state opens."""
    state, action = context.signals.get(STATE), context.signals.get(ACTION)
    if state is None or action is None:
        return
    for name in _grippers(action):
        if name not in state.feature.names:
            continue
        s, a = state.feature.names.index(name), action.feature.names.index(name)
        if not (state.varies[s] and action.varies[a]):
            continue
        correlation = float(np.corrcoef(state.values[:, s], action.values[:, a])[0, 1])
        if correlation < OPPOSITE:
            yield Finding(
                code="gripper-polarity",
                severity="warning",
                feature=ACTION,
                number=correlation,
                detail=f"{name} runs against the state's {name} (correlation {correlation:.2f}): "
                "one of them is inverted",
                remedy="state both polarities in the schema and invert one, so that 0 means the same",
            )


def gripper_range(context: StoreContext) -> Iterator[Finding]:
    """A gripper outside the values that its declared polarity names."""
    for signal in context.signals.values():
        named = _polarity_values(signal.feature.gripper)
        if len(named) < 2:
            continue
        low, high = min(named), max(named)
        slack = 0.1 * (high - low)
        for name in _grippers(signal):
            component = signal.feature.names.index(name)
            smallest, largest = signal.low[component], signal.high[component]
            if smallest < low - slack or largest > high + slack:
                yield Finding(
                    code="gripper-range",
                    severity="warning",
                    feature=signal.name,
                    number=float(largest if largest > high + slack else smallest),
                    detail=f"{name} runs from {smallest:.4g} to {largest:.4g}, declared is {signal.feature.gripper}",
                    remedy="correct the polarity in the schema, or normalise the gripper",
                )


def _grippers(signal: Signal) -> list[str]:
    return [name for name in signal.feature.names if "gripper" in name.lower()]


def _polarity_values(polarity: str) -> list[float]:
    """``"0=open,1=closed"`` -> [0.0, 1.0]."""
    values = []
    for part in polarity.split(","):
        try:
            values.append(float(part.partition("=")[0]))
        except ValueError:
            continue
    return values


def depth_unit(context: StoreContext) -> Iterator[Finding]:
    """Depth said to be in millimetres that is in metres, or that is empty."""
    store = context.store
    for name in store.spec.image_features:
        if not name.startswith(DEPTH_PREFIX):
            continue
        stats = store.stats(name)
        largest = float(stats.max.max())
        if largest == 0:
            yield Finding(
                code="empty-depth",
                severity="warning",
                feature=name,
                number=0,
                detail="all sampled pixels are 0",
                remedy="convert without depth (--option depth=drop)",
            )
        elif largest <= DEPTH_METRES and store.features[name].units in ((), ("mm",)):
            yield Finding(
                code="depth-unit",
                severity="warning",
                feature=name,
                number=largest,
                detail=f"the largest sampled value is {largest:g}, too small for millimetres; probably metres",
                remedy="scale the source to millimetres, or convert without depth",
            )
