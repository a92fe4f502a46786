"""Byte strings of varying length, read without HDF5's heap code: the same bytes, and no harm from damaged files."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.episode import EpisodeError
from robot_datasets.importers import hdf5_vlen
from robot_datasets.importers.hdf5_reading import read_text
from robot_datasets.importers.hdf5_vlen import check_byte_strings, open_byte_strings

VLEN: Any = h5py.vlen_dtype(np.uint8)


def _write(path: Path, strings: list[bytes], **options: Any) -> None:
    with h5py.File(
        path, "w", **{k: options.pop(k) for k in ("libver", "userblock_size") if k in options}
    ) as file:
        dataset = file.create_dataset("frames", (len(strings),), dtype=VLEN, **options)
        for row, string in enumerate(strings):
            dataset[row] = np.frombuffer(string, np.uint8)


def _read(path: Path) -> tuple[list[bytes], str]:
    with h5py.File(path) as file:
        dataset: Any = file["frames"]
        with open_byte_strings(dataset) as source:
            return source.read(0, len(dataset)), type(source).__name__


@given(
    lengths=st.lists(st.sampled_from([0, 1, 7, 8, 4000, 4080, 4096, 70_000]), min_size=1, max_size=40),
    chunks=st.sampled_from([None, (1,), (7,)]),
    libver=st.sampled_from(["earliest", "latest"]),
)
def test_reads_what_h5py_reads(
    lengths: list[int], chunks: Any, libver: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Short strings share a collection, long ones have their own; contiguous, chunked, old and new file formats."""
    path = tmp_path_factory.mktemp("vlen") / "x.hdf5"
    random = np.random.default_rng(len(lengths))
    strings = [random.bytes(n) for n in lengths]
    _write(path, strings, chunks=chunks and (min(chunks[0], len(strings)),), libver=libver)
    found, reader = _read(path)
    assert found == strings
    assert reader == "_ByHeap"


def test_rows_that_were_never_written_are_empty(tmp_path: Path) -> None:
    """A dataset, or a chunk of one, without content holds empty strings."""
    for chunks in (None, (2,)):
        with h5py.File(tmp_path / f"{chunks}.hdf5", "w") as file:
            dataset = file.create_dataset("frames", (5,), dtype=VLEN, chunks=chunks)
            if chunks:
                dataset[3] = np.frombuffer(b"abc", np.uint8)
        assert _read(tmp_path / f"{chunks}.hdf5")[0] == [b"", b"", b"", b"abc" if chunks else b"", b""]


@pytest.mark.parametrize("options", [{"chunks": (2,), "compression": "gzip"}, {"userblock_size": 512}])
def test_what_it_does_not_know_is_left_to_h5py(options: dict[str, Any], tmp_path: Path) -> None:
    """Filters and user blocks are read as usual."""
    _write(tmp_path / "x.hdf5", [b"one", b"", b"three"], **options)
    assert _read(tmp_path / "x.hdf5") == ([b"one", b"", b"three"], "_ByHdf5")


def test_damaged_heaps_and_references_are_errors(tmp_path: Path) -> None:
    """Hundreds of files with wrong bytes in heap and references: each string is right, or an error names the step."""
    strings = [bytes([65 + i]) * (300 + i) for i in range(20)]
    _write(tmp_path / "good.hdf5", strings)
    good = (tmp_path / "good.hdf5").read_bytes()
    with h5py.File(tmp_path / "good.hdf5") as file:
        dataset: Any = file["frames"]
        place = dataset.id.get_offset()
    heap = good.index(b"GCOL")
    random = np.random.default_rng(0)
    errors = []
    for _ in range(400):
        damaged = bytearray(good)
        first = place if random.random() < 0.5 else heap
        for _ in range(3):
            damaged[first + random.integers(0, 320)] = random.integers(0, 256)
        (tmp_path / "bad.hdf5").write_bytes(damaged)
        try:
            found, _ = _read(tmp_path / "bad.hdf5")
        except EpisodeError as error:
            errors.append(str(error))
        else:
            assert sum(map(len, found)) <= 20 * len(good)
    assert len(errors) > 100
    assert all("frames step" in text for text in errors)


def test_texts_are_read_alike_and_a_wiped_heap_is_an_error(tmp_path: Path) -> None:
    """A text lies in the same heap; where its bytes are zero HDF5 itself would never return."""
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["one"], file["many"], file["fixed"] = "把苹果放好", ["first", "second"], np.bytes_(b"plain")
        file["empty"] = ""
    with h5py.File(tmp_path / "x.hdf5") as file:
        texts = {key: read_text(file, key) for key in ("one", "many", "fixed", "empty", "absent")}
    assert texts == {"one": "把苹果放好", "many": "first", "fixed": "plain", "empty": "", "absent": ""}
    data = bytearray((tmp_path / "x.hdf5").read_bytes())
    heap = data.index(b"GCOL")
    data[heap : heap + 64] = bytes(64)
    (tmp_path / "x.hdf5").write_bytes(data)
    with h5py.File(tmp_path / "x.hdf5") as file, pytest.raises(EpisodeError, match="no heap collection"):
        read_text(file, "one")


def test_a_truncated_heap_is_an_error(tmp_path: Path) -> None:
    """A string beyond the end of the file is no string."""
    _write(tmp_path / "x.hdf5", [b"a" * 100, b"b" * 90_000])
    with h5py.File(tmp_path / "x.hdf5") as file:
        dataset: Any = file["frames"]
        with open_byte_strings(dataset) as source:
            with (tmp_path / "x.hdf5").open("r+b") as raw:
                raw.truncate(20_000)
            with pytest.raises(EpisodeError, match="frames step 1 cannot be read, the file is damaged"):
                source.read(0, 2)


@pytest.mark.parametrize("values", [np.zeros((3, 4), np.uint8), np.zeros(3), np.array([b"ab", b"c"])])
def test_other_types_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    """Only (T,) byte strings of varying length hold frames."""
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["frames"] = values
        with pytest.raises(EpisodeError, match=r"expected \(T,\) encoded frames"):
            check_byte_strings(file["frames"])


def test_large_collections_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit only object headers and the wanted bytes are read, with the same result."""
    strings = [b"x" * 5000, b"y" * 3, b"z" * 70_000]
    _write(tmp_path / "x.hdf5", strings)
    monkeypatch.setattr(hdf5_vlen, "_WHOLE_COLLECTION", 0)
    assert _read(tmp_path / "x.hdf5")[0] == strings
