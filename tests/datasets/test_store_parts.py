"""Episodes that other processes took in: the same store, whatever the files they were left in held before."""

import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.store.parts import EpisodePart, PartWriter
from robot_datasets.testing import (
    EXAMPLE_IMAGE,
    example_episodes,
    example_features,
    tree_digest,
    write_example_store,
)

LENGTHS = [5, 9, 2, 7]


def open_writer(path: Path, *, image_chunk_bytes: int = 1 << 20) -> EpisodeStoreWriter:
    return EpisodeStoreWriter(
        path,
        features=example_features(image_size=8),
        fps=10.0,
        embodiment="example",
        image_chunk_bytes=image_chunk_bytes,
    )


def test_parts_give_the_same_bytes_as_episodes(tmp_path: Path) -> None:
    """Folders are used again for shorter episodes, and frames cross the ends of payload files."""
    with open_writer(tmp_path / "direct.zarr", image_chunk_bytes=700) as writer:
        for episode in example_episodes(LENGTHS, image_size=8):
            writer.add_episode(episode)
        writer.publish()
    with open_writer(tmp_path / "parts.zarr", image_chunk_bytes=700) as writer:
        folder = writer.parts_folder()
        parts = PartWriter(writer.spec)
        for number, episode in enumerate(example_episodes(LENGTHS, image_size=8)):
            writer.add_parts([parts.write(episode, folder / str(number % 2))])
        writer.publish()
    assert tree_digest(tmp_path / "parts.zarr") == tree_digest(tmp_path / "direct.zarr")
    assert not (tmp_path / "parts.zarr.staging").exists()


def test_episodes_and_those_left_out_are_added_together_in_order(tmp_path: Path) -> None:
    """One call adds several events; their order is the journal's."""
    with open_writer(tmp_path / "s.zarr") as writer:
        folder = writer.parts_folder()
        parts = PartWriter(writer.spec)
        written = [
            parts.write(e, folder / str(i)) for i, e in enumerate(example_episodes([3, 4], image_size=8))
        ]
        writer.add_parts([written[0], EpisodePart.left_out("broken", "no steps"), written[1]])
        assert (writer.n_episodes, writer.n_steps, writer.quarantined) == (2, 7, {"broken": "no steps"})
        writer.publish()
    store = EpisodeStore.open(tmp_path / "s.zarr")
    assert store.episodes["source_id"] == ["episode_0000", "episode_0001"]
    assert store.quarantined == {"broken": "no steps"}


def test_a_part_that_is_cut_short_adds_nothing(tmp_path: Path) -> None:
    """If a file holds less than was reported, neither its episode nor those before it in the call count."""
    write_example_store(tmp_path / "expected.zarr", LENGTHS[:1], image_size=8)
    with open_writer(tmp_path / "s.zarr", image_chunk_bytes=128 << 20) as writer:
        folder = writer.parts_folder()
        parts = PartWriter(writer.spec)
        episodes = list(example_episodes(LENGTHS, image_size=8))
        writer.add_episode(episodes[0])
        written = [parts.write(episode, folder / episode.source_id) for episode in episodes[1:]]
        os.truncate(written[1].images(EXAMPLE_IMAGE), 10)
        with pytest.raises(OSError, match="ends after 10 bytes"):
            writer.add_parts(written)
        assert writer.n_episodes == 1
        writer.publish()
    assert tree_digest(tmp_path / "s.zarr") == tree_digest(tmp_path / "expected.zarr")


def test_an_unusable_episode_is_refused_where_it_is_taken_in(tmp_path: Path) -> None:
    """The process that reads an episode says what is wrong with it."""

    def frames() -> Iterator[bytes]:
        yield b"no image"

    with open_writer(tmp_path / "s.zarr") as writer:
        parts = PartWriter(writer.spec)
        episode = next(example_episodes([1], image_size=8))
        episode.images[EXAMPLE_IMAGE] = frames()
        with pytest.raises(EpisodeError, match="neither JPEG nor PNG"):
            parts.write(episode, writer.parts_folder() / "0")


@pytest.mark.parametrize("write", [0, 1, 2], ids=["frames", "rows", "journal"])
def test_a_disk_that_fills_up_leaves_no_half_event(
    write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write the disk takes only half of, going on afterwards gives the same store."""
    write_example_store(tmp_path / "expected.zarr", LENGTHS, image_size=8)
    episodes = list(example_episodes(LENGTHS, image_size=8))
    again = list(example_episodes(LENGTHS, image_size=8))
    with open_writer(tmp_path / "s.zarr", image_chunk_bytes=128 << 20) as writer:
        for number, (episode, retried) in enumerate(zip(episodes, again, strict=True)):
            if number == 2:  # the one of two steps
                _add_on_full_disk(writer, episode, write, monkeypatch)
                episode = retried
            writer.add_episode(episode)
        writer.publish()
    assert tree_digest(tmp_path / "s.zarr") == tree_digest(tmp_path / "expected.zarr")


def _add_on_full_disk(
    writer: EpisodeStoreWriter, episode: Episode, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0

    def half_write(file: FileIO, data: bytes) -> None:
        nonlocal writes
        if writes == failing:
            file.write(memoryview(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(data)
        writes += 1

    with monkeypatch.context() as patch:
        for module in ("blob", "rows", "journal"):
            patch.setattr(f"robot_datasets.store.{module}.write_all", half_write)
        with pytest.raises(OSError, match="No space left"):
            writer.add_episode(episode)
    assert writes == failing
