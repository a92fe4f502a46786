"""What InternData-A1 is known to get wrong, looked for in every episode; findings are warnings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robot_datasets.schemas import EmbodimentSchema

_NORM_TOLERANCE = 1e-2
_STEP_TOLERANCE = 1e-3
_MOVED_M = 1e-3
WIDEST_GRIPPER_M = 0.2
"""No gripper of these robots opens wider; larger values are no metres."""
_HEAD, _HAND = "head_camera_to_robot_extrinsics", "hand_camera_to_robot_extrinsics"


def find_faults(schema: EmbodimentSchema, columns: Mapping[str, np.ndarray]) -> list[str]:
    """Return the warnings of one episode.

    Args:
        schema: Its embodiment.
        columns: Source column -> (T, D).
    """
    checks = (_quaternions, _next_states, _cameras, _gripper)
    return [text for check in checks for text in check(schema, columns)]


def quaternion_columns(schema: EmbodimentSchema) -> set[str]:
    """Return the source columns whose last four components are a quaternion."""
    return {
        part.source
        for source in (*schema.features.values(), *schema.actions.values())
        if source.rotation == "quat_wxyz"
        for part in source.parts
        if part.names[-4:] and all(n.endswith(e) for n, e in zip(part.names[-4:], _WXYZ, strict=False))
    }


_WXYZ = ("qw", "qx", "qy", "qz")


def _quaternions(schema: EmbodimentSchema, columns: Mapping[str, np.ndarray]) -> list[str]:
    found = []
    for key in sorted(quaternion_columns(schema) & set(columns)):
        norms = np.linalg.norm(columns[key][:, -4:].astype(np.float64), axis=1)
        wrong = np.flatnonzero(np.abs(norms - 1) > _NORM_TOLERANCE)
        if len(wrong):
            found.append(
                f"{key}: {len(wrong)} of {len(norms)} quaternions are not of length 1, the first at step {wrong[0]} "
                f"({norms[wrong[0]]:.3g})"
            )
    return found


def _next_states(schema: EmbodimentSchema, columns: Mapping[str, np.ndarray]) -> list[str]:
    """Compare shipped joint actions with the next stored state; they differ if steps were left out afterwards."""
    worst, where = 0.0, ""
    for key, actions in columns.items():
        states = columns.get(key.replace("actions.", "states.", 1))
        if not key.startswith("actions.") or not key.endswith("joint.position") or states is None:
            continue
        if len(actions) > 1:
            gap = float(np.abs(actions[:-1].astype(np.float64) - states[1:]).max())
            worst, where = max((worst, where), (gap, key))
    if worst <= _STEP_TOLERANCE or "recomputed_next" not in schema.actions:
        return []
    return [
        f"{where} is not the next stored state (up to {worst:.3g} rad apart): steps were probably left out after "
        "the actions were made; --option action=recomputed_next takes the next stored state"
    ]


def _cameras(schema: EmbodimentSchema, columns: Mapping[str, np.ndarray]) -> list[str]:
    """Notice the hand camera's pose in the head camera's place, as a published converter wrote it for Franka."""
    head, hand = columns.get(_HEAD), columns.get(_HAND)
    if head is None or "hand" not in schema.cameras:
        return []
    moved = float(np.ptp(head[:, :3], axis=0).max())
    if hand is not None and moved > _MOVED_M and np.array_equal(head, hand):
        return [f"{_HEAD} equals {_HAND}: the head camera's pose was overwritten with the hand camera's"]
    if moved > _MOVED_M:
        return [
            f"{_HEAD} moves by {moved:.3g} m, which a fixed camera does not: it is probably the hand camera's"
        ]
    return []


def _gripper(schema: EmbodimentSchema, columns: Mapping[str, np.ndarray]) -> list[str]:
    """Notice a Robotiq gripper (0 or 1) under the name of Franka's own (opening in metres)."""
    values = columns.get("states.gripper.position")
    if schema.robot != "franka" or values is None or float(values.max()) <= WIDEST_GRIPPER_M:
        return []
    return [
        f"states.gripper.position reaches {float(values.max()):.3g}, more than the 0.08 m of a Panda hand: this is "
        "probably the Robotiq gripper; --option robot=interndata_franka_robotiq describes it"
    ]
