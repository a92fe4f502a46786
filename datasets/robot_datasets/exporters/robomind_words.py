"""The words of a RoboMIND tree: task folders, the table of their instructions, annotated steps."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robot_datasets.episode import Segment

TABLE = "RoboMIND_v1_2_instr.csv"
ANNOTATIONS = "language_description_annotation_json"
_LONGEST_NAME = 80


def task_folders(instructions: Iterable[str]) -> dict[str, str]:
    """Return instruction -> name of its task folder, no two alike, in the order of first mention."""
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for instruction in dict.fromkeys(instructions):
        words = re.sub(r"[^a-z0-9]+", "_", instruction.lower()).strip("_")[:_LONGEST_NAME].rstrip("_")
        name, number = words or "task", 1
        while name in taken:
            number += 1
            name = f"{words or 'task'}_{number}"
        taken.add(name)
        folders[instruction] = name
    return folders


def write_table(root: Path, folders: Mapping[str, str]) -> None:
    """Write the table of instructions, one row per task folder."""
    with (root / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("index", "task", "instruction"))
        for index, (instruction, folder) in enumerate(folders.items()):
            writer.writerow((index, folder, instruction))


def annotation(episode: str, camera: str, task: str, segments: Sequence[Segment]) -> dict[str, Any]:
    """Return the annotated steps of one episode as RoboMIND writes them; its last frames belong to the steps.

    Args:
        episode: Path of the episode's folder within the release.
        camera: Name of the camera that the frames are named by, e.g. ``"camera_top"``.
        task: The instruction.
        segments: The steps.
    """
    steps = [
        {
            "step_description": segment.text or segment.tag.replace("_", " "),
            "start_frame": f"{camera}_{segment.start:04d}.jpg",
            "end_frame": f"{camera}_{segment.end - 1:04d}.jpg",
        }
        for segment in segments
    ]
    return {"id": f"{episode}/data", "response": {"task_summary": task, "steps": steps}}


def write_annotations(root: Path, embodiment: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the annotations of an embodiment, if there are any."""
    if not entries:
        return
    folder = root / ANNOTATIONS
    folder.mkdir()
    text = json.dumps(list(entries), ensure_ascii=False, indent=1)
    (folder / f"{embodiment}.json").write_text(text, encoding="utf-8")
