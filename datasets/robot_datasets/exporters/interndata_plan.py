"""What of a store becomes which column of an InternData-A1 set, decided before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.exporters.arm_columns import (
    END_EFFECTOR,
    ArmColumns,
    GripperColumn,
    camera_pairs,
    commanded_arm,
    commanded_gripper,
    left_out,
    require_finite,
    require_measured_arm,
)
from robot_datasets.exporters.interndata_robots import Layout, layout_of
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature
from robot_datasets.importers.interndata_checks import WIDEST_GRIPPER_M
from robot_datasets.schemas import EmbodimentSchema, load_schema
from robot_datasets.store import EpisodeStore

FORMAT = "interndata"
_NO_COMMANDS = ("next", "puppet")
"""Words in the meaning of actions that are recorded states, not what a controller was told."""

OPENNESS = ("actions", "master_actions")
"""Families of columns that have the commanded gripper; two arms have it in the second only."""

_AT_AN_END = 0.01
"""A gripper is open or closed if less of its way is missing; a measured one stops short of its ends."""


@dataclass(frozen=True)
class ArmPlan:
    """Where one arm's columns come from.

    Attributes:
        prefix: What its names begin with; of a single arm nothing.
        measured: Joints that were measured.
        gripper: The gripper that was measured.
        commanded: Joints that were commanded; None if the action is something else.
        openness: The commanded gripper; None if the action has none of known polarity.
    """

    prefix: str
    measured: ArmColumns
    gripper: GripperColumn
    commanded: ArmColumns | None
    openness: GripperColumn | None


@dataclass(frozen=True)
class InternDataPlan:
    """What goes where.

    Attributes:
        layout: The robot.
        schema: What its columns mean.
        arms: Its arms, as many as the layout has prefixes.
        recorded: Column -> feature of the store, and those of its components, that are exactly this.
        cameras: Camera of the layout -> camera of the store.
        losses: What does not come along or is made up, in words.
    """

    layout: Layout
    schema: EmbodimentSchema
    arms: tuple[ArmPlan, ...]
    recorded: Mapping[str, tuple[str, slice]]
    cameras: Mapping[str, str]
    losses: tuple[str, ...]


def plan_export(store: EpisodeStore, options: Mapping[str, str]) -> InternDataPlan:
    """Decide what goes where.

    Args:
        store: The store.
        options: ``robot``, ``cameras``.

    Raises:
        DatasetError: The format cannot hold the store; says what to change.
    """
    layout = layout_of(store, options["robot"])
    schema = load_schema(layout.schema)
    arms = tuple(_arm(store, layout, prefix) for prefix in layout.prefixes)
    cameras = _cameras(store, schema, options["cameras"])
    recorded = _recorded(store, schema)
    whole = {name for name, _ in recorded.values()} | {IMAGE_PREFIX + camera for camera in cameras.values()}
    taken = _taken(arms)
    require_finite(store, {*taken, *(name for name, _ in recorded.values())})
    losses = left_out(store.features, whole, taken)
    losses += _not_told(store, schema, arms)
    losses += _made_up(store, layout, schema, arms, recorded)
    return InternDataPlan(
        layout=layout,
        schema=schema,
        arms=arms,
        recorded=recorded,
        cameras=cameras,
        losses=tuple(losses),
    )


def _arm(store: EpisodeStore, layout: Layout, prefix: str) -> ArmPlan:
    """Find one arm's columns in the store."""
    count = len(layout.arm.links)
    measured = require_measured_arm(store, count, layout.schema, prefix)
    action = store.features.get(ACTION)
    told = action is not None and not any(word in action.meaning for word in _NO_COMMANDS)
    return ArmPlan(
        prefix=prefix,
        measured=measured,
        gripper=_gripper(store, measured, layout),
        commanded=commanded_arm(store.features, count, prefix) if told else None,
        openness=commanded_gripper(store.features, prefix) if told else None,
    )


def _taken(arms: Sequence[ArmPlan]) -> dict[str, set[int]]:
    """Return feature -> which of its components the arms are made of."""
    parts: dict[str, set[int]] = {}
    for arm in arms:
        for name, columns in arm.measured.taken().items():
            parts.setdefault(name, set()).update(columns)
        commands = {
            *(arm.commanded.joints if arm.commanded else ()),
            *([arm.openness.column] if arm.openness else ()),
        }
        if commands:
            parts.setdefault(ACTION, set()).update(commands)
    return parts


def _gripper(store: EpisodeStore, measured: ArmColumns, layout: Layout) -> GripperColumn:
    """Return the measured gripper; of an opening in metres, declared ends such as 0 and 1 are a direction only."""
    name, closed, opened = measured.gripper_feature, measured.closed, measured.opened
    feature = store.features[name]
    if closed is None or opened is None:
        raise DatasetError(
            f"{store.path}: {name} does not declare the gripper's polarity ({feature.gripper or 'nothing'}), so its "
            "opening is not known; convert the source with a schema that says it, e.g. gripper: 0=closed,0.08=open"
        )
    unit = feature.units[measured.gripper if len(feature.units) > 1 else 0] if feature.units else ""
    if unit == "m" and max(abs(closed), abs(opened)) > WIDEST_GRIPPER_M:
        if closed != 0 or opened < 0:
            raise DatasetError(
                f"{store.path}: {name} is in m with the polarity {feature.gripper}; expected an opening, 0=closed"
            )
        opened = layout.width
    return GripperColumn(name, measured.gripper, closed, opened)


def _cameras(store: EpisodeStore, schema: EmbodimentSchema, option: str) -> dict[str, str]:
    """Return camera of the layout -> camera of the store, one at least."""
    there = [n.removeprefix(IMAGE_PREFIX) for n in store.spec.image_features if n.startswith(IMAGE_PREFIX)]
    if not there:
        raise DatasetError(
            f"{store.path} has no colour camera, an InternData-A1 set does; generate with task.images=true"
        )
    chosen = camera_pairs(option, there) or {name: name for name in schema.cameras if name in there}
    if not chosen and len(there) == 1:
        chosen = {next(iter(schema.cameras)): there[0]}
    if not chosen:
        raise DatasetError(
            f"{store.path} has the cameras {', '.join(there)}, {schema.name} has {', '.join(schema.cameras)}; say "
            f"which is which with --option cameras={next(iter(schema.cameras))}={there[0]},..."
        )
    for name, camera in chosen.items():
        if name not in schema.cameras:
            raise DatasetError(f"option cameras: {unknown_name('camera of the set', name, schema.cameras)}")
        height, width = store.features[IMAGE_PREFIX + camera].shape[:2]
        if height % 2 or width % 2:
            raise DatasetError(
                f"{IMAGE_PREFIX + camera} is {height}x{width} px, the videos of a set need even sizes; generate with "
                "an even task.image_size"
            )
    return chosen


def _recorded(store: EpisodeStore, schema: EmbodimentSchema) -> dict[str, tuple[str, slice]]:
    """Return the columns that the store has under the names that our importer gives them, with their conventions."""
    found = {}
    for name, source in schema.features.items():
        feature = store.features.get(name) if name != STATE else None
        if feature is None or _conventions(feature) != _conventions(schema.feature(name)):
            continue
        first = 0
        for part in source.parts:
            found[part.source] = (name, slice(first, first + part.size))
            first += part.size
    return found


def _conventions(feature: Feature) -> tuple[object, ...]:
    return feature.shape, feature.units, feature.frame, feature.rotation


def _not_told(store: EpisodeStore, schema: EmbodimentSchema, arms: Sequence[ArmPlan]) -> list[str]:
    """Say which commands the set goes without."""
    known = {part.source for action in schema.actions.values() for part in action.parts}
    lost = []
    if without := [arm.prefix for arm in arms if arm.commanded is None]:
        names = ", ".join(f"master_actions.{prefix}joint.position" for prefix in without)
        lost.append(f"left out: {names}, because the actions are no commanded joint positions")
    if without := [arm.prefix for arm in arms if arm.openness is None]:
        openness = [f"{kind}.{prefix}gripper.openness" for prefix in without for kind in OPENNESS]
        names = ", ".join(name for name in openness if name in known)
        lost.append(
            f"left out: {names}, because the actions hold no command of a gripper whose polarity is declared"
        )
    if between := sum(_between(store, arm.openness) for arm in arms if arm.openness):
        lost.append(f"openness is 1 or 0: {between} commands between open and closed go to the nearer one")
    return lost


def _made_up(
    store: EpisodeStore,
    layout: Layout,
    schema: EmbodimentSchema,
    arms: Sequence[ArmPlan],
    recorded: Mapping[str, tuple[str, slice]],
) -> list[str]:
    """Say what is computed, coarser than in the store, or missing beside a published set."""
    told = []
    poses = {column for prefix in layout.prefixes for column in layout.poses(prefix)}
    others = [
        part.source for name, source in schema.features.items() if name != STATE for part in source.parts
    ]
    computed = [name for name in others if name in poses and name not in recorded]
    if computed:
        own = (
            f"; {END_EFFECTOR}, the pose of another tool, stays behind"
            if END_EFFECTOR in store.features
            else ""
        )
        told.append(f"computed from the joints: {', '.join(computed)}{own}")
    if layout.binary and (between := sum(_between(store, arm.gripper) for arm in arms)):
        told.append(
            f"states.gripper.position is 1 from half open on, else 0, as in the published sets: {between} steps lie "
            "between"
        )
    absent = [name for name in others if name not in poses and name not in recorded]
    if absent:
        told.append(f"not in the set, because the store does not know them: {', '.join(absent)}")
    if schema.named_only:
        told.append(
            f"no published set is of this robot; readers other than ours do not know {schema.labels[0]}"
        )
    failed = int(np.count_nonzero(np.asarray(store.episodes["success"]) == 0))
    if failed:
        told.append(f"{failed} episodes did not succeed, which other readers are not told")
    return told


def _between(store: EpisodeStore, gripper: GripperColumn) -> int:
    """Count the steps at which a gripper is neither open nor closed."""
    values = gripper.openness({gripper.feature: store.column(gripper.feature)})
    return int(np.count_nonzero((values > _AT_AN_END) & (values < 1 - _AT_AN_END)))
