"""Visual meshes with fewer triangles: on a CPU rasteriser, drawing costs about 1 ms per 12,000 of them.

A reduced mesh is kept in a cache folder (``$XDG_CACHE_HOME/robot-policies/meshes``, else below ``~/.cache``, else a
temporary folder), named by the content of the original, so it is computed once per machine.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import UserError

logger = logging.getLogger(__name__)

SMALLEST = 200  # meshes with fewer triangles are left as they are
_STL = np.dtype([("normal", "<f4", 3), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])
_VERSION = b"1"  # changes with what is done to a mesh


def reduced_mesh(path: Path, detail: float) -> Path:
    """Return a file with about `detail` of the triangles of a mesh, or `path` itself where that is not possible.

    Args:
        path: Binary STL or OBJ. Texture coordinates of an OBJ are lost.
        detail: Share of the triangles to keep, in (0, 1].

    Raises:
        ValueError: `detail` is not in (0, 1].
    """
    if not 0.0 < detail <= 1.0:
        raise ValueError(f"mesh_detail: expected a share in (0, 1], got {detail}")
    if detail == 1.0 or path.suffix.lower() not in (".stl", ".obj"):
        return path
    content = path.read_bytes()
    key = hashlib.sha256(_VERSION + content).hexdigest()[:24]
    target = _cache_folder() / f"{key}-{detail:g}.stl"
    if target.is_file():
        return target
    try:
        triangles = _stl_triangles(content) if path.suffix.lower() == ".stl" else _obj_triangles(content)
    except (ValueError, IndexError) as error:
        logger.debug("%s is not reduced: %s", path, error)
        return path
    if len(triangles) < SMALLEST:
        return path
    _write_stl(target, _simplify(triangles, detail))
    return target


def _simplify(triangles: np.ndarray, detail: float) -> np.ndarray:
    try:
        import fast_simplification
    except ModuleNotFoundError as error:
        raise UserError(
            "pictures with fewer triangles need the package 'fast-simplification', which is not installed; "
            "pip install fast-simplification, or draw with mesh_detail=1"
        ) from error

    vertices, index = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    faces = index.reshape(-1, 3).astype(np.int32)
    simplify: Any = fast_simplification.simplify  # its annotations know float64 only
    points, kept = simplify(vertices.astype(np.float32), faces, 1.0 - detail)
    return points[kept]


def _stl_triangles(content: bytes) -> np.ndarray:
    count = int.from_bytes(content[80:84], "little")
    if len(content) < 84 + count * _STL.itemsize:
        raise ValueError("not a binary STL file")
    return np.frombuffer(content, dtype=_STL, count=count, offset=84)["vertices"].copy()


def _obj_triangles(content: bytes) -> np.ndarray:
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for line in content.decode("utf-8", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            corners = [int(word.split("/")[0]) for word in words[1:]]
            corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
            faces += [(corners[0], b, c) for b, c in itertools.pairwise(corners[1:])]
    if not faces:
        raise ValueError("no faces in it")
    return np.array(vertices, dtype=np.float32)[np.array(faces)]


def _write_stl(target: Path, triangles: np.ndarray) -> None:
    records = np.zeros(len(triangles), dtype=_STL)
    records["vertices"] = triangles
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(b"reduced mesh".ljust(80) + len(triangles).to_bytes(4, "little") + records.tobytes())
    os.replace(name, target)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for folder in (
        Path(base) / "robot-policies" / "meshes",
        Path(tempfile.gettempdir()) / "robot-policies-meshes",
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="robot-policies-meshes-"))
