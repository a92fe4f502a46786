"""Reading HDF5 files that may be damaged, or made to harm: whatever goes wrong is an `EpisodeError` that names the key.

Nothing outside the file is ever read: external links, external storage and virtual datasets are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.importers.hdf5_vlen import DAMAGE, open_byte_strings

if TYPE_CHECKING:
    import h5py

_LARGE_BYTES = 64 << 20
_MOST_COMPRESSED = 1100
MAX_ARRAY_BYTES = 1 << 30
"""Largest array read at once [bytes]; a header that claims more is damaged or hostile."""


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        EpisodeError: It is truncated, no HDF5 file, or may not be read.
    """
    import h5py

    try:
        return h5py.File(path, "r")
    except PermissionError as error:
        raise EpisodeError(
            f"{path.name} may not be read: {error.strerror}; change its permissions"
        ) from error
    except DAMAGE as error:
        raise EpisodeError(f"{path.name} is truncated or not HDF5: {error}; copy it again") from error


def find_dataset(file: h5py.File, key: str) -> Any:
    """Return the dataset at `key`, or None if there is none.

    Raises:
        EpisodeError: It lies outside the file, or the file is damaged there.
    """
    import h5py

    try:
        for end in _prefixes(key):
            if isinstance(file.get(end, getlink=True), h5py.ExternalLink):
                raise EpisodeError(f"{end} is a link to another file; expected the data itself, copy it in")
        node = file.get(key)
        if not isinstance(node, h5py.Dataset):
            return None
        if node.external or node.is_virtual:
            raise EpisodeError(f"{key} is stored outside the file; expected the data itself, copy it in")
        return node
    except DAMAGE as error:
        raise EpisodeError(f"{key} cannot be opened, the file is damaged: {error}; copy it again") from error


def read_array(dataset: h5py.Dataset, rows: slice | None = None) -> np.ndarray:
    """Read numbers, all or some rows.

    Raises:
        EpisodeError: The dataset is damaged, no array of numbers, or absurdly large.
    """
    try:
        if dataset.ndim == 0 or dataset.dtype.kind not in "fiub":
            raise EpisodeError(
                f"{dataset.name} is {dataset.dtype} of shape {dataset.shape}; expected (T, ...) numbers"
            )
        if rows is None and dataset.size * dataset.dtype.itemsize > MAX_ARRAY_BYTES:
            raise EpisodeError(
                f"{dataset.name} claims shape {dataset.shape}, more than 1 GiB; the file is damaged"
            )
        if rows is None and _is_hollow(dataset):
            raise EpisodeError(
                f"{dataset.name} claims shape {dataset.shape}, but {dataset.id.get_storage_size()} bytes of it are "
                "stored; the file is damaged, copy it again"
            )
        return dataset[...] if rows is None else dataset[rows]
    except DAMAGE as error:
        raise EpisodeError(
            f"{dataset.name} cannot be read, the file is truncated: {error}; copy it again"
        ) from error


def _is_hollow(dataset: h5py.Dataset) -> bool:
    """Whether next to nothing of a large array is in the file; HDF5 would make up the rest in memory.

    Deflate shrinks numbers by a factor of 1,032 at most.
    """
    n_bytes = dataset.size * dataset.dtype.itemsize
    return n_bytes > _LARGE_BYTES and dataset.id.get_storage_size() * _MOST_COMPRESSED < n_bytes


def read_text(file: h5py.File, key: str) -> str:
    """Return the text at `key`, or the attribute of that name of the group above it; empty if there is none.

    Raises:
        EpisodeError: It is there but no UTF-8 text.
    """
    import h5py

    dataset = find_dataset(file, key)
    group, _, name = key.rpartition("/")
    try:
        if dataset is not None:
            value: Any = _first_text(dataset)
        else:
            parent = file.get(group) if group else file
            value = parent.attrs.get(name, b"") if isinstance(parent, h5py.Group) else b""
        while isinstance(value, np.ndarray):
            value = value.reshape(-1)[0] if value.size else b""
        return (value.decode("utf-8") if isinstance(value, bytes) else str(value)).strip("\0 \t\r\n")
    except DAMAGE as error:  # UnicodeDecodeError is a ValueError
        raise EpisodeError(f"{key} cannot be read as text: {error}; copy the file again") from error


def _first_text(dataset: Any) -> Any:
    import h5py

    kind = h5py.check_string_dtype(dataset.dtype)
    if kind is None or kind.length is not None:
        return dataset[()] if dataset.size < 4096 else b""
    if not dataset.size:
        return b""
    with open_byte_strings(dataset) as source:
        return source.read(0, 1)[0]


def _prefixes(key: str) -> list[str]:
    parts = key.strip("/").split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]
