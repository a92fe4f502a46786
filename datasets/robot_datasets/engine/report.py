"""What a conversion did, as a value and as ``conversion-report.json`` beside the store.

The report lies outside the store, because it holds timings and the store's bytes depend on the data alone.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

JSON_NAME = "conversion-report.json"
HTML_NAME = "conversion-report.html"

_PACKAGES = ("numpy", "zarr", "h5py", "pyarrow", "av", "simplejpeg", "pyspng", "pillow")
_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        source: The source path.
        store: The store's path.
        format: Importer name.
        importer_version: Its version.
        options: Every option with the value in force.
        n_source: Episodes of the source.
        n_episodes: Episodes in the store.
        n_steps: Steps in the store.
        fps: Rate of the steps [Hz].
        n_resumed: Episodes that an earlier, interrupted run had already written.
        n_new: Episodes that this run wrote or set aside.
        n_bytes: Bytes that this run added to the store.
        unchanged: The store was there already, made from the same source with the same options.
        quarantined: Source id -> reason of the episodes that were set aside.
        warnings: Source id -> what is wrong with an episode that was kept nevertheless.
        source_warnings: What is wrong with the source as a whole.
        fingerprint: Fingerprint of the store; empty if there is none.
        seconds: Wall time of this run [s].
        workers: Processes that read.
        executor: Where they ran.
        n_lost_workers: Processes that died and were replaced.
    """

    source: str
    store: str
    format: str
    importer_version: int
    options: Mapping[str, str]
    n_source: int
    n_episodes: int
    n_steps: int
    fps: float
    n_resumed: int
    n_new: int
    n_bytes: int
    unchanged: bool
    quarantined: Mapping[str, str]
    warnings: Mapping[str, list[str]]
    source_warnings: Sequence[str]
    fingerprint: str
    seconds: float
    workers: int
    executor: str
    n_lost_workers: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Kind:
    """Messages that differ in numbers and names only.

    Attributes:
        text: The message of the first of them.
        n_messages: How many there are.
        episodes: The episodes they are about, in order.
    """

    text: str
    n_messages: int
    episodes: list[str] = field(default_factory=list)


def group_by_kind(messages: Iterable[tuple[str, str]]) -> list[Kind]:
    """Group (source id, message) pairs that say the same but for numbers and the episode's name; most first."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for source_id, text in messages:
        key = _NUMBER.sub("#", text.replace(source_id, "<episode>"))
        groups.setdefault(key, []).append((source_id, text))
    kinds = [
        Kind(members[0][1], len(members), list(dict.fromkeys(source_id for source_id, _ in members)))
        for members in groups.values()
    ]
    return sorted(kinds, key=lambda kind: -kind.n_messages)


def describe(report: ConversionReport) -> dict[str, Any]:
    """Return the content of the JSON report."""
    rates = {}
    if report.n_new and report.seconds:
        rates = {
            "episodes_per_second": round(report.n_new / report.seconds, 3),
            "megabytes_per_second": round(report.n_bytes / report.seconds / 1e6, 3),
        }
    warnings = [(name, text) for name, texts in report.warnings.items() for text in texts]
    return {
        "report_format": 1,
        "outcome": outcome(report),
        **report.to_dict(),
        **rates,
        "skipped_by_reason": [_summary(kind) for kind in group_by_kind(report.quarantined.items())],
        "warnings_by_kind": [_summary(kind) for kind in group_by_kind(warnings)],
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def outcome(report: ConversionReport) -> str:
    """Say in words how it ended."""
    if not report.n_episodes:
        return "nothing converted"
    if report.unchanged:
        return "up to date"
    return "converted" if not report.quarantined else "converted in part"


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    from robot_datasets import __version__

    found = {"robot_datasets": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def report_folder(store: str | Path) -> Path:
    """Return where the report of a store lies unless another place is given: ``NAME.zarr.report``."""
    path = Path(store)
    return path.with_name(path.name + ".report")


def write_json(content: Mapping[str, Any], folder: Path) -> Path:
    """Write what `describe` returned into `folder` and return the path; the old file or the new one is there.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / JSON_NAME
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def _summary(kind: Kind) -> dict[str, Any]:
    return {
        "example": kind.text,
        "messages": kind.n_messages,
        "episodes": len(kind.episodes),
        "first_episodes": kind.episodes[:_EXAMPLES],
    }
