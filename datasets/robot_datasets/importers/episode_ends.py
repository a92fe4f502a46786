"""Episode boundaries of a replay buffer: stored in it, given beside it, or found by jumps of the block.

Copies of the published PushT demonstrations are around that lost ``meta/episode_ends``. Their boundaries are
still in the data, since a reset puts the block somewhere else; they are inferred with a warning, and the store
records it. Any other buffer without boundaries is refused.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.importers.replay_buffer import DAMAGE, check_array, missing_rows, read_whole

if TYPE_CHECKING:
    import zarr

BLOCK_JUMP = "block_jump"
BLOCK_JUMP_PIXELS = (20.0, 26.0)
"""Moves of the block in one step [px]: up to the first it was pushed, from the second on it was put somewhere
else, and anything between is ambiguous. In the published demonstrations pushing moves it by at most 18.5 px, and
the next episode starts at least 28.1 px away."""

_LOG = logging.getLogger(__name__)


def read_episode_ends(
    group: zarr.Group, path: Path, option: str, arrays: Mapping[str, Any]
) -> tuple[np.ndarray, str]:
    """Return cumulative ends (E,) int64 and how they were found, for the record.

    Args:
        group: The replay buffer.
        path: Where it is, for messages.
        option: Empty to read them from the buffer, or to infer them if it is PushT without them; `BLOCK_JUMP`
            to infer them in any case; or the path of a ``.npy`` file.
        arrays: The buffer's data arrays by key.

    Raises:
        DatasetError: There are none, they cannot be told from pushing, or they are not increasing.
    """
    stored = _stored_ends(group, path)
    if option not in ("", BLOCK_JUMP):
        ends, recorded = _ends_from_file(Path(option))
    elif option == "" and stored is not None:
        ends, recorded = stored, ""
    else:
        ends, recorded = _ends_from_block_jumps(path, arrays), BLOCK_JUMP
        _LOG.warning(
            "%s: %s; found %d episodes where the block jumps, and recorded so in the store",
            path.name,
            "has no meta/episode_ends" if stored is None else "meta/episode_ends not used",
            len(ends),
        )
    if ends.ndim != 1 or not len(ends) or ends[0] <= 0 or np.any(ends[1:] <= ends[:-1]):
        raise DatasetError(
            f"{path}: episode ends are empty or not increasing; expected cumulative step counts"
        )
    return ends, recorded


def _stored_ends(group: zarr.Group, path: Path) -> np.ndarray | None:
    import zarr

    where = f"{path}/meta/episode_ends"
    try:
        array = group.get("meta/episode_ends")
    except DAMAGE as error:
        raise DatasetError(f"{where} is damaged ({type(error).__name__}: {error}); copy it again") from error
    if array is None:
        return None
    is_array = isinstance(array, zarr.Array) and array.dtype.kind in "iu"
    if is_array:
        check_array(array, where)
    if not is_array or missing_rows(array):
        raise DatasetError(f"{where} is no whole array of integers; copy it again")
    return read_whole(array, where).astype(np.int64)


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
            f"{path} has no meta/episode_ends, so nothing says where episodes end; get a complete copy or give "
            "--option episode_ends=FILE.npy (only PushT's can be inferred, from data/state of shape (T, 5))"
        )
    position = np.asarray(state[:, 2:4], dtype=np.float64)
    moved = np.linalg.norm(np.diff(position, axis=0), axis=1)
    pushed, reset = BLOCK_JUMP_PIXELS
    unclear = np.flatnonzero((moved > pushed) & (moved < reset))
    if len(unclear):
        raise DatasetError(
            f"{path} has no meta/episode_ends, and the block moves {moved[unclear[0]]:.1f} px at step {unclear[0]}, "
            f"neither clearly pushed (<= {pushed:g}) nor clearly reset (>= {reset:g}); get a complete copy or give "
            "--option episode_ends=FILE.npy"
        )
    return np.append(np.flatnonzero(moved >= reset) + 1, len(position)).astype(np.int64)
