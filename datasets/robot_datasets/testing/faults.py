"""Faults put into files at random: of the bytes of any file, and of the content of JSON, HDF5 and Parquet.

A fault takes a file and a generator of random numbers, changes the file, and says what it did; None means that it
does not apply. The same file and seed give the same fault. Faults of bytes may go unnoticed where a format has no
checksum; faults of content must be noticed by whoever reads the file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from robot_datasets.testing.fault_tables import HDF5_FAULTS, PARQUET_FAULTS

Change = Callable[[Path, Random], str | None]
PLAUSIBLE = "(plausible) "
"""Begins what a fault of content says that nobody could notice, like another number where a number was."""

_JSON = (".json", ".jsonl", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_MOST_FLIPS = 8
_MOST_ZEROS = 4096


@dataclass(frozen=True)
class Fault:
    """One way to damage a file.

    Attributes:
        name: Short name.
        change: Does it.
        suffixes: Files it is for; empty for all. ``.name`` matches a whole name too.
        blind: The change may be impossible to notice: other bytes, as valid as those before.
    """

    name: str
    change: Change
    suffixes: tuple[str, ...] = ()
    blind: bool = False

    def applies_to(self, path: Path) -> bool:
        """Whether the fault is for files like this."""
        return not self.suffixes or path.suffix in self.suffixes or path.name in self.suffixes


def _truncate(path: Path, random: Random) -> str | None:
    size = path.stat().st_size
    if size < 2:
        return None
    keep = random.choice([random.randrange(size), random.randrange(min(size, 64)), size - 1])
    path.write_bytes(path.read_bytes()[:keep])
    return f"cut from {size} to {keep} bytes"


def _flip_bits(path: Path, random: Random) -> str | None:
    data = bytearray(path.read_bytes())
    if not data:
        return None
    places = [random.randrange(len(data)) for _ in range(random.randint(1, _MOST_FLIPS))]
    for place in places:
        data[place] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(data))
    return f"flipped a bit at {places}"


def _zero_block(path: Path, random: Random) -> str | None:
    data = bytearray(path.read_bytes())
    if not data:
        return None
    start = random.randrange(len(data))
    stop = min(len(data), start + random.randint(1, _MOST_ZEROS))
    data[start:stop] = bytes(stop - start)
    path.write_bytes(bytes(data))
    return f"bytes {start} to {stop} are zero"


def _overwrite_block(path: Path, random: Random) -> str | None:
    data = bytearray(path.read_bytes())
    if not data:
        return None
    start = random.randrange(len(data))
    stop = min(len(data), start + random.randint(1, 64))
    data[start:stop] = random.randbytes(stop - start)
    path.write_bytes(bytes(data))
    return f"bytes {start} to {stop} are random"


def _shift(path: Path, random: Random) -> str | None:
    data = path.read_bytes()
    place = random.randrange(len(data) + 1)
    if random.random() < 0.5 and len(data) > 8:
        path.write_bytes(data[:place] + data[place + random.randint(1, 8) :])
        return f"bytes were removed at {place}"
    path.write_bytes(data[:place] + random.randbytes(random.randint(1, 8)) + data[place:])
    return f"bytes were inserted at {place}"


def _empty(path: Path, random: Random) -> str | None:
    del random
    path.write_bytes(b"")
    return "emptied"


def _remove(path: Path, random: Random) -> str | None:
    del random
    path.unlink()
    return "removed"


def _become_folder(path: Path, random: Random) -> str | None:
    del random
    path.unlink()
    path.mkdir()
    return "replaced by a folder"


def _become_text(path: Path, random: Random) -> str | None:
    path.write_text("<html><body>429 Too Many Requests</body></html>\n" * random.randint(1, 40))
    return "replaced by an error page"


def _become_pointer(path: Path, random: Random) -> str | None:
    path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{random.randbytes(32).hex()}\nsize 4312345\n"
    )
    return "replaced by a Git LFS pointer"


def _become_link(path: Path, random: Random) -> str | None:
    path.unlink()
    path.symlink_to(random.choice(["/nowhere/at/all", path.name]))
    return "replaced by a broken link"


def _double(path: Path, random: Random) -> str | None:
    del random
    path.write_bytes(path.read_bytes() * 2)
    return "written twice"


WRONG_VALUES: tuple[Any, ...] = (
    None, -1, 0, 10**12, 10**400, 1e308, 0.5, True, "", "text", "../../../../etc/passwd", "/etc/passwd", "x" * 10_000,
    [], {}, [None], {"a": 1}, [[[[1]]]], "{}", "%s%n", "{0.__class__}", "\ud800",
)  # fmt: skip
"""What a field of JSON is replaced by."""


def _edit_json(path: Path, random: Random) -> str | None:
    lines = (
        path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".jsonl"
        else [path.read_text("utf-8")]
    )
    number = random.randrange(len(lines)) if lines else 0
    try:
        document = json.loads(lines[number])
    except (ValueError, IndexError):
        return None
    places = list(_places(document))
    if not places:
        return None
    holder, key = random.choice(places)
    before = json.dumps(holder[key])[:40]
    if random.random() < 0.3:
        del holder[key]
        said = f"line {number}: {key} = {before} removed"
    else:
        held, value = holder[key], random.choice(WRONG_VALUES)
        holder[key] = value
        said = f"line {number}: {key} = {before} is now {str(value)[:40]!r}"
        if _could_be(value, held):
            said = PLAUSIBLE + said
    lines[number] = json.dumps(document)
    path.write_text("\n".join(lines), encoding="utf-8")
    return said


def _could_be(value: Any, held: Any) -> bool:
    """Whether `value` could stand where `held` stood: another text, or another number that is not absurd."""
    texts = isinstance(held, list) and all(isinstance(text, str) for text in held)
    if isinstance(held, str) or texts:
        return isinstance(value, str) and len(value) < 100 and value.isprintable()
    numbers = isinstance(held, (int, float)) and isinstance(value, (int, float))
    return numbers and type(held) is type(value) and abs(value) < 10**6


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a document."""
    found: list[tuple[Any, Any]] = []
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        found.append((node, key))
        found += _places(value)
    return found


def _spoil_json(path: Path, random: Random) -> str | None:
    kind = random.choice(["deep", "nan", "latin", "list", "number", "bom", "repeated"])
    text = path.read_text(encoding="utf-8")
    spoilt = {
        "deep": b"[" * 100_000,
        "nan": text.replace("1", "NaN", 1).encode(),
        "latin": text.replace('"', '"\xe9', 1).encode("latin-1", "replace"),
        "list": b"[]",
        "number": b"3",
        "bom": b"\xff\xfe" + text.encode("utf-16-le"),
        "repeated": text.encode() + text.encode(),
    }
    path.write_bytes(spoilt[kind])
    return f"JSON spoilt: {kind}"


BYTE_FAULTS = (
    Fault("truncated", _truncate),
    Fault("bits flipped", _flip_bits, blind=True),
    Fault("zeros", _zero_block, blind=True),
    Fault("random bytes", _overwrite_block, blind=True),
    Fault("shifted", _shift, blind=True),
    Fault("empty", _empty),
    Fault("missing", _remove),
    Fault("folder", _become_folder),
    Fault("error page", _become_text),
    Fault("LFS pointer", _become_pointer),
    Fault("broken link", _become_link),
    Fault("doubled", _double, blind=True),
)
"""Faults of any file."""

JSON_FAULTS = (
    Fault("JSON edited", _edit_json, _JSON),
    Fault("JSON edited", _edit_json, _JSON),
    Fault("JSON edited", _edit_json, _JSON),
    Fault("JSON spoilt", _spoil_json, _JSON),
)

FAULTS = (
    *BYTE_FAULTS,
    *JSON_FAULTS,
    *(Fault(name, change, (".hdf5", ".h5")) for name, change in HDF5_FAULTS.items()),
    *(Fault(name, change, (".parquet",)) for name, change in PARQUET_FAULTS.items()),
)
"""All faults; a name may be there several times, which makes it likelier."""


def damage(root: Path, random: Random, faults: tuple[Fault, ...] = FAULTS) -> tuple[Fault, Path, str]:
    """Put one random fault into one random file at or below `root`.

    Returns:
        The fault, the file and what was done.
    """
    files = sorted(p for p in ([root] if root.is_file() else root.rglob("*")) if p.is_file())
    suffixes = sorted({p.suffix or p.name for p in files})
    while True:
        suffix = random.choice(suffixes)  # kinds of files alike, however many there are of each
        path = random.choice([p for p in files if (p.suffix or p.name) == suffix])
        fault = random.choice([f for f in faults if f.applies_to(path)])
        before = path.read_bytes()
        said = fault.change(path, random)
        if said is None:
            continue
        if path.is_file() and path.read_bytes() == before:
            continue
        return fault, path, said


def copy_source(source: Path, target: Path) -> Path:
    """Copy a file or a folder and return the copy."""
    if source.is_file():
        target.mkdir(parents=True)
        return Path(shutil.copy2(source, target / source.name))
    return Path(shutil.copytree(source, target / source.name, symlinks=True))
