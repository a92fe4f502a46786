"""The ways to read a source: in this process, in several on this machine, on a cluster; one outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from robot_datasets.engine.assembly import assemble
from robot_datasets.engine.dispatch import HOLD_BYTES, Dispatcher
from robot_datasets.engine.process_pool import ProcessPool
from robot_datasets.engine.reading import read_episodes
from robot_datasets.engine.work import Job
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.importers.base import EpisodeRef, Importer, Plan, Rejected
from robot_datasets.store import EpisodeStoreWriter

EXECUTORS = ("serial", "process", "ray")


def choose_executor(name: str | None, workers: int) -> str:
    """Return the executor for so many workers; None is the plainest that can do it.

    Raises:
        DatasetError: The name is unknown, or it does not go with the number of workers.
    """
    if workers < 1:
        raise DatasetError(f"workers is {workers}; expected at least 1")
    chosen = name or ("serial" if workers == 1 else "process")
    if chosen not in EXECUTORS:
        raise DatasetError(unknown_name("executor", chosen, EXECUTORS))
    if chosen == "serial" and workers > 1:
        raise DatasetError(f"executor 'serial' has one worker, got workers={workers}; use 'process' or 'ray'")
    return chosen


def write_episodes(
    importer: Importer,
    plan: Plan,
    refs: Sequence[EpisodeRef],
    writer: EpisodeStoreWriter,
    *,
    executor: str,
    workers: int,
    written: Callable[[Sequence[str]], None],
) -> int:
    """Read `refs`, add them to the store in this order, and return how many workers died on the way.

    Args:
        importer: Reads the source.
        plan: Its plan.
        refs: What is not in the store yet.
        writer: The store.
        executor: One of `EXECUTORS`.
        workers: Processes or concurrent tasks.
        written: Called with the names of the episodes that the store has now, or has set aside.
    """
    if not refs:
        return 0
    if executor == "serial":
        for ref, result in zip(refs, read_episodes(importer, plan, refs, writer.add_episode), strict=True):
            if isinstance(result, Rejected):
                writer.quarantine(result.source_id, result.reason)
            written([ref.source_id])
        return 0
    workers = min(workers, len(refs))
    job = Job.of(importer, plan, writer)
    if executor == "ray":
        from robot_datasets.engine import ray_cluster

        dispatcher = Dispatcher(refs, workers=workers, batch_seconds=ray_cluster.BATCH_SECONDS)
        running = ray_cluster.RayCluster(job, workers)
    else:
        dispatcher = Dispatcher(refs, workers=workers, batch_bytes=HOLD_BYTES / 2)
        running = ProcessPool(job, workers)
    assemble(running, dispatcher, writer, written)
    return dispatcher.n_losses
