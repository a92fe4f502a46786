"""Converting a source into an episode store: detect, plan, stream, set bad episodes aside, publish."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.importers import detect_importer, get_importer
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Plan, Rejected, resolve_options
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.store.staging import remove_stale_staging


@dataclass(frozen=True)
class Progress:
    """How far a conversion is; `done` counts episodes written or set aside, earlier runs included."""

    done: int
    total: int
    n_steps: int
    quarantined: int
    source_id: str


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: The source path.
        store: The store's path.
        format: Importer name.
        options: Every option with the value in force.
        n_episodes: Episodes in the store.
        n_steps: Steps in the store.
        n_resumed: Episodes that an earlier, interrupted run had already written.
        unchanged: The store was there already, made from the same source with the same options.
        quarantined: Source id -> reason of the episodes that were set aside.
        warnings: Source id -> what is wrong with an episode that was kept nevertheless.
        fingerprint: Fingerprint of the store.
        seconds: Wall time of this run [s].
    """

    source: str
    store: str
    format: str
    options: Mapping[str, str]
    n_episodes: int
    n_steps: int
    n_resumed: int
    unchanged: bool
    fingerprint: str
    seconds: float
    quarantined: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    format: str | Importer | None = None,
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> ConversionReport:
    """Convert `source` into an episode store at `target`.

    An interrupted conversion goes on where it stopped when called again with the same arguments. If the
    target already holds the same source converted with the same options, nothing is done.

    Args:
        source: File or directory.
        target: Where the store shall appear.
        format: Importer name, or an importer; detected if None.
        options: The importer's options, text values.
        overwrite: Replace what is at `target`.
        progress: Called after every episode.

    Raises:
        DatasetError: Unknown format or option, damaged source, no usable episode, or `target` holds
            something else. No half-written store is left.
    """
    began = time.monotonic()
    path = Path(source)
    if not path.exists():
        raise DatasetError(f"{path} does not exist; check the path of the source")
    if isinstance(format, Importer):
        importer = format
    else:
        importer = get_importer(format) if format else detect_importer(path)
    plan = importer.plan(path, resolve_options(importer, options or {}))
    if not plan.refs:
        raise DatasetError(f"{path}: no usable episode found by {importer.name}{_reasons(plan.rejected)}")
    if Path(target).exists() and not overwrite:
        existing = _already_converted(importer, plan, target)
        remove_stale_staging(Path(target))
        return _report(importer, plan, existing, began, n_resumed=existing.n_episodes, unchanged=True)
    with _open_writer(importer, plan, target, overwrite) as writer:
        n_resumed = writer.n_episodes
        try:
            _write_all(importer, plan, writer, progress)
            _publish(importer, plan, writer)
        except OSError as error:
            raise _storage_error(error, writer) from error
        finally:
            if not writer.n_episodes:  # nothing to go on with
                writer.discard()
    return _report(importer, plan, EpisodeStore.open(target), began, n_resumed=n_resumed, unchanged=False)


def conversion_record(importer: Importer, plan: Plan) -> dict[str, Any]:
    """Return what the store's attributes say about how it was made."""
    return {
        "importer": importer.name,
        "version": importer.version,
        "options": dict(plan.options),
        "checksum": plan.checksum,
    }


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


def _write_all(
    importer: Importer, plan: Plan, writer: EpisodeStoreWriter, progress: Callable[[Progress], None] | None
) -> None:
    for rejected in plan.rejected:
        if rejected.source_id not in writer.quarantined:
            writer.quarantine(rejected.source_id, rejected.reason)
    known = writer.done | set(writer.quarantined)
    for result in _results(importer, plan, [ref for ref in plan.refs if ref.source_id not in known]):
        if isinstance(result, Rejected):
            writer.quarantine(result.source_id, result.reason)
        else:
            try:
                writer.add_episode(result)
            except EpisodeError as error:
                writer.quarantine(result.source_id, str(error))
        if progress is not None:
            done, aside = writer.n_episodes, len(writer.quarantined)
            total = len(plan.refs) + len(plan.rejected)
            progress(Progress(done + aside, total, writer.n_steps, aside, result.source_id))


def _results(importer: Importer, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
    """Stream the episodes in plan order; the place where a pool of processes would be put."""
    yield from importer.episodes(plan, refs)


def _publish(importer: Importer, plan: Plan, writer: EpisodeStoreWriter) -> None:
    if not writer.n_episodes:
        rejected = [Rejected(name, reason) for name, reason in writer.quarantined.items()]
        raise DatasetError(
            f"{plan.source}: no episode could be converted by {importer.name}{_reasons(rejected)}"
        )
    writer.publish()


def _reasons(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return "; expected at least one, check the path and the format"
    first = rejected[0]
    return f"; {len(rejected)} were set aside, the first ({first.source_id}) because: {first.reason}"


def _storage_error(error: OSError, writer: EpisodeStoreWriter) -> DatasetError:
    remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "repair that"
    return DatasetError(
        f"writing {writer.path} failed: {error.strerror or error}; {remedy} and run the same command again, "
        f"it goes on after the {writer.n_episodes} episodes that are safe"
    )


def _report(
    importer: Importer, plan: Plan, store: EpisodeStore, began: float, *, n_resumed: int, unchanged: bool
) -> ConversionReport:
    return ConversionReport(
        source=str(plan.source),
        store=store.path,
        format=importer.name,
        options=dict(plan.options),
        n_episodes=store.n_episodes,
        n_steps=store.n_steps,
        n_resumed=n_resumed,
        unchanged=unchanged,
        fingerprint=store.fingerprint,
        seconds=time.monotonic() - began,
        quarantined=store.quarantined,
        warnings={store.episodes["source_id"][episode]: texts for episode, texts in store.warnings.items()},
    )
