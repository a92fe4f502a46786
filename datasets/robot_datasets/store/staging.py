"""The staging directory beside a target: locked, journalled, swapped in by rename."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from robot_datasets.errors import DatasetError
from robot_datasets.store.journal import Journal
from robot_datasets.store.layout import ATTRIBUTE_KEY

_SYNC_THREADS = 8
_LOCKS = ("lock", "workers")
_ENDING_SECONDS = 30.0
_POLL_SECONDS = 0.01


class Staging:
    """``NAME.zarr.staging``: the journal, the row spool, a lock, and the store being built.

    A staging directory without its ``store`` is what a writer left that was killed after the swap; it is
    stale and cleared.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        """Create or reopen the staging directory of `target` and lock it."""
        if "://" in str(target) or ":/" in str(target):
            raise DatasetError(
                f"{target} is a remote address; write the store locally, then copy the folder there"
            )
        self.target = Path(os.path.abspath(target))
        require_outside_of_stores(self.target)
        self.root = self.target.with_name(self.target.name + ".staging")
        self.store = self.root / "store"
        self.rows = self.root / "rows.bin"
        self.parts = self.root / "parts"
        self.workers_lock = self.root / "workers"
        self._replaced = self.root / "replaced"
        self._journal = self.root / "journal.jsonl"
        self._overwrite = overwrite
        self._lock_directory()
        try:
            wait_for_writers(self.workers_lock)
            self._restore_replaced()
            self._check_target()
        except BaseException:
            self.close()
            if not any(p.name not in _LOCKS for p in self.root.iterdir()):
                shutil.rmtree(self.root)
            raise

    def open_journal(self, header: dict[str, Any]) -> Journal:
        """Return the journal: an unfinished one with this `header`, or a new one.

        Raises:
            DatasetError: There is an unfinished store of another header, and overwriting was not asked for.
        """
        if not self.store.is_dir():
            self._clear()
        journal = Journal(self._journal)
        if journal.header is not None and journal.header != header:
            journal.close()
            if not self._overwrite:
                raise DatasetError(
                    f"{self.root} holds an unfinished store of another source or other options; "
                    "repeat that command to finish it, or pass --overwrite to discard it"
                )
            self._clear()
            journal = Journal(self._journal)
        if journal.header is None:
            self._clear(keep=self._journal.name)
            journal.append(header)
            self.store.mkdir()
        return journal

    def swap_in(self) -> None:
        """Move the finished store to the target and delete the rest."""
        self._check_target()
        if os.path.lexists(self.target):
            self.target.rename(self._replaced)
        self.store.rename(self.target)
        sync_path(self.target.parent)
        self.remove()

    def remove(self) -> None:
        """Delete the staging directory and release the lock."""
        self._journal.unlink(
            missing_ok=True
        )  # first, so that an interrupted removal leaves nothing to resume
        shutil.rmtree(self.root)
        self.close()

    def close(self) -> None:
        """Release the lock; the files stay."""
        self._lock.close()

    def _lock_directory(self) -> None:
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
            raise DatasetError(
                f"another process is writing {self.target}; wait for it or choose another path"
            ) from error

    def _restore_replaced(self) -> None:
        """Put back the old store if a writer was killed between the two renames of a swap."""
        if os.path.lexists(self._replaced) and not os.path.lexists(self.target):
            self._replaced.rename(self.target)

    def _check_target(self) -> None:
        if not os.path.lexists(self.target):
            return
        if not self._overwrite:
            raise DatasetError(f"{self.target} already exists; choose another path or pass --overwrite")
        if not is_episode_store(self.target):
            raise DatasetError(
                f"{self.target} exists and is not an episode store, so it is not overwritten; "
                "choose another path or delete it yourself"
            )

    def _clear(self, *, keep: str = "") -> None:
        for path in self.root.iterdir():
            if path.name in (*_LOCKS, keep):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextlib.contextmanager
def writing_for_another(workers_lock: Path) -> Iterator[None]:
    """Keep the next writer of a staging directory waiting while this process may still write into it."""
    with workers_lock.open("r") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for_writers(workers_lock: Path) -> None:
    """Wait until no process is `writing_for_another`: those that were killed or told to end are about to.

    Raises:
        DatasetError: One does not end.
    """
    deadline = time.monotonic() + _ENDING_SECONDS
    with workers_lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise DatasetError(
                        f"worker processes of an earlier conversion still write to {workers_lock.parent}; end them"
                    ) from error
                time.sleep(_POLL_SECONDS)
            else:
                return


def is_episode_store(path: Path) -> bool:
    """Whether the root metadata of a local directory names an episode store; parts may be damaged."""
    try:
        return f'"{ATTRIBUTE_KEY}"' in (path / "zarr.json").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def require_outside_of_stores(target: Path) -> None:
    """Raise `DatasetError` if `target` lies within an episode store, which would become part of it."""
    for parent in Path(os.path.abspath(target)).parents:
        if is_episode_store(parent):
            raise DatasetError(
                f"{target} lies within the episode store {parent}; choose a place outside of it"
            )


def remove_stale_staging(target: Path) -> None:
    """Delete what a writer left that was killed right after the swap; anything else is kept."""
    root = Path(os.path.abspath(target)).with_name(target.name + ".staging")
    if root.is_dir() and not (root / "store").exists():
        staging = Staging(target, overwrite=True)
        staging.remove()


def sync_path(path: Path) -> None:
    """Wait until the disk has the entries of a directory, or the bytes of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Wait until the disk has every file and directory below `root`."""
    if _sync_file_system(root):
        return
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:  # requests that wait together are committed in one go
        list(pool.map(sync_path, [root, *root.rglob("*")]))


def _sync_file_system(path: Path) -> bool:
    """Write out the whole file system of `path`, far cheaper than file by file; False if impossible."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError):  # Linux alone has it
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return syncfs(descriptor) == 0  # otherwise the files say themselves what is wrong
    finally:
        os.close(descriptor)
