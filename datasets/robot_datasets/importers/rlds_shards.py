"""The files of a TFDS directory: descriptions, shards, and where each record lies in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import EpisodeRef, Rejected
from robot_datasets.importers.tfrecord import RecordSpan, TfRecordFile

FEATURES = "features.json"
INFO = "dataset_info.json"
_SHARD = re.compile(r"^(.+)-([A-Za-z0-9_]+)\.tfrecord-(\d{5,})-of-(\d{5,})$")
_STORE_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True)
class Shard:
    """One file: shard `number` of `count` of a split."""

    name: str
    split: str
    number: int
    count: int

    @property
    def source_id(self) -> str:
        """Stable name, to which the number of a record is added."""
        return f"{self.split}/{self.number:05d}"

    @property
    def store_split(self) -> str:
        """The split in our terms: ``"train"``, ``"val"`` or empty."""
        return _STORE_SPLITS.get(self.split, "")


@dataclass(frozen=True)
class RecordPlace:
    """Where an episode's record lies; picklable."""

    shard: Shard
    span: RecordSpan


@dataclass(frozen=True)
class TfdsInfo:
    """What ``dataset_info.json`` says: name, version, split -> episodes per shard."""

    name: str
    version: str
    shard_lengths: Mapping[str, Sequence[int]]


@dataclass
class Records:
    """All records of the chosen splits, those that cannot be had, and what the descriptions got wrong."""

    refs: list[EpisodeRef] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_root(path: Path) -> Path | None:
    """Return the folder with ``features.json``: `path` itself, or the only version folder in it."""
    if (path / FEATURES).is_file():
        return path
    try:
        versions = [p for p in path.iterdir() if (p / FEATURES).is_file()] if path.is_dir() else []
    except OSError:
        return None
    return versions[0] if len(versions) == 1 else None


def require_root(path: Path) -> Path:
    """Return `find_root`'s folder; an error says which folders there are to choose from."""
    root = find_root(path)
    if root is not None:
        return root
    versions = sorted(p.name for p in path.iterdir() if (p / FEATURES).is_file()) if path.is_dir() else []
    if versions:
        raise DatasetError(
            f"{path} holds several versions ({', '.join(versions)}); give the folder of one of them"
        )
    raise DatasetError(
        f"{path} has no {FEATURES}; expected a TFDS folder <name>/<version> with it and tfrecord files"
    )


def find_shards(root: Path) -> list[Shard]:
    """Return the shards in a folder, by split and number."""
    found = []
    for file in root.iterdir():
        match = _SHARD.match(file.name)
        if match:
            found.append(Shard(file.name, match[2], int(match[3]), int(match[4])))
    return sorted(found, key=lambda shard: (shard.split, shard.count, shard.number, shard.name))


def read_info(root: Path) -> tuple[TfdsInfo, list[str]]:
    """Read ``dataset_info.json``; return it and what is wrong with it, for it is not needed to read the data."""
    try:
        values = json.loads((root / INFO).read_text(encoding="utf-8"))
        lengths = {
            str(split["name"]): [int(n) for n in split.get("shardLengths", ())]
            for split in values.get("splits", ())
        }
        file_format = values.get("fileFormat", "tfrecord")
        info = TfdsInfo(str(values.get("name", "")), str(values.get("version", "")), lengths)
    except FileNotFoundError:
        return TfdsInfo(root.parent.name, root.name, {}), [
            f"{INFO} is missing: nothing says how many episodes there should be"
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return TfdsInfo(root.parent.name, root.name, {}), [f"{INFO} cannot be read ({error}); not used"]
    if file_format != "tfrecord":
        raise DatasetError(f"{root} holds {file_format} files; only tfrecord can be read, prepare it as that")
    return info, []


def scan_records(root: Path, shards: Sequence[Shard], info: TfdsInfo) -> Records:
    """Find every record by its header; a damaged or missing shard costs the episodes it had, no others."""
    records = Records()
    for shard in shards:
        declared = _declared(info, shard)
        try:
            with TfRecordFile(root / shard.name) as file:
                spans, ended = file.scan()
        except OSError as error:
            spans, ended = [], f"the file cannot be read ({error})"
        for number, span in enumerate(spans):
            records.refs.append(EpisodeRef(f"{shard.source_id}/{number:06d}", RecordPlace(shard, span)))
        if ended:
            lost = f"; {declared - len(spans)} episodes are lost" if declared > len(spans) else ""
            reason = f"{shard.name}: {ended}{lost}; copy the file again"
            records.rejected.append(Rejected(f"{shard.source_id}/{len(spans):06d}", reason))
        elif declared >= 0 and declared != len(spans):
            records.warnings.append(
                f"{INFO} declares {declared} episodes in {shard.name}, it has {len(spans)}"
            )
    records.rejected += _missing(shards, info)
    return records


def _declared(info: TfdsInfo, shard: Shard) -> int:
    """Return how many episodes a shard should have; -1 if nothing says."""
    lengths = info.shard_lengths.get(shard.split, ())
    return lengths[shard.number] if len(lengths) == shard.count and shard.number < len(lengths) else -1


def _missing(shards: Sequence[Shard], info: TfdsInfo) -> Iterator[Rejected]:
    """Say which shards of the splits that were found are not there."""
    for split, count in dict.fromkeys((s.split, s.count) for s in shards):
        present = {s.number for s in shards if (s.split, s.count) == (split, count)}
        lengths = info.shard_lengths.get(split, ())
        for number in sorted(set(range(count)) - present):
            known = f" with {lengths[number]} episodes" if len(lengths) == count else ""
            yield Rejected(
                f"{split}/{number:05d}",
                f"shard {number} of {count} of split {split}{known} is missing; download it again",
            )


def checksum(root: Path, shards: Sequence[Shard]) -> str:
    """Hash the descriptions, and names and sizes of the shards."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (FEATURES, INFO):
        digest.update((root / name).read_bytes() if (root / name).is_file() else b"\0")
    for shard in shards:
        digest.update(f"{shard.name}\0{_size(root / shard.name)}\n".encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link; scanning it has said so
        return -1
