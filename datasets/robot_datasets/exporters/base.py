"""The exporter contract, and the folder an export is written to before it appears."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from robot_datasets.errors import DatasetError, storage_error
from robot_datasets.importers.base import DeclaresOptions
from robot_datasets.store import EpisodeStore
from robot_datasets.store.staging import require_outside_of_stores, sync_path, sync_tree

RECORD = "robot_policies.json"
"""File beside an exported tree that says who wrote it; readers of the format do not look at it."""


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Attributes:
        source: The store's address.
        target: The folder written.
        format: Exporter name.
        options: Every option with the value in force.
        n_episodes: Episodes written.
        n_steps: Steps written.
        warnings: What the format could not hold.
        seconds: Wall time [s].
    """

    source: str
    target: str
    format: str
    options: Mapping[str, str]
    n_episodes: int
    n_steps: int
    warnings: Sequence[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


class Exporter(DeclaresOptions, ABC):
    """Writes one format."""

    summary: ClassVar[str]
    """What it writes, in one line."""
    file_endings: ClassVar[tuple[str, ...]] = ()
    """Endings that the name of the target may have, if the format is one file; empty = it is a folder."""

    @abstractmethod
    def recognises(self, folder: Path) -> bool:
        """Whether `folder` (or file) holds a dataset of this format, which may be replaced when asked to."""

    @abstractmethod
    def check(self, store: EpisodeStore, options: Mapping[str, str]) -> list[str]:
        """Return what will be lost, in words.

        Raises:
            DatasetError: The store cannot be written in this format with these options.
        """

    @abstractmethod
    def write(
        self,
        store: EpisodeStore,
        folder: Path,
        options: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write all of `store` into the empty `folder`, or to this path, where nothing is yet, if it is a file.

        ``progress(done, total)`` is to be called after every episode.
        """


def write_record(folder: Path, format: str, contents: Mapping[str, Any]) -> None:
    """Write, beside the data, that we wrote `folder` in this format, and what the format has no place for."""
    text = json.dumps({"written_as": format, **contents}, ensure_ascii=False, indent=1)
    (folder / RECORD).write_text(text, encoding="utf-8")


def has_record(folder: Path, format: str) -> bool:
    """Whether `write_record` was called on `folder` with this format; data that was downloaded has none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("written_as") == format


@contextlib.contextmanager
def staged_folder(
    target: Path, *, overwrite: bool, replaceable: Callable[[Path], bool], is_file: bool = False
) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends well, and is deleted otherwise.

    With `is_file`, the path of a file is yielded instead, which the block has to write.

    Beside the target lies ``NAME.staging`` meanwhile, locked. One left by a killed process is cleared; an old
    target that it had moved away is put back first.
    """
    target = Path(os.path.abspath(target))
    require_outside_of_stores(target)
    root = target.with_name(target.name + ".staging")
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise DatasetError(
            f"cannot write to {target.parent}: {error.strerror}; choose a folder you may write to"
        ) from error
    try:
        _lock(descriptor, target)
        _restore(root, target)
        _check_target(target, overwrite, replaceable, root)
        build = root / "build"
        try:
            if not is_file:
                build.mkdir()
            yield build
            (sync_path if is_file else sync_tree)(build)
            if target.exists():
                target.rename(root / "replaced")
            build.rename(target)
            sync_path(target.parent)
        except OSError as error:
            raise storage_error(error, target, "the command again") from error
        finally:
            _restore(root, target)
            shutil.rmtree(root, ignore_errors=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DatasetError(
            f"another process is writing {target}; wait for it or choose another path"
        ) from error


def _restore(root: Path, target: Path) -> None:
    """Put an old target back that was moved away for a new one which never came; clear the rest."""
    if (root / "replaced").exists() and not target.exists():
        (root / "replaced").rename(target)
    for name in ("build", "replaced"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).unlink(missing_ok=True)


def _check_target(target: Path, overwrite: bool, replaceable: Callable[[Path], bool], root: Path) -> None:
    if not os.path.lexists(target):
        return
    message = ""
    if not overwrite:
        message = f"{target} already exists; choose another path or pass --overwrite"
    elif not replaceable(target):
        message = (
            f"{target} exists and is not a dataset of this format, so it is not overwritten; "
            "choose another path or delete it yourself"
        )
    if message:
        root.rmdir()
        raise DatasetError(message)
