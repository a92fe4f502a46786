"""Errors that a user can act on.

Every error raised on bad input says three things: what was found, what was expected, what to do.
The command line prints a `UserError` as one line and exits with status 2; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Bad input, bad configuration or a missing piece that the user can repair."""


class DatasetError(UserError):
    """A dataset, episode or feature is missing, malformed or of another format."""


def describe_unexpected(error: Exception) -> str:
    """Return a reason for an episode that failed in a way its importer did not foresee, naming the place."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if not _is_library(Path(frame.filename))] or frames
    where = f" in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else ""
    if isinstance(error, MemoryError):
        return f"reading it needs more memory than there is{where} ({error}); is a size in its file damaged?"
    return (
        f"unexpected {type(error).__name__}{where}: {error}; the file is damaged in a way that the importer does "
        "not know, please report this"
    )


def one_line(error: Exception) -> str:
    """Return kind and text of a foreign error in one line of bearable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def storage_error(error: OSError, target: object, then: str) -> DatasetError:
    """Say why `target` could not be written, and what `then` happens when the command is given again."""
    remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "repair that"
    return DatasetError(f"writing {target} failed: {error.strerror or error}; {remedy} and run {then}")


def _is_library(file: Path) -> bool:
    installed = "site-packages" in file.parts or file.is_relative_to(Path(traceback.__file__).parent)
    return installed and "robot_datasets" not in file.parts


def unknown_name(kind: str, name: object, candidates: Iterable[str]) -> str:
    """Return a message for a failed lookup, with the nearest match and all candidates.

    >>> unknown_name("camera", "tpo", ["top", "wrist"])
    "unknown camera 'tpo'; did you mean 'top'? Available: top, wrist"
    """
    names = sorted(str(c) for c in candidates)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {kind} '{name}'{hint} Available: {', '.join(names) or 'none'}"
