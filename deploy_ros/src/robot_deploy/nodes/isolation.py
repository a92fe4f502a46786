"""A ROS domain that nobody else on this machine uses: for the demo, tests and benchmarks.

Nodes in it can neither see nor command anything outside, and runs side by side do not meet. Linux assigns
ports such that domains 0 to 101 are safe; 0 is everybody's default and is left alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robot_datasets.errors import UserError

_DOMAINS = range(1, 102)
_SHARED_MEMORY = Path("/dev/shm")
_LOCK_NAME = re.compile(r"fastrtps_(port\d{1,5}|[0-9a-z]{16})(_el|_sl)")


@contextmanager
def own_domain() -> Iterator[dict[str, str]]:
    """Hold a free domain; yield the environment variables that put a process into it.

    Afterwards shared memory is removed that dead processes left behind: a killed node cannot do that itself.

    Raises:
        UserError: All domains are taken.
    """
    for domain in _DOMAINS:
        path = Path(tempfile.gettempdir()) / f"robot_policies_ros_domain_{domain}.lock"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:  # another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            continue
        try:
            yield {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        finally:
            os.close(descriptor)
            clean_shared_memory()
        return
    raise UserError(
        f"all ROS domains from 1 to {_DOMAINS[-1]} are in use; end some of the runs that hold them"
    )


def clean_shared_memory(folder: Path = _SHARED_MEMORY) -> int:
    """Remove Fast DDS's shared memory of dead processes, as ``fastdds shm clean`` does; return how many files.

    A segment or port belongs to a living process as long as its lock file is locked.
    """
    removed = 0
    for lock in folder.glob("fastrtps_*"):
        if not _LOCK_NAME.fullmatch(lock.name) or _held(lock):
            continue
        segment = lock.with_name(lock.name[:-3])
        for path in (segment, lock, lock.with_name(f"sem.{segment.name}_mutex")):
            try:
                path.unlink()
                removed += 1
            except OSError:  # gone already, or somebody else's
                continue
    return removed


def _held(lock: Path) -> bool:
    try:
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
