"""Errors that a user can act on.

Every error raised on bad input says three things: what was found, what was expected, what to do.
The command line prints a `UserError` as one line and exits with status 2; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, bad configuration or a missing piece that the user can repair."""


class DatasetError(UserError):
    """A dataset, episode or feature is missing, malformed or of another format."""


def unknown_name(kind: str, name: object, candidates: Iterable[str]) -> str:
    """Return a message for a failed lookup, with the nearest match and all candidates.

    >>> unknown_name("camera", "tpo", ["top", "wrist"])
    "unknown camera 'tpo'; did you mean 'top'? Available: top, wrist"
    """
    names = sorted(str(c) for c in candidates)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {kind} '{name}'{hint} Available: {', '.join(names) or 'none'}"
