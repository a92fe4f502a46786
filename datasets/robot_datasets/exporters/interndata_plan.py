"""What of a store becomes which column of an InternData-A1 set, decided before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
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
    require_measured_arm,
)
from robot_datasets.exporters.interndata_robots import Layout, layout_of
from robot_datasets.features import ACTION, IMAGE_PREFIX, Feature
from robot_datasets.importers.interndata_checks import WIDEST_GRIPPER_M
from robot_datasets.kinematics import PANDA
from robot_datasets.schemas import EmbodimentSchema, load_schema
from robot_datasets.store import EpisodeStore

FORMAT = "interndata"
_NO_COMMANDS = ("next", "puppet")
"""Words in the meaning of actions that are recorded states, not what a controller was told."""

_AT_AN_END = 0.01
"""A gripper is open or closed if less of its way is missing; a measured one stops short of its ends."""


@dataclass(frozen=True)
class InternDataPlan:
    """What goes where.

    Attributes:
        layout: The robot.
        schema: What its columns mean.
        measured: Joints that were measured.
        gripper: The gripper that was measured.
        commanded: Joints that were commanded; None if the action is something else.
        openness: The commanded gripper; None if the action has none of known polarity.
        recorded: Column -> feature of the store that is exactly this.
        cameras: Camera of the layout -> camera of the store.
        losses: What does not come along or is made up, in words.
    """

    layout: Layout
    schema: EmbodimentSchema
    measured: ArmColumns
    gripper: GripperColumn
    commanded: ArmColumns | None
    openness: GripperColumn | None
    recorded: Mapping[str, str]
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
    measured = require_measured_arm(store, len(PANDA.links), layout.schema)
    gripper = _gripper(store, measured, layout)
    action = store.features.get(ACTION)
    told = action is not None and not any(word in action.meaning for word in _NO_COMMANDS)
    commanded = commanded_arm(store.features, len(PANDA.links)) if told else None
    openness = commanded_gripper(store.features) if told else None
    cameras = _cameras(store, schema, options["cameras"])
    recorded = _recorded(store, schema)
    parts = measured.taken()
    for taken in (set(commanded.joints) if commanded else set(), {openness.column} if openness else set()):
        if taken:
            parts.setdefault(ACTION, set()).update(taken)
    whole = {*recorded.values(), *(IMAGE_PREFIX + camera for camera in cameras.values())}
    losses = left_out(store.features, whole, parts)
    losses += _not_told(store, commanded, openness)
    losses += _made_up(store, layout, schema, gripper, recorded)
    return InternDataPlan(
        layout=layout,
        schema=schema,
        measured=measured,
        gripper=gripper,
        commanded=commanded,
        openness=openness,
        recorded=recorded,
        cameras=cameras,
        losses=tuple(losses),
    )


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


def _recorded(store: EpisodeStore, schema: EmbodimentSchema) -> dict[str, str]:
    """Return the columns that the store has under the names that our importer gives them, with their conventions."""
    found = {}
    for name, source in schema.features.items():
        feature = store.features.get(name) if len(source.parts) == 1 else None
        if feature is not None and _conventions(feature) == _conventions(schema.feature(name)):
            found[source.parts[0].source] = name
    return found


def _conventions(feature: Feature) -> tuple[object, ...]:
    return feature.shape, feature.units, feature.frame, feature.rotation


def _not_told(store: EpisodeStore, commanded: ArmColumns | None, openness: GripperColumn | None) -> list[str]:
    """Say which commands the set goes without."""
    lost = []
    if commanded is None:
        lost.append("master_actions.joint.position is left out: the actions are no commanded joint positions")
    if openness is None:
        lost.append(
            "actions.gripper.openness and master_actions.gripper.openness are left out: the actions hold no command "
            "of a gripper whose polarity is declared"
        )
    elif between := _between(store, openness):
        lost.append(f"openness is 1 or 0: {between} commands between open and closed go to the nearer one")
    return lost


def _made_up(
    store: EpisodeStore,
    layout: Layout,
    schema: EmbodimentSchema,
    gripper: GripperColumn,
    recorded: Mapping[str, str],
) -> list[str]:
    """Say what is computed, coarser than in the store, or missing beside a published set."""
    told = []
    single = [source.parts[0].source for source in schema.features.values() if len(source.parts) == 1]
    computed = [name for name in single if _is_computed(name) and name not in recorded]
    if computed:
        own = (
            f"; {END_EFFECTOR}, the pose of another tool, stays behind"
            if END_EFFECTOR in store.features
            else ""
        )
        told.append(f"computed from the joints: {', '.join(computed)}{own}")
    if layout.binary and (between := _between(store, gripper)):
        told.append(
            f"states.gripper.position is 1 from half open on, else 0, as in the published sets: {between} steps lie "
            "between"
        )
    absent = [name for name in single if not _is_computed(name) and name not in recorded]
    if absent:
        told.append(f"not in the set, because the store does not know them: {', '.join(absent)}")
    failed = int(np.count_nonzero(np.asarray(store.episodes["success"]) == 0))
    if failed:
        told.append(f"{failed} episodes did not succeed, which other readers are not told")
    return told


def _between(store: EpisodeStore, gripper: GripperColumn) -> int:
    """Count the steps at which a gripper is neither open nor closed."""
    values = gripper.openness({gripper.feature: store.column(gripper.feature)})
    return int(np.count_nonzero((values > _AT_AN_END) & (values < 1 - _AT_AN_END)))


def _is_computed(column: str) -> bool:
    """Whether a column of the states follows from the joints."""
    return column == "states.gripper.pose" or column.startswith(("states.ee_to_", "states.tcp_to_"))
