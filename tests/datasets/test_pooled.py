"""Statistics of several stores together."""

from pathlib import Path

import numpy as np
import pytest

from robot_datasets.edit import apply, merge, split
from robot_datasets.errors import DatasetError
from robot_datasets.pooled import pooled_stats
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import write_example_store


def test_they_are_those_of_the_merged_store(tmp_path: Path) -> None:
    """Numbers and images of two stores together have the statistics of one store with all episodes."""
    stores = [write_example_store(tmp_path / f"{i}.zarr", [5, 4 + i], image_size=8, seed=i) for i in range(2)]
    apply(merge(stores), tmp_path / "merged.zarr")
    merged = EpisodeStore.open(tmp_path / "merged.zarr")
    for name in merged.features:
        np.testing.assert_allclose(
            pooled_stats(stores, name).to_array(), merged.stats(name).to_array(), rtol=1e-12
        )


def test_only_one_split_counts(tmp_path: Path) -> None:
    """Marked episodes alone are taken; without any it is an error."""
    store = write_example_store(tmp_path / "s.zarr", [5, 4, 6])
    train, val = split(store, val_ratio=0.3)
    apply(train, tmp_path / "train.zarr")
    apply(val, tmp_path / "val.zarr")
    parts = [EpisodeStore.open(tmp_path / f"{name}.zarr") for name in ("train", "val")]
    np.testing.assert_array_equal(
        pooled_stats(parts, "action", split="val").to_array(), parts[1].stats("action").to_array()
    )
    with pytest.raises(DatasetError, match="is marked 'val'"):
        pooled_stats([store], "action", split="val")


def test_features_must_be_there(tmp_path: Path) -> None:
    """A store without the feature is named, with the nearest one it has."""
    store = write_example_store(tmp_path / "s.zarr", [3])
    with pytest.raises(DatasetError, match="did you mean 'action'"):
        pooled_stats([store], "acton")
