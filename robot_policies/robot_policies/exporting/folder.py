"""The exported folder: what is in it, and reading it with checks; no torch.

Layout::

    policy.json       format, policy type, checkpoint hash, names of the encoder's inputs, formats, parity
    spec.json         features, horizons and rate, as in the checkpoint
    normalizer.json   scale and offset of the action; observations are normalised inside the encoder's graph
    schedule.json     the sampling program (`robot_policies.exporting.program`)
    encoder.<ext>     from observations (1, T_o, ...) in physical units to what the network is given
    network.<ext>     from noisy chunk (1, T_p, A), time (1,) and encoded observation to the network's output
    manifest.json     size and SHA-256 of the files above

with <ext> = ``onnx``, ``torchscript.pt`` or ``aotinductor.pt2``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from robot_policies.exporting.program import ExportError

POLICY, SPEC, NORMALIZER, SCHEDULE = "policy.json", "spec.json", "normalizer.json", "schedule.json"
MANIFEST = "manifest.json"
FORMAT = 1
ENDINGS = {"onnx": "onnx", "torchscript": "torchscript.pt", "aotinductor": "aotinductor.pt2"}
"""Format -> ending of its two graphs."""

MAX_JSON = 16 << 20


def graph_file(part: str, format: str) -> str:
    """Name of a graph's file; `part` is ``encoder`` or ``network``."""
    return f"{part}.{ENDINGS[format]}"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; NaN is an error."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of bounded size.

    Raises:
        ExportError: It is missing, damaged or too large.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ExportError(f"{path} has more than {MAX_JSON} bytes; it is no file of an exported policy")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{path} cannot be read ({error}); expected JSON; export the policy again"
        ) from error


def write_manifest(folder: Path) -> None:
    """Record size and hash of every file in a folder."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "files": files})


def check_manifest(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        ExportError: The folder is no exported policy, or a file is missing or changed.
    """
    if not (folder / MANIFEST).is_file():
        raise ExportError(
            f"{folder} holds no {MANIFEST}; expected a folder written by 'robot-policies export-policy'"
        )
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ExportError(f"{folder / MANIFEST} is of another format; export the policy again")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"] or file_hash(path) != entry["sha256"]:
            raise ExportError(f"{path} is missing, truncated or changed; copy the exported folder again")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
