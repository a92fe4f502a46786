"""The staging directory beside a target: locked, journalled, swapped in by rename."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from robot_datasets.errors import DatasetError
from robot_datasets.store.journal import Journal


class Staging:
    """``NAME.zarr.staging``: journal, row spool, lock, and the store being built."""

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        """Create or reopen the staging directory of `target` and lock it."""
        self.target = Path(os.path.abspath(target))
        self.root = self.target.with_name(self.target.name + ".staging")
        self.store = self.root / "store"
        self.rows = self.root / "rows.bin"
        self._replaced = self.root / "replaced"
        self._journal = self.root / "journal.jsonl"
        self._overwrite = overwrite
        if "://" in str(target):
            raise DatasetError(f"{target} is a remote address; write the store locally, then copy the folder there")
        if os.path.lexists(self.target) and not overwrite:
            raise DatasetError(f"{self.target} already exists; choose another path or pass --overwrite")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = (self.root / "lock").open("w")
        except OSError as error:
            raise DatasetError(
                f"cannot write to {self.target.parent}: {error.strerror}; choose a folder you may write to"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DatasetError(f"another process is writing {self.target}; wait for it or choose another path") from error

    def open_journal(self, header: dict[str, Any]) -> Journal:
        """Return the journal: an unfinished one with this `header`, or a new one.

        Raises:
            DatasetError: There is an unfinished store of another header, and overwriting was not asked for.
        """
        journal = Journal(self._journal)
        if journal.entries and journal.entries[0] != header:
            journal.close()
            if not self._overwrite:
                raise DatasetError(
                    f"{self.root} holds an unfinished store of another source or other options; "
                    "repeat that command to finish it, or pass --overwrite to discard it"
                )
            self._clear()
            journal = Journal(self._journal)
        if not journal.entries:
            self._clear(keep=self._journal.name)
            journal.append(header)
        return journal

    def swap_in(self) -> None:
        """Move the finished store to the target and delete the rest."""
        if os.path.lexists(self.target):
            if not self._overwrite:
                raise DatasetError(f"{self.target} appeared meanwhile; move it away and run the same command again")
            self.target.rename(self._replaced)
        self.store.rename(self.target)
        sync_directory(self.target.parent)
        self.remove()

    def remove(self) -> None:
        """Delete the staging directory and release the lock."""
        shutil.rmtree(self.root)
        self.close()

    def close(self) -> None:
        """Release the lock; the files stay."""
        self._lock.close()

    def _clear(self, *, keep: str = "") -> None:
        for path in self.root.iterdir():
            if path.name in ("lock", keep):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def sync_directory(path: Path) -> None:
    """Wait until the disk has the entries of a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Wait until the disk has every file and directory below `root`."""
    for directory, _, files in os.walk(root):
        for name in files:
            sync_directory(Path(directory) / name)
        sync_directory(Path(directory))
