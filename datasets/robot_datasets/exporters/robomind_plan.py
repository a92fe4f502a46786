"""What of a store goes where in a RoboMIND 1.x tree, decided before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.exporters.arm_columns import (
    END_EFFECTOR,
    ArmColumns,
    camera_pairs,
    commanded_arm,
    left_out,
    require_finite,
    require_measured_arm,
    tool_pose,
)
from robot_datasets.exporters.robomind_words import task_folders
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX
from robot_datasets.kinematics import SerialArm, get_arm
from robot_datasets.schemas import EmbodimentSchema, find_schema
from robot_datasets.store import EpisodeStore

FORMAT = "robomind"
ASSUMED_RATE = 30.0
"""What readers take for the rate [Hz], because the files of real robots have no times."""

_ARMS = {"h5_franka_1rgb": "panda", "h5_franka_3rgb": "panda", "h5_ur_1rgb": "ur5e"}
LAYOUTS = tuple(_ARMS)
"""Embodiment folders that can be written."""

_ROBOTS = {"panda": "panda", "franka": "panda", "ur5e": "ur5e"}
"""Embodiment of a store -> arm."""


@dataclass(frozen=True)
class RoboMindPlan:
    """What goes where.

    Attributes:
        layout: Embodiment folder.
        schema: What its arrays mean.
        arm: The arm's kinematics.
        measured: Joints and gripper that were measured.
        commanded: Those that were commanded; None if the action is something else.
        rotation: Of the end effector's feature; empty if poses are computed from the joints.
        cameras: Camera of the layout -> camera of the store.
        folders: Instruction -> task folder.
        losses: What does not come along, in words.
    """

    layout: str
    schema: EmbodimentSchema
    arm: SerialArm
    measured: ArmColumns
    commanded: ArmColumns | None
    rotation: str
    cameras: Mapping[str, str]
    folders: Mapping[str, str]
    losses: tuple[str, ...]


def plan_export(store: EpisodeStore, options: Mapping[str, str]) -> RoboMindPlan:
    """Decide what goes where.

    Args:
        store: The store.
        options: ``layout``, ``cameras``.

    Raises:
        DatasetError: The layout cannot hold the store; says what to change.
    """
    arm = _arm(store, options["layout"])
    layout, schema, cameras = _cameras(store, arm.name, options)
    measured = require_measured_arm(store, len(arm.links), layout)
    _require_labels(store)
    commanded = commanded_arm(store.features, len(arm.links))
    pose = tool_pose(store.features)
    poses = [] if isinstance(pose, str) else [END_EFFECTOR]
    require_finite(store, {*measured.taken(), *poses, *([ACTION] if commanded else [])})
    warnings = _losses(store, measured, cameras)
    if measured.closed is None:
        warnings.append(
            f"{measured.gripper_feature} does not declare the gripper's polarity; it is written as it is"
        )
    if commanded is None:
        warnings.append(
            "master is made up: the measured joints one step later; the actions are no absolute joint positions "
            "and stay behind"
            if ACTION in store.features
            else "master is made up: the measured joints one step later"
        )
    if isinstance(pose, str):
        warnings.append(f"{pose}; puppet/end_effector is the flange, computed from the joints")
    if store.fps != ASSUMED_RATE:
        warnings.append(
            f"the files have no times and readers assume {ASSUMED_RATE:g} Hz; convert them with "
            f"--option fps={store.fps:g}"
        )
    return RoboMindPlan(
        layout=layout,
        schema=schema,
        arm=arm,
        measured=measured,
        commanded=commanded,
        rotation="" if isinstance(pose, str) else pose.rotation,
        cameras=cameras,
        folders=task_folders(store.tasks[int(index)] for index in store.episodes["task_index"]),
        losses=tuple(warnings),
    )


def _arm(store: EpisodeStore, layout: str) -> SerialArm:
    if layout != "auto":
        return get_arm(_ARMS[layout])
    name = _ROBOTS.get(store.embodiment)
    if name is None:
        raise DatasetError(
            f"{store.path} is of the robot '{store.embodiment}'; there are layouts for {', '.join(_ROBOTS)}. A tree "
            f"has one robot: choose one when generating, or take a layout with --option layout={LAYOUTS[0]}"
        )
    return get_arm(name)


def _cameras(
    store: EpisodeStore, arm: str, options: Mapping[str, str]
) -> tuple[str, EmbodimentSchema, dict[str, str]]:
    """Return the layout, its schema, and camera of the layout -> camera of the store."""
    there = [n.removeprefix(IMAGE_PREFIX) for n in store.spec.image_features if n.startswith(IMAGE_PREFIX)]
    if not there:
        raise DatasetError(
            f"{store.path} has no colour camera, a RoboMIND episode does; generate with task.images=true"
        )
    wanted = camera_pairs(options["cameras"], there)
    layouts = {name: find_schema(FORMAT, name) for name in LAYOUTS if _ARMS[name] == arm}
    if options["layout"] != "auto":
        layouts = {options["layout"]: layouts[options["layout"]]}
    for layout, schema in layouts.items():
        mapping = wanted
        if not wanted:
            alike = {name: name for name in there}
            mapping = alike if len(there) > 1 else {next(iter(schema.cameras)): there[0]}
        if mapping.keys() == schema.cameras.keys():
            return layout, schema, mapping
    choices = "; ".join(f"{name}: {', '.join(schema.cameras)}" for name, schema in layouts.items())
    first = next(iter(next(iter(layouts.values())).cameras))
    raise DatasetError(
        f"{store.path} has the cameras {', '.join(there)}, the layouts have others ({choices}); say which is which "
        f"with --option cameras={first}={there[0]},..."
    )


def _require_labels(store: EpisodeStore) -> None:
    """Refuse failures, and episodes without words, for which the tree has no place."""
    failed = np.flatnonzero(np.asarray(store.episodes["success"]) == 0)
    if len(failed):
        raise DatasetError(
            f"{store.path}: {len(failed)} episodes did not succeed, first episode {failed[0]}; the tree has successes "
            "only, leave them out with robot-policies drop"
        )
    nameless = [
        e for e, index in enumerate(store.episodes["task_index"]) if not store.tasks[int(index)].strip()
    ]
    if nameless:
        raise DatasetError(
            f"{store.path}: {len(nameless)} episodes have no instruction, first episode {nameless[0]}; task folders "
            "are named by it, leave them out with robot-policies drop, or give the source one when converting"
        )


def _losses(store: EpisodeStore, measured: ArmColumns, cameras: Mapping[str, str]) -> list[str]:
    used = {END_EFFECTOR, ACTION}
    used |= {prefix + camera for camera in cameras.values() for prefix in (IMAGE_PREFIX, DEPTH_PREFIX)}
    warnings = left_out(store.features, used, measured.taken())
    if np.any(np.asarray(store.episodes["success"]) < 0):
        warnings.append("episodes of unknown success lie among the successes")
    if any(store.episodes["segments"]):
        warnings.append("segments become annotated steps; their tags are kept where there is no text")
    return warnings
