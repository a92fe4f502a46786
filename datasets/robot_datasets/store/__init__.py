"""The episode store: one directory per dataset, zarr v3 with memory-mappable images. See docs/episode-store.md."""

from robot_datasets.store.reader import EpisodeStore
from robot_datasets.store.writer import EpisodeStoreWriter

__all__ = ["EpisodeStore", "EpisodeStoreWriter"]
