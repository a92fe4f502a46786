"""Which task of the simulator a store demonstrates, if it was generated: what a policy is then judged on by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GENERATOR = "robot_sim.generate"
"""What `robot_sim.generate` calls itself in a store; its options name the task."""


def demonstrated_task(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return name and options of the task, from the attributes of a store.

    None for stores of recorded demonstrations, and for those of several tasks.
    """
    conversion = attributes.get("conversion", {})
    options = conversion.get("options", {})
    if conversion.get("importer") != GENERATOR or "task" not in options:
        return None
    return {"name": options["task"], **options["task_options"]}


def common_task(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the task that all parts of a mixture show, given their cards; None if they differ."""
    tasks = [part.get("task") for part in parts]
    return tasks[0] if all(task == tasks[0] for task in tasks) else None
