"""Episode boundaries of a replay buffer: stored in it, given beside it, or found by jumps of the block."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import DatasetError

if TYPE_CHECKING:
    import zarr

BLOCK_JUMP = "block_jump"
BLOCK_JUMP_PIXELS = 23.0
"""A PushT block that moves farther than this in one step [px] was put somewhere else: in the published
demonstrations pushing moves it by at most 18.5 px, and the next episode starts at least 28.1 px away."""

_LOG = logging.getLogger(__name__)


def read_episode_ends(
    group: zarr.Group, path: Path, option: str, arrays: Mapping[str, Any]
) -> tuple[np.ndarray, str]:
    """Return cumulative ends (E,) int64 and how they were found, for the record.

    Args:
        group: The replay buffer.
        path: Where it is, for messages.
        option: Empty to read them from the buffer, `BLOCK_JUMP`, or the path of a ``.npy`` file.
        arrays: The buffer's data arrays by key.

    Raises:
        DatasetError: There are none, or they are not increasing.
    """
    if option == BLOCK_JUMP:
        ends, recorded = _ends_from_block_jumps(path, arrays), BLOCK_JUMP
        _LOG.warning("%s: episode ends inferred from block jumps > %g px", path.name, BLOCK_JUMP_PIXELS)
    elif option:
        ends, recorded = _ends_from_file(Path(option))
    else:
        ends, recorded = _stored_ends(group, path), ""
    if ends.ndim != 1 or not len(ends) or np.any(np.diff(ends, prepend=0) <= 0):
        raise DatasetError(
            f"{path}: episode ends are empty or not increasing; expected cumulative step counts"
        )
    return ends, recorded


def _stored_ends(group: zarr.Group, path: Path) -> np.ndarray:
    try:
        array: Any = group["meta/episode_ends"]
    except KeyError as error:
        raise DatasetError(
            f"{path} has no meta/episode_ends, so nothing says where episodes end; get a complete copy, or give "
            f"--option episode_ends=FILE.npy, or for PushT --option episode_ends={BLOCK_JUMP}"
        ) from error
    return np.asarray(array[...], dtype=np.int64)


def _ends_from_file(path: Path) -> tuple[np.ndarray, str]:
    try:
        ends = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot read episode ends from {path}: {error}; expected a .npy file of integers"
        ) from error
    if ends.dtype.kind not in "iu":
        raise DatasetError(f"{path} holds {ends.dtype}; expected integer cumulative episode ends")
    ends = ends.astype("<i8")
    return ends, "blake2b:" + hashlib.blake2b(ends.tobytes(), digest_size=16).hexdigest()


def _ends_from_block_jumps(path: Path, arrays: Mapping[str, Any]) -> np.ndarray:
    state = arrays.get("state")
    if state is None or state.shape[1:] != (5,):
        raise DatasetError(
            f"{path} has no PushT state (T, 5); episode_ends={BLOCK_JUMP} works for PushT alone"
        )
    position = np.asarray(state[:, 2:4], dtype=np.float64)
    jumps = np.flatnonzero(np.linalg.norm(np.diff(position, axis=0), axis=1) > BLOCK_JUMP_PIXELS)
    return np.append(jumps + 1, len(position)).astype(np.int64)
