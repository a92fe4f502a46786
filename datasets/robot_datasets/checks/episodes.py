"""Rules that compare episodes: duplicates, missing instructions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from robot_datasets.checks.context import StoreContext
from robot_datasets.checks.finding import Finding


def duplicate_episodes(context: StoreContext) -> Iterator[Finding]:
    """Episodes with the same numbers, step by step: the same demonstration twice."""
    seen: dict[bytes, int] = {}
    source_ids = context.store.episodes["source_id"]
    columns = [signal.values for signal in context.signals.values()]
    for episode in range(context.store.n_episodes):
        start, end = int(context.starts[episode]), int(context.ends[episode])
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(np.ascontiguousarray(column[start:end]).data)
        first = seen.setdefault(digest.digest(), episode)
        if first != episode and columns:
            yield Finding(
                code="duplicate-episode",
                severity="warning",
                episode=episode,
                source_id=source_ids[episode],
                number=first,
                detail=f"has exactly the numbers of episode {first} ({source_ids[first]})",
                remedy="drop one of them (robot-policies drop), or it may be trained on and validated with",
            )


def no_instruction(context: StoreContext) -> Iterator[Finding]:
    """Episodes without an instruction, where others have one."""
    empty = [i for i, task in enumerate(context.store.tasks) if not task.strip()]
    if not empty or len(empty) == len(context.store.tasks):
        return
    without = np.flatnonzero(np.isin(context.store.episodes["task_index"], empty))
    yield Finding(
        code="no-instruction",
        severity="warning",
        number=len(without),
        detail=f"{len(without):,} of {context.store.n_episodes:,} episodes have no instruction, "
        f"first episode {without[0]}",
        remedy="give them one (robot-policies rename --task), or drop them",
    )
