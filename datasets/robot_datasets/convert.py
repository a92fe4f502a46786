"""Converting a source into an episode store: detect, plan, stream, set bad episodes aside, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_datasets.engine.executors import choose_executor, write_episodes
from robot_datasets.engine.memory import keep_freed_memory
from robot_datasets.engine.process_pool import start_server
from robot_datasets.engine.report import ConversionReport
from robot_datasets.errors import DatasetError, storage_error
from robot_datasets.importers import detect_source, get_importer
from robot_datasets.importers.base import Importer, Plan, resolve_options
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.store.layout import storable_text
from robot_datasets.store.parts import EpisodePart
from robot_datasets.store.staging import remove_stale_staging

__all__ = ["ConversionReport", "NothingConvertedError", "Progress", "conversion_record", "convert"]

_GOES_ON = "the same command again, it goes on after the {} episodes that are safe"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a conversion is.

    Attributes:
        done: Episodes written or set aside, earlier runs included.
        total: Episodes of the source.
        n_resumed: Those that were done when this run began.
        n_steps: Steps in the store.
        n_bytes: Bytes that this run added to the store.
        quarantined: Episodes set aside.
        source_id: The last episode.
    """

    done: int
    total: int
    n_resumed: int
    n_steps: int
    n_bytes: int
    quarantined: int
    source_id: str


class NothingConvertedError(DatasetError):
    """No episode of a source could be used; `report` lists the reasons."""

    def __init__(self, message: str, report: ConversionReport) -> None:
        super().__init__(message)
        self.report = report


def convert(
    source: str | Path,
    target: str | Path,
    *,
    format: str | Importer | None = None,
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    workers: int = 1,
    executor: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ConversionReport:
    """Convert `source` into an episode store at `target`.

    An interrupted conversion goes on where it stopped when called again with the same arguments. If the
    target already holds the same source converted with the same options, nothing is done. The store is the
    same whatever the number of workers and interruptions.

    Args:
        source: File or directory.
        target: Where the store shall appear.
        format: Importer name, or an importer; detected if None.
        options: The importer's options, text values.
        overwrite: Replace what is at `target`.
        workers: Processes that read the source.
        executor: ``"serial"`` (this process), ``"process"`` (processes on this machine) or ``"ray"`` (a
            cluster, where source and target lie on a file system that all nodes share); None is serial for
            one worker and processes for more. A script that uses processes calls this under
            ``if __name__ == "__main__"``.
        progress: Called whenever episodes were written or set aside.

    Raises:
        NothingConvertedError: No episode is usable.
        DatasetError: Unknown format or option, damaged source, or `target` holds something else. No
            half-written store is left.
    """
    began = time.monotonic()
    executor = choose_executor(executor, workers)
    if executor == "process":
        start_server()
    keep_freed_memory()
    importer, plan = _plan(Path(source), format, options or {})
    run = _Run(importer, plan, str(target), workers, executor, began)
    if not plan.refs:
        reasons = {rejected.source_id: rejected.reason for rejected in plan.rejected}
        raise run.nothing_converted("no usable episode found", reasons)
    if Path(target).exists() and not overwrite:
        store = _already_converted(importer, plan, target)
        remove_stale_staging(Path(target))
        run.n_resumed = store.n_episodes
        return run.report(store, unchanged=True)
    with _open_writer(importer, plan, target, overwrite) as writer:
        try:
            run.write(writer, progress)
            if not writer.n_episodes:
                raise run.nothing_converted("no episode could be converted", writer.quarantined)
            writer.publish()
        except OSError as error:
            raise storage_error(error, writer.path, _GOES_ON.format(writer.n_episodes)) from error
        finally:
            if not writer.n_episodes:  # nothing to go on with
                writer.discard()
    return run.report(EpisodeStore.open(target))


def conversion_record(importer: Importer, plan: Plan) -> dict[str, Any]:
    """Return what the store's attributes say about how it was made."""
    return {
        "importer": importer.name,
        "version": importer.version,
        "options": dict(plan.options),
        "checksum": plan.checksum,
    }


@dataclass
class _Run:
    """One call of `convert`: what it shall do, and what it has done."""

    importer: Importer
    plan: Plan
    target: str
    workers: int
    executor: str
    began: float
    n_resumed: int = 0
    n_new: int = 0
    n_bytes: int = 0
    n_lost_workers: int = 0

    def write(self, writer: EpisodeStoreWriter, progress: Callable[[Progress], None] | None) -> None:
        """Add every episode of the plan that the store does not have."""
        self.n_resumed = writer.n_episodes
        known = writer.done | set(writer.quarantined)
        n_known, n_bytes = len(known), writer.n_bytes
        new = [r for r in self.plan.rejected if storable_text(r.source_id) not in known]
        writer.add_parts([EpisodePart.left_out(r.source_id, r.reason) for r in new])

        def written(source_ids: Sequence[str]) -> None:
            done = writer.n_episodes + len(writer.quarantined)
            self.n_new, self.n_bytes = done - n_known, writer.n_bytes - n_bytes
            if progress is not None:
                progress(
                    Progress(
                        done=done,
                        total=self.n_source,
                        n_resumed=n_known,
                        n_steps=writer.n_steps,
                        n_bytes=self.n_bytes,
                        quarantined=len(writer.quarantined),
                        source_id=source_ids[-1],
                    )
                )

        self.n_lost_workers = write_episodes(
            self.importer,
            self.plan,
            [ref for ref in self.plan.refs if storable_text(ref.source_id) not in known],
            writer,
            executor=self.executor,
            workers=self.workers,
            written=written,
        )

    @property
    def n_source(self) -> int:
        """Episodes of the source, usable or not."""
        return len(self.plan.refs) + len(self.plan.rejected)

    def report(self, store: EpisodeStore, *, unchanged: bool = False) -> ConversionReport:
        """Describe the finished store and this run."""
        names = store.episodes["source_id"] if store.warnings else []
        return self._report(
            n_episodes=store.n_episodes,
            n_steps=store.n_steps,
            quarantined=store.quarantined,
            warnings={names[episode]: texts for episode, texts in store.warnings.items()},
            fingerprint=store.fingerprint,
            unchanged=unchanged,
        )

    def nothing_converted(self, what: str, reasons: Mapping[str, str]) -> NothingConvertedError:
        """Return the error that says why there is no store."""
        report = self._report(
            n_episodes=0, n_steps=0, quarantined=dict(reasons), warnings={}, fingerprint="", unchanged=False
        )
        hint = "; expected at least one, check the path and the format"
        if reasons:
            source_id, reason = next(iter(reasons.items()))
            hint = f"; {len(reasons)} were set aside, the first ({source_id}) because: {reason}"
        return NothingConvertedError(f"{self.plan.source}: {what} by {self.importer.name}{hint}", report)

    def _report(self, **outcome: Any) -> ConversionReport:
        return ConversionReport(
            source=str(self.plan.source),
            store=self.target,
            format=self.importer.name,
            importer_version=self.importer.version,
            options=dict(self.plan.options),
            fps=self.plan.fps,
            n_source=self.n_source,
            n_resumed=self.n_resumed,
            n_new=self.n_new,
            n_bytes=self.n_bytes,
            source_warnings=list(self.plan.notes.get("warnings", ())),
            seconds=time.monotonic() - self.began,
            workers=self.workers,
            executor=self.executor,
            n_lost_workers=self.n_lost_workers,
            **outcome,
        )


def _plan(path: Path, format: str | Importer | None, options: Mapping[str, str]) -> tuple[Importer, Plan]:
    if not path.exists():
        raise DatasetError(f"{path} does not exist; check the path of the source")
    if isinstance(format, Importer):
        importer = format
    elif format:
        importer = get_importer(format)
    else:
        importer, path = detect_source(path)
    return importer, importer.plan(path, resolve_options(importer, options))


def _source_record(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.source.resolve().name,
        "n_episodes": len(plan.refs) + len(plan.rejected),
        **plan.notes,
    }


def _already_converted(importer: Importer, plan: Plan, target: str | Path) -> EpisodeStore:
    store = EpisodeStore.open(target)
    if store.attributes["conversion"] != conversion_record(importer, plan):
        raise DatasetError(
            f"{target} already holds a store made from another source or with other options; "
            "choose another path or pass --overwrite"
        )
    return store


def _open_writer(importer: Importer, plan: Plan, target: str | Path, overwrite: bool) -> EpisodeStoreWriter:
    try:
        return EpisodeStoreWriter(
            target,
            features=plan.features,
            fps=plan.fps,
            embodiment=plan.embodiment,
            source=_source_record(plan),
            conversion=conversion_record(importer, plan),
            image_encodings=plan.image_encodings,
            overwrite=overwrite,
        )
    except OSError as error:
        raise storage_error(error, target, _GOES_ON.format(0)) from error
