"""The files of a store against those that zarr-python writes itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec

from robot_datasets.store.zarr_files import ZarrFiles, read_sharded

DTYPES = ("bool", "int8", "uint8", "uint16", "int32", "int64", "float16", "float32", "float64")


def _by_zarr(root: Path, path: str, values: np.ndarray, chunk: int, shard: int, attributes: dict) -> None:
    group = zarr.create_group(str(root), zarr_format=3, attributes={"ä": 1, "b": [1.5, None]})
    rest = tuple(max(1, n) for n in values.shape[1:])
    keep_zeros: Any = {"write_empty_chunks": True}
    array = group.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk, *rest),
        shards=(shard, *rest),
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=False if values.dtype == np.bool_ else 0,
        attributes=attributes,
        config=keep_zeros,
    )
    for start in range(0, len(values), shard):
        array[start : start + shard] = values[start : start + shard]


def _files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@settings(max_examples=30)
@given(
    dtype=st.sampled_from(DTYPES),
    n_rows=st.integers(0, 30),
    rest=st.lists(st.integers(1, 3), max_size=2),
    chunk=st.integers(1, 5),
    chunks_per_shard=st.integers(1, 4),
    piece=st.integers(1, 40),
    zeros=st.booleans(),
)
def test_the_bytes_are_those_of_zarr(
    tmp_path_factory, dtype, n_rows, rest, chunk, chunks_per_shard, piece, zeros
):
    """Whatever the type, the shape, the chunks, and the pieces in which the rows come."""
    folder = tmp_path_factory.mktemp("stores")
    values = np.random.default_rng(n_rows).integers(0, 2 if zeros else 100, (n_rows, *rest)).astype(dtype)
    shard = chunk * chunks_per_shard
    attributes = {"names": ["x", "y"]}
    _by_zarr(folder / "zarr", "data/a.b/c", values, chunk, shard, attributes)
    ZarrFiles(folder / "ours", {"ä": 1, "b": [1.5, None]}).sharded_array(
        "data/a.b/c",
        (values[start : start + piece] for start in range(0, n_rows, piece)),
        shape=values.shape,
        dtype=values.dtype,
        chunk=chunk,
        shard=shard,
        attributes=attributes,
    )
    assert _files(folder / "ours") == _files(folder / "zarr")
    array: Any = zarr.open_group(str(folder / "ours"), mode="r")["data/a.b/c"]
    assert np.array_equal(array[...], values)
    found = read_sharded(folder / "ours/data/a.b/c")
    assert found is not None
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(("shape", "chunk"), [((10,), 4), ((0,), 1)])
def test_an_array_whose_chunks_are_in_place_is_described_as_zarr_does(tmp_path, shape, chunk):
    """Uncompressed bytes, as of frames."""
    group = zarr.create_group(str(tmp_path / "zarr"), zarr_format=3)
    group.create_array(
        "images/bytes", shape=shape, dtype=np.uint8, chunks=(chunk,), compressors=None, fill_value=0
    )
    ZarrFiles(tmp_path / "ours", {}).plain_array(
        "images/bytes", shape=shape, dtype=np.dtype(np.uint8), chunk=chunk
    )
    assert _files(tmp_path / "ours") == _files(tmp_path / "zarr")


def test_a_chunk_that_is_missing_in_a_full_shard_is_never_written(tmp_path):
    """Zeros are written like everything else: a hole in the index means damage."""
    ZarrFiles(tmp_path, {}).sharded_array(
        "a", [np.zeros(8, np.int64)], shape=(8,), dtype=np.dtype(np.int64), chunk=2, shard=8
    )
    index = np.frombuffer((tmp_path / "a/c/0").read_bytes()[-68:-4], dtype="<u8").reshape(4, 2)
    assert (index < 1 << 20).all()


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_shard_is_never_taken_for_a_sound_one(tmp_path_factory, place, bit, cut):
    """A flipped bit or a missing end is left to zarr; a bit that zstd has no use for changes nothing."""
    folder = tmp_path_factory.mktemp("stores")
    values = np.random.default_rng(0).normal(size=(20, 3))
    ZarrFiles(folder, {}).sharded_array(
        "a", [values], shape=values.shape, dtype=values.dtype, chunk=4, shard=12
    )
    file = folder / "a/c/0/0"
    data = bytearray(file.read_bytes())
    if cut:
        del data[place % len(data) :]
    else:
        data[place % len(data)] ^= 1 << bit
    file.write_bytes(data)
    found = read_sharded(folder / "a")
    assert found is None or (not cut and np.array_equal(found, values))


def test_an_array_of_another_program_is_left_to_zarr(tmp_path):
    """Other codecs, a chunk that is not there, no array at all."""
    group = zarr.create_group(str(tmp_path), zarr_format=3)
    group.create_array("plain", data=np.arange(5))
    _by_zarr(tmp_path / "holes", "a", np.zeros((8, 2)), 2, 4, {})
    (tmp_path / "holes/a/c/1/0").unlink()
    assert [read_sharded(tmp_path / name) for name in ("plain", "holes/a", "nothing")] == [None] * 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"shape": [\n    20', '"shape": [\n    9000000000000000'),
        ('"shape": [\n    20', '"shape": [\n    -1'),
        ('"chunk_shape": [\n          4', '"chunk_shape": [\n          0'),
        ('"chunk_shape": [\n        12', '"chunk_shape": [\n        0'),
        ('"float64"', '"object"'),
        ('"float64"', '["float64"]'),
        ("{", "["),
        ('"node_type": "array"', '"node_type": "group"'),
    ],
)
def test_damaged_metadata_is_left_to_zarr(tmp_path, old, new):
    """Sizes that cannot be, types that are none, broken JSON."""
    values = np.zeros((20, 3))
    ZarrFiles(tmp_path, {}).sharded_array(
        "a", [values], shape=values.shape, dtype=values.dtype, chunk=4, shard=12
    )
    file = tmp_path / "a/zarr.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert read_sharded(tmp_path / "a") is None
