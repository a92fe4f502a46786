"""What a store says about the task it demonstrates."""

from __future__ import annotations

from typing import Any

import pytest

from robot_policies.training.demonstrated_task import common_task, demonstrated_task

GENERATED = {
    "importer": "robot_sim.generate",
    "options": {"task": "tabletop_stack", "task_options": {"arm": "ur5e"}, "episodes": 3},
}
STACK = {"name": "tabletop_stack", "arm": "ur5e"}


@pytest.mark.parametrize(
    ("attributes", "task"),
    [
        ({"conversion": GENERATED}, STACK),
        ({}, None),
        ({"conversion": {"importer": "robomind", "options": {"task": "bread_in_basket"}}}, None),
        ({"conversion": {"importer": "robot_sim.generate_many", "options": {"tasks": ["a", "b"]}}}, None),
    ],
)
def test_generated_stores_name_their_task(attributes: dict[str, Any], task: dict[str, Any] | None) -> None:
    """With its options; recorded demonstrations and stores of many tasks name none."""
    assert demonstrated_task(attributes) == task


def test_a_mixture_has_a_task_if_its_parts_agree() -> None:
    """Stores of different tasks leave the choice to the evaluation."""
    assert common_task([{"task": STACK}, {"task": STACK}]) == STACK
    assert common_task([{"task": STACK}, {"task": None}]) is None
