"""The instruction of an episode whose source repeats it in every step."""

from __future__ import annotations

from collections.abc import Sequence

from robot_datasets.episode import Segment


def instruction_of_steps(texts: Sequence[str]) -> tuple[str, list[Segment]]:
    """Return the instruction of an episode and, if it changes within it, its parts.

    Args:
        texts: The instruction of each step.

    Returns:
        The text; several different ones are joined with ``"; "`` in order of first use, and each stretch of
        steps becomes a segment with the tag ``task``.
    """
    if not texts:
        return "", []
    starts = [0, *(i for i in range(1, len(texts)) if texts[i] != texts[i - 1])]
    if len(starts) == 1:
        return texts[0], []
    ends = [*starts[1:], len(texts)]
    segments = [Segment(a, b, "task", texts[a]) for a, b in zip(starts, ends, strict=True)]
    return "; ".join(dict.fromkeys(texts)), segments
