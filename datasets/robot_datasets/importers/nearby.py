"""Sources below a folder that is none itself: somebody pointed one or more levels too high."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from robot_datasets.importers.base import Importer

_LEVELS = 4
_ENTRIES = 2000
_FOUND = 8


def sources_below(folder: Path, importers: Sequence[Importer]) -> list[tuple[Path, list[Importer]]]:
    """Return the topmost files and folders below `folder` that some importer recognises, by level and name.

    Looks at four levels and some thousand entries at the most, and stops at eight sources: enough to tell one from
    several.
    """
    found: list[tuple[Path, list[Importer]]] = []
    waiting = deque([(folder, 0)])
    looked_at = 0
    while waiting and looked_at < _ENTRIES and len(found) < _FOUND:
        parent, level = waiting.popleft()
        for path in _entries(parent):
            looked_at += 1
            matching = [importer for importer in importers if importer.probe(path) is not None]
            if matching:
                found.append((path, matching))
            elif level + 1 < _LEVELS and path.is_dir():
                waiting.append((path, level + 1))
    return found[:_FOUND]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_symlink()
        )
    except OSError:
        return []
