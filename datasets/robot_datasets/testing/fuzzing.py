"""Judging what an importer makes of a damaged source, by comparison with the undamaged one.

The store itself is left out, because its writer does not know foreign formats: episodes are planned, read, checked
and taken in as in any conversion, which takes milliseconds.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from robot_datasets.engine.reading import read_episodes
from robot_datasets.errors import UserError
from robot_datasets.features import is_image
from robot_datasets.importers import get_importer
from robot_datasets.importers.base import Importer, Rejected, resolve_options
from robot_datasets.store.layout import StoreSpec
from robot_datasets.store.parts import PartWriter
from robot_datasets.testing.faults import FAULTS, PLAUSIBLE, Fault, copy_source, damage

DEFECTS = ("silent", "healthy lost", "unforeseen", "vague", "crash", "hang", "memory")
"""Verdicts that are faults of ours; the others are `unharmed`, `set aside`, `warned`, `refused`, `undetectable`."""

_SEVERAL = re.compile(r"(\d+) episodes are lost")
_REMEDY = (
    ";",
    "expected",
    "copy",
    "convert",
    "choose",
    "give",
    "install",
    "check",
    "--option",
    "cannot be read",
)


@dataclass(frozen=True)
class Family:
    """One format and how to make a small healthy source of it.

    Attributes:
        name: Of the family.
        group: Family of formats that is reported together, e.g. ``"HDF5"``.
        write: Writes a source of at least three episodes into a folder and returns its path.
        importer: Its name, or itself.
        options: For the importer.
        is_own: Whether a file, given by its path below the source, belongs to one episode alone, so that the
            others must survive whatever is done to it.
        faults: What may happen to its files.
        has_checksums: Whether every byte is covered, so that nothing may go unnoticed.
    """

    name: str
    group: str
    write: Callable[[Path], Path]
    importer: str | Importer
    options: Mapping[str, str] = field(default_factory=dict)
    is_own: Callable[[str], bool] = lambda name: False
    faults: tuple[Fault, ...] = FAULTS
    has_checksums: bool = False


@dataclass(frozen=True)
class Reading:
    """What was read of a source.

    Attributes:
        facts: Rate, robot and features.
        episodes: Source id -> everything that is kept of the episode.
        reasons: Source id -> why it was set aside.
        warnings: About the source, and of episodes that were kept.
    """

    facts: Any
    episodes: Mapping[str, Any]
    reasons: Mapping[str, str]
    warnings: list[str]


@dataclass(frozen=True)
class Case:
    """One damaged source and what became of it."""

    family: str
    seed: int
    fault: str
    file: str
    said: str
    verdict: str
    detail: str


def read_source(path: Path, importer: str | Importer, options: Mapping[str, str], folder: Path) -> Reading:
    """Read everything of a source; parts go to `folder`.

    Raises:
        UserError: The source as a whole cannot be read.
    """
    reader = importer if isinstance(importer, Importer) else get_importer(importer)
    plan = reader.plan(path, resolve_options(reader, options))
    spec = StoreSpec(
        features=plan.features,
        fps=plan.fps,
        embodiment=plan.embodiment,
        source=plan.notes,
        conversion={},
        encodings=dict.fromkeys(filter(is_image, plan.features), "png") | dict(plan.image_encodings),
    )
    writer = PartWriter(spec)
    reasons = {rejected.source_id: rejected.reason for rejected in plan.rejected}
    warnings = [str(text) for text in plan.notes.get("warnings", ())]
    episodes: dict[str, Any] = {}
    for result in read_episodes(reader, plan, plan.refs, lambda episode: writer.write(episode, folder)):
        if isinstance(result, Rejected):
            reasons[result.source_id] = result.reason
            continue
        entry = dict(result.entry)
        warnings += entry.pop("warnings")
        episodes[entry["source_id"]] = entry
    facts = {name: feature.to_dict() for name, feature in plan.features.items()}
    return Reading((plan.fps, plan.embodiment, facts), episodes, reasons, warnings)


class Fuzzer:
    """Makes damaged copies of one family's source and judges them."""

    def __init__(self, family: Family, folder: Path) -> None:
        """Write the healthy source into `folder`, an empty one, and read it."""
        self.family = family
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "healthy").mkdir()
        self._source = family.write(folder / "healthy")
        self.truth = read_source(self._source, family.importer, family.options, folder / "part")
        if len(self.truth.episodes) < 3:
            raise ValueError(f"{family.name} has {len(self.truth.episodes)} episodes, expected 3 at least")

    def run(self, seed: int) -> Case:
        """Damage a copy and judge what is read of it."""
        random = Random(f"{self.family.name} {seed}")
        work = self._folder / "case"
        shutil.rmtree(work, ignore_errors=True)
        copy = copy_source(self._source, work)
        fault, path, said = damage(copy, random, self.family.faults)
        name = path.name if copy == path else path.relative_to(copy).as_posix()
        verdict, detail = self._judge(copy, name, fault, said)
        return Case(self.family.name, seed, fault.name, name, said, verdict, detail)

    def _judge(self, copy: Path, name: str, fault: Fault, said: str) -> tuple[str, str]:
        family = self.family
        is_own = family.is_own(name)
        try:
            found = read_source(copy, family.importer, family.options, self._folder / "part")
        except UserError as error:
            if is_own:
                return "healthy lost", f"all refused: {error}"
            return _vague(str(error)) or ("refused", str(error))
        except Exception as error:  # noqa: BLE001  that is what is looked for
            return "crash", f"{type(error).__name__}: {error}"
        lost = [n for n in self.truth.episodes if n not in found.episodes]
        changed = [
            n for n, e in self.truth.episodes.items() if n in found.episodes and found.episodes[n] != e
        ]
        new = [n for n in found.episodes if n not in self.truth.episodes]
        if is_own and len(lost) + len(changed) > 1:
            return "healthy lost", f"lost {lost}, changed {changed}: {dict(found.reasons)}"
        for reason in found.reasons.values():
            if unclear := _vague(reason):
                return unclear
        unexplained = [n for n in lost if not _is_explained(n, found.reasons)]
        counted = sum(int(match[1]) - 1 for r in found.reasons.values() if (match := _SEVERAL.search(r)))
        unexplained = unexplained[counted:]  # one reason may speak for the rest of a file
        is_told = len(found.warnings) > len(self.truth.warnings)
        if unexplained and not is_told:
            gone = (
                is_own and not (copy / name).is_file()
            )  # without a list, nobody knows of a file that is gone
            return "undetectable" if gone else "silent", f"lost without a reason: {unexplained}"
        nothing_kept = not found.episodes  # so nothing wrong was taken for right
        if nothing_kept or (not changed and not new and found.facts == self.truth.facts):
            if not lost and found.warnings == self.truth.warnings:
                return "unharmed", ""
            return "set aside" if lost else "warned", str([*found.reasons.values(), *found.warnings])
        difference = _difference(self.truth, found, changed, new)
        if is_told:
            return "warned", f"{difference}: {found.warnings}"
        if family.has_checksums or not (fault.blind or said.startswith(PLAUSIBLE)):
            return "silent", difference
        return "undetectable", difference


def _is_explained(source_id: str, reasons: Mapping[str, str]) -> bool:
    """Whether a reason is given for an episode, or for what it is part of, such as a shard."""
    return any(source_id == name or source_id.startswith(f"{name}/") for name in reasons)


def _vague(reason: str) -> tuple[str, str] | None:
    """Return a verdict if a reason does not help: an error nobody foresaw, or no remedy."""
    if "please report this" in reason or "more memory than there is" in reason:
        return "unforeseen", reason
    if "\n" in reason or not any(word in reason for word in _REMEDY):
        return "vague", reason
    return None


def _difference(truth: Reading, found: Reading, changed: list[str], new: list[str]) -> str:
    parts = [f"new episodes {new}"] if new else []
    if found.facts != truth.facts:
        pairs = zip(("fps", "embodiment", "features"), truth.facts, found.facts, strict=True)
        parts += [f"{name} was {a}, is {b}" for name, a, b in pairs if a != b]
    for name in changed[:3]:
        a, b = truth.episodes[name], found.episodes[name]
        keys = [f"{key} was {str(a[key])[:60]}, is {str(b[key])[:60]}" for key in a if a[key] != b.get(key)]
        parts.append(f"{name}: {'; '.join(keys)}")
    return ", ".join(parts)
