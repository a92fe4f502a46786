"""A bag: its files, what ``metadata.yaml`` promises, and what is really there.

Files count more than the metadata: it may be absent (the recorder was killed), name files that were renamed since,
or promise messages that are not there. All of that is said; nothing is read as if it were whole when it is not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from robot_datasets.errors import DatasetError
from robot_datasets.importers.rosbag2_open import open_storage
from robot_datasets.importers.rosbag2_storage import (
    COMPRESSED,
    ENDINGS,
    BagError,
    RawMessage,
    StorageFile,
    Topic,
    full_type,
)

METADATA = "metadata.yaml"
_NUMBERED = re.compile(r"^(.*?)_?(\d+)$")
_INFORMATION = "rosbag2_bagfile_information"


@dataclass(frozen=True)
class BagFiles:
    """The files of one bag.

    Attributes:
        name: Stable name within the source.
        files: In the order of recording.
        metadata: ``metadata.yaml``, if there is one.
    """

    name: str
    files: tuple[Path, ...]
    metadata: Path | None = None


@dataclass(frozen=True)
class Promise:
    """What ``metadata.yaml`` says: messages per topic, types, names of files."""

    counts: Mapping[str, int]
    types: Mapping[str, str]
    files: tuple[str, ...]


class Bag:
    """An opened bag; a context manager.

    Attributes:
        topics: Topic name -> type, definition and number of messages, over all files.
        warnings: Where metadata and files differ in names.
        miscounts: Where they differ in numbers of messages.
        unfinished: Why a file is not whole; empty if all are.
    """

    def __init__(self, bag: BagFiles) -> None:
        """Open all files of a bag.

        Raises:
            BagError: A file is missing or damaged, or a topic has messages by the metadata but none in the files.
        """
        self.name = bag.name
        self.warnings: list[str] = []
        self.miscounts: list[str] = []
        promise = read_metadata(bag.metadata) if bag.metadata is not None else None
        files = self._existing(bag, promise)
        with ExitStack() as stack:
            self._files: list[StorageFile] = [stack.enter_context(open_storage(path)) for path in files]
            self.topics = _merged(self._files)
            self.unfinished = "; ".join(file.unfinished for file in self._files if file.unfinished)
            if promise is not None:
                self._compare(promise)
            self._stack = stack.pop_all()

    @property
    def faults(self) -> list[str]:
        """Everything that is odd about the bag, in words."""
        return [line for line in (*self.warnings, *self.miscounts, self.unfinished) if line]

    @property
    def time_span(self) -> tuple[int, int] | None:
        """Times of the first and the last message [ns]; None if there is none."""
        spans = [span for file in self._files if (span := file.time_span()) is not None]
        return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None

    def messages(self, topics: Collection[str], start: int, end: int) -> Iterator[RawMessage]:
        """Yield the messages of `topics` received from `start` to `end` [ns], file after file."""
        for file in self._files:
            yield from file.messages(topics, start, end)

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _existing(self, bag: BagFiles, promise: Promise | None) -> list[Path]:
        """Return the files to read: those that the metadata names if they are there, else all that are found."""
        if promise is None:
            return list(bag.files)
        if not bag.files:
            raise BagError(f"no {' or '.join(ENDINGS)} file beside {METADATA}; copy the files of the bag")
        by_name = {path.name: path for path in bag.files}
        named = [by_name[name] for name in promise.files if name in by_name]
        if len(named) == len(promise.files) and named:
            return named
        missing = ", ".join(name for name in promise.files if name not in by_name)
        found = ", ".join(by_name) or "nothing"
        if len(bag.files) != len(promise.files):
            raise BagError(f"{METADATA} names {missing}, found {found}; copy the missing files")
        self.warnings.append(f"{METADATA} names {missing}, found {found}; taken for the same files, renamed")
        return list(bag.files)

    def _compare(self, promise: Promise) -> None:
        for name, count in promise.counts.items():
            found = self.topics[name].count if name in self.topics else 0
            if found == count:
                continue
            said = f"{name}: {METADATA} counts {count} messages, the files hold {found}"
            if count and not found:
                raise BagError(f"{said}; the bag is incomplete, copy it again")
            self.miscounts.append(said)


def read_metadata(path: Path) -> Promise:
    """Read a ``metadata.yaml`` of any version.

    Raises:
        BagError: It is no such file.
    """
    from robot_datasets.schemas.reading import read_yaml

    try:
        values: Mapping[str, Any] = read_yaml(path)[_INFORMATION]
        topics = [(t["topic_metadata"], t["message_count"]) for t in values["topics_with_message_count"]]
        return Promise(
            {str(topic["name"]): int(count) for topic, count in topics},
            {str(topic["name"]): full_type(str(topic["type"])) for topic, _ in topics},
            tuple(PurePosixPath(str(name)).name for name in values["relative_file_paths"]),
        )
    except DatasetError as error:
        raise BagError(f"{METADATA}: {error}; delete it to read the files without it") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BagError(
            f"{path.parent.name}/{METADATA} is not that of a bag ({error!r}); delete it to read the files without it"
        ) from error


def find_bags(path: Path) -> list[BagFiles]:
    """Return the bags at or below `path`, sorted by name.

    A folder with a ``metadata.yaml`` is one bag. Without it, files whose names differ in a number at the end alone
    (``take_0.mcap``, ``take_1.mcap``) are the parts of one bag, and others are bags of their own.
    """
    if path.is_file():
        return [BagFiles(path.name, (path,))] if is_storage(path) else []
    bags: list[BagFiles] = []
    for folder in sorted(
        {path, *(file.parent for file in path.rglob("*") if is_storage(file) or file.name == METADATA)}
    ):
        files = sorted((f for f in folder.iterdir() if f.is_file() and is_storage(f)), key=_order)
        place = folder.relative_to(path).as_posix()
        if (folder / METADATA).is_file():
            name = place if place != "." else path.absolute().name
            bags.append(BagFiles(name, tuple(files), folder / METADATA))
            continue
        groups: dict[str, list[Path]] = {}
        for file in files:
            groups.setdefault(_group(file), []).append(file)
        for group in groups.values():
            stem = group[0].name if len(group) == 1 else _stem(group[0]).rstrip("_")
            bags.append(BagFiles(stem if place == "." else f"{place}/{stem}", tuple(group)))
    return sorted(bags, key=lambda bag: bag.name)


def is_storage(path: Path) -> bool:
    """Whether a file's name ends like that of a bag's file, compressed or not."""
    name = path.name
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name.endswith(ENDINGS)


def _merged(files: list[StorageFile]) -> dict[str, Topic]:
    """Return the topics of all files, their counts added up."""
    topics: dict[str, Topic] = {}
    for file in files:
        for name, topic in file.topics.items():
            known = topics.get(name)
            if known is None:
                topics[name] = topic
                continue
            if known.type != topic.type:
                raise BagError(f"{name} is {known.type} in one file and {topic.type} in another")
            described = known if known.definition else topic
            topics[name] = replace(described, count=known.count + topic.count)
    return topics


def _stem(path: Path) -> str:
    """Return the name without endings and without the number of the part."""
    name = path.name.partition(".")[0]
    match = _NUMBERED.match(name)
    return f"{match[1]}_" if match else name


def _group(path: Path) -> str:
    return _stem(path) + path.name.partition(".")[2]


def _order(path: Path) -> tuple[str, int, str]:
    match = _NUMBERED.match(path.name.partition(".")[0])
    return (_stem(path), int(match[2]) if match else -1, path.name)
