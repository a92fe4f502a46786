"""What RoboMIND says in words: instruction tables, step annotations, descriptions, and what is wrong with them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_datasets.episode import Segment
from robot_datasets.errors import DatasetError
from robot_datasets.importers.robomind_tree import Trajectory

_TABLES = "RoboMIND_v*_instr.csv"
_ANNOTATIONS = "language_description_annotation_json"
_DESCRIPTION = "zh_description.txt"
_LEVELS_ABOVE = 3
_LONGEST_TEXT = 4000

DIRTY_TASKS: Mapping[str, str] = {
    "3_eggplantOven": "take and turn on are in the wrong order",
    "3_eggplantoven_2": "take and turn on are in the wrong order",
    "5_eggoven_2": "there is no instruction",
    "10_packplate": "the plates are not marked, and there is no plate 2",
    "10_packplate_2": "the plates are not marked, and there is no plate 2",
    "11_brushcup": "there are two cups",
    "12_packcup": "the cups are not marked",
    "13_packbowl": "the bowls are not marked, blue and green are exchanged",
    "35_putcarrot": "there is no instruction",
    "36_putpepper": "there is no instruction",
    "37_putegg": "there is no instruction",
    "39_puttomato": "there is no instruction",
    "40_putavocado": "there is no instruction",
    "41_putplum": "there is no instruction",
    "42_putkiwifruite": "a word is misspelt (wifruite)",
    "43_packplate": "the last object is 'them', not 'it'",
    "44_putbluebowlongreenplate": "the last object is 'them', not 'it'",
    "45_putgreenbowlonblueplate": "one instruction for two parts",
    "46_putredbowlonwhiteplate": "one instruction for two parts",
    "48_putpotatogreenplatefromsteam_2": "the last action is of the left arm, not the right one",
    "52_holdercup": "the order is wrong; right, left, right is what happens",
    "53_stackcup": "the order is wrong; right, left, right is what happens",
}
"""Tasks of 1.x whose instruction is wrong or missing, as collected by users (Tavish9/any4lerobot), and how."""

AnnotationKey = tuple[str, str, str]
"""Embodiment folder, task folder, episode."""


@dataclass(frozen=True)
class Annotation:
    """The annotated steps of one episode: first frame, last frame, description; frames count from 0."""

    steps: tuple[tuple[int, int, str], ...]


def instruction_from_folder(task: str) -> str:
    """Return a task folder's name as words: ``101-pick_cube`` -> ``pick cube``; never empty."""
    head, dash, rest = task.partition("-")
    words = rest if dash and head.isdecimal() else task
    return " ".join(words.replace("_", " ").split()) or task


def find_language(path: Path, option: str, pattern: str, default: str) -> Path | None:
    """Return a file or folder that an option names, or that lies in the source or a little above it.

    Args:
        path: The source.
        option: ``"none"``, empty to look for it, or a path.
        pattern: What to look for.
        default: Name of the option, for errors.

    Raises:
        DatasetError: The option names something that does not exist.
    """
    if option == "none":
        return None
    if option:
        if not Path(option).exists():
            raise DatasetError(f"option {default} names {option}, which does not exist; check the path")
        return Path(option)
    absolute = path.absolute()
    for folder in [absolute, *list(absolute.parents)[:_LEVELS_ABOVE]]:
        found = sorted(folder.glob(pattern)) if folder.is_dir() else []
        if found:
            return found[-1]
    return None


def find_instructions(path: Path, option: str) -> tuple[dict[str, str], str]:
    """Return the instruction table, and what to record of it: the hash of its file, or ``none``."""
    file = find_language(path, option, _TABLES, "instructions")
    return ({}, "none") if file is None else (read_instructions(file), _hash([file]))


def read_instructions(path: Path) -> dict[str, str]:
    """Read RoboMIND's instruction table: columns ``task`` and ``instruction``; the first of repeated tasks counts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"cannot read the instruction table {path}: {error}") from error
    if not rows or not {"task", "instruction"} <= set(rows[0]):
        found = ", ".join(filter(None, rows[0])) if rows else "no rows"
        raise DatasetError(
            f"{path} has columns {found}; expected task and instruction (RoboMIND_v1_2_instr.csv)"
        )
    table: dict[str, str] = {}
    for row in rows:
        table.setdefault(row["task"], row["instruction"] or "")
    return table


def find_annotations(
    path: Path, option: str, trajectories: Sequence[Trajectory]
) -> tuple[dict[AnnotationKey, Annotation], str]:
    """Return the annotations of these episodes, and what to record of them: the hash of the files, or ``none``."""
    place = find_language(path, option, _ANNOTATIONS, "annotations")
    files = [] if place is None else sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        return {}, "none"
    wanted = {(t.folder, t.task, t.episode) for t in trajectories}
    found: dict[AnnotationKey, Annotation] = {}
    for file in files:
        found |= {key: value for key, value in read_annotations(file).items() if key in wanted}
    return found, _hash(files)


def read_annotations(path: Path) -> dict[AnnotationKey, Annotation]:
    """Read one file of step annotations; the first of repeated episodes counts.

    Raises:
        DatasetError: It is no JSON list of ``{id, response: {steps: [...]}}``.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"cannot read the annotations {path}: {error}") from error
    if not isinstance(entries, list):
        raise DatasetError(f"{path} holds {type(entries).__name__}, expected a list of annotated episodes")
    annotations: dict[AnnotationKey, Annotation] = {}
    for number, entry in enumerate(entries):
        try:
            parts = [part for part in entry["id"].split("/") if part not in ("data", "")]
            steps = tuple(_step(step) for step in entry["response"]["steps"])
            key = (parts[0], parts[1], parts[-1])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DatasetError(
                f"{path} entry {number} is no annotated episode: {error!r}; correct it"
            ) from error
        annotations.setdefault(key, Annotation(steps))
    return annotations


def annotated_segments(annotation: Annotation, n_steps: int) -> tuple[list[Segment], list[str]]:
    """Return the annotated steps as segments, gaps between them staying gaps, and what could not be used.

    Args:
        annotation: Frames as in the files; the last one belongs to the step.
        n_steps: Steps of the episode; what is beyond is cut off.
    """
    segments, warnings = [], []
    for first, last, text in annotation.steps:
        if last < first:
            warnings.append(
                f"segments: the step '{text}' ends at frame {last} before it begins at {first}; left out"
            )
        elif first >= n_steps:
            warnings.append(f"segments: the step '{text}' begins at frame {first} of {n_steps}; left out")
        else:
            segments.append(Segment(first, min(last + 1, n_steps), "step", text))
    return segments, warnings


def read_description(task_folder: Path) -> tuple[str, str]:
    """Return the text of a task folder's ``zh_description.txt`` (RoboMIND 2.0, Chinese), and what is wrong with it."""
    try:
        text = (task_folder / _DESCRIPTION).read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        return "", ""
    except (OSError, UnicodeDecodeError) as error:
        return "", f"task: {_DESCRIPTION} cannot be read ({error}); the folder's name is used"
    return text[:_LONGEST_TEXT], ""


def _step(step: Mapping[str, Any]) -> tuple[int, int, str]:
    text = " ".join(str(step["step_description"]).split())
    return _frame(step["start_frame"]), _frame(step["end_frame"]), text[:_LONGEST_TEXT]


def _frame(name: str) -> int:
    """``camera_top_0023.jpg`` -> 23."""
    return int(name.rpartition("_")[2].partition(".")[0])


def _hash(files: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(file.read_bytes())
    return "blake2b:" + digest.hexdigest()
