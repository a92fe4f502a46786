"""The importer contract: ``probe`` says whether, ``plan`` says what, ``episodes`` streams it.

An importer is one class in one file. It reads one format and knows nothing of stores, journals or progress::

    probe(path)            cheap: is this mine?                       -> Probe | None
    plan(path, options)    list the episodes, declare the features    -> Plan
    episodes(plan, refs)   for each ref, in order, exactly one        -> Episode | Rejected

Test one with `robot_datasets.testing.ImporterTests`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import Feature


@dataclass(frozen=True)
class Probe:
    """A format recognised at a path; `detail` says by what."""

    format: str
    detail: str


@dataclass(frozen=True)
class Option:
    """One setting of an importer, given as ``--option name=value``; values are text.

    Attributes:
        name: Lower-case name.
        default: Value if it is not given.
        help: One line.
        choices: Allowed values; empty if any text is.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class EpisodeRef:
    """An episode that can be read later, maybe in another process.

    Attributes:
        source_id: Stable name of the episode within the source.
        locator: What the importer needs to find it again; picklable.
        group: Episodes that follow each other in a plan and share a group that is not empty are read by one
            process in one go, e.g. those of an archive that can only be read from its beginning.
    """

    source_id: str
    locator: Any = None
    group: str = ""


@dataclass(frozen=True)
class Rejected:
    """An episode that cannot be used, and why."""

    source_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything known before the first episode is read; picklable.

    Attributes:
        source: The path given by the user.
        options: Every option with the value in force; recorded in the store, so no absolute paths
            (record a file's content hash instead).
        refs: The episodes, in the order they are stored.
        features: Every feature, images included.
        fps: Rate of the steps [Hz].
        embodiment: Robot name; empty if unknown.
        checksum: A hash that changes when the source changes; cheap rather than perfect.
        image_encodings: ``"jpeg"``, ``"png"``, ``"raw"`` or, if red and blue are exchanged in the source's
            frames, ``"jpeg_bgr"`` per image feature.
        rejected: Episodes found unusable while planning.
        notes: Further facts worth recording, JSON-ready.
        context: Anything `episodes` needs besides, picklable; not recorded.
    """

    source: Path
    options: Mapping[str, str]
    refs: Sequence[EpisodeRef]
    features: Mapping[str, Feature]
    fps: float
    embodiment: str
    checksum: str
    image_encodings: Mapping[str, str] = field(default_factory=dict)
    rejected: Sequence[Rejected] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None


EpisodeResult: TypeAlias = Episode | Rejected


class DeclaresOptions:
    """An importer or exporter: a name, and the options it takes."""

    name: ClassVar[str]
    """Format name, as given to ``--format``."""
    options: ClassVar[tuple[Option, ...]] = ()


class Importer(DeclaresOptions, ABC):
    """Reads one format. Stateless: everything an instance needs later is in the `Plan`."""

    version: ClassVar[int]
    """Raised when the same source would give different episodes; recorded in the store."""
    summary: ClassVar[str]
    """What it reads, in one line for help and error messages."""

    @abstractmethod
    def probe(self, path: Path) -> Probe | None:
        """Say whether `path` holds this format, by names and headers only; never raise on other data."""

    @abstractmethod
    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the episodes and declare the features.

        Args:
            path: The source.
            options: Every declared option, checked by `resolve_options`.

        Raises:
            DatasetError: The source is damaged, or no episode is in it.
        """

    @abstractmethod
    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Yield, for each of `refs` in order, an `Episode` or why there is none.

        Memory stays bounded whatever the episode's length: images are iterables, read when consumed. An
        episode is consumed before the next one is asked for. An image iterable that meets damaged data
        raises `EpisodeError`.

        In a worker process `plan.refs` and `plan.rejected` are empty: a million of them would be a copy each.
        """


def resolve_options(owner: DeclaresOptions, given: Mapping[str, str]) -> dict[str, str]:
    """Fill in defaults and check names and values of `given` against the owner's declaration."""
    declared = {option.name: option for option in owner.options}
    for name in given:
        if name not in declared:
            raise DatasetError(f"{owner.name}: {unknown_name('option', name, declared)}")
    values = {name: given.get(name, option.default) for name, option in declared.items()}
    for name, value in values.items():
        choices = declared[name].choices
        if choices and value not in choices:
            raise DatasetError(f"{owner.name}: {unknown_name(f'value of option {name}', value, choices)}")
    return values
