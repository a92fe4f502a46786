"""LeRobot's language columns as labelled segments: subtasks, plans, paraphrases, questions and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_datasets.episode import Segment

_TOLERANCE_S = 1e-4


def persistent_segments(rows: Sequence[Mapping[str, Any]], times: np.ndarray) -> list[Segment]:
    """Turn annotations that hold until they are replaced into segments, tagged with their style.

    Args:
        rows: Entries of ``language_persistent`` with content, style and timestamp [s].
        times: Time of every step, (T,) [s], increasing.

    Returns:
        Segments by start; entries of one style that begin together, such as paraphrases of the task
        (``task_aug``), end together too.
    """
    found: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        content, at = row.get("content"), row.get("timestamp")
        if content and at is not None:
            start = int(np.searchsorted(times, float(at) - _TOLERANCE_S))
            if start < len(times):
                found.setdefault((str(row.get("style") or ""), start), []).append(str(content))
    segments = []
    for (style, start), texts in found.items():
        end = min((s for other, s in found if other == style and s > start), default=len(times))
        segments += [Segment(start, end, style, text) for text in texts]
    return sorted(segments, key=lambda s: (s.start, s.tag))


def event_segments(rows_of_steps: Sequence[Sequence[Mapping[str, Any]] | None]) -> list[Segment]:
    """Turn the entries of ``language_events``, given per step, into segments of one step.

    The tag is style, role and camera with dots between, as far as they are told: ``vqa.user.top``.
    """
    segments = []
    for step, rows in enumerate(rows_of_steps):
        for row in rows or ():
            if content := row.get("content"):
                camera = str(row.get("camera") or "").rpartition(".")[2]
                parts = (row.get("style"), row.get("role"), camera)
                segments.append(Segment(step, step + 1, ".".join(str(p) for p in parts if p), str(content)))
    return segments
