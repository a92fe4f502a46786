"""Frames whose red and blue are exchanged in the source: bytes stay as they are, colours come out right."""

from pathlib import Path

import numpy as np
import pytest

from robot_datasets.check import check_store
from robot_datasets.convert import convert
from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX, Feature
from robot_datasets.image_codec import JPEG_BGR, decode_frame, encode_frame, sniff_encoding
from robot_datasets.importers.lerobot import LeRobot
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter

CAMERA = IMAGE_PREFIX + "top"
SIZE = (16, 32)
N_STEPS = 8


def _scene(step: int) -> np.ndarray:
    """A red apple on the left of a blue plate; unmistakable when red and blue are exchanged."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, :16] = (220, 10 * step, 20)
    pixels[:, 16:] = (20, 40, 200)
    return pixels


def _exchanged(step: int, encoding: str = "jpeg") -> bytes:
    return encode_frame(np.ascontiguousarray(_scene(step)[..., ::-1]), encoding)


def _write(path: Path, frames: list[bytes]) -> EpisodeStore:
    features = {
        ACTION: Feature(dtype="float32", shape=(1,), names=("x",), units=("m",)),
        CAMERA: Feature(dtype="uint8", shape=(*SIZE, 3)),
    }
    with EpisodeStoreWriter(
        path, features=features, fps=10, embodiment="", image_encodings={CAMERA: JPEG_BGR}
    ) as writer:
        writer.add_episode(Episode("a", {ACTION: np.zeros((len(frames), 1), np.float32)}, {CAMERA: frames}))
        writer.publish()
    return EpisodeStore.open(path)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """A store of exchanged frames: JPEG, but for one PNG."""
    frames = [_exchanged(step) for step in range(N_STEPS)]
    frames[3] = _exchanged(3, "png")
    return _write(tmp_path / "store.zarr", frames)


def test_bytes_are_those_of_the_source_and_colours_are_right(store: EpisodeStore) -> None:
    """Nothing is encoded anew, and decoding gives the red apple, for JPEG and PNG frames alike."""
    column = store.images(CAMERA)
    for step in range(N_STEPS):
        assert bytes(column.encoded(step)) == _exchanged(step, "png" if step == 3 else "jpeg")
    decoded = column.decode(np.arange(N_STEPS)).astype(int)
    expected = np.stack([_scene(step) for step in range(N_STEPS)])
    assert np.abs(decoded[:, :, 2:14] - expected[:, :, 2:14]).max() < 12
    assert np.abs(decoded[:, :, 18:] - expected[:, :, 18:]).max() < 12
    np.testing.assert_array_equal(decoded[3], expected[3])


def test_statistics_are_of_the_right_colours(store: EpisodeStore) -> None:
    """The means per channel are those of the scene, and the check finds nothing wrong."""
    mean = store.stats(CAMERA).mean
    np.testing.assert_allclose(mean, [120, 37, 110], atol=8)
    assert check_store(store).problems == []


@pytest.mark.parametrize("images", ["image", "video"])
def test_exports_have_the_right_colours(store: EpisodeStore, tmp_path: Path, images: str) -> None:
    """LeRobot's readers know nothing of exchanged channels, so what they get is standard."""
    export(store, tmp_path / "lerobot", format="lerobot-v3", options={"images": images})
    convert(tmp_path / "lerobot", tmp_path / "back.zarr", format=LeRobot())
    back = EpisodeStore.open(tmp_path / "back.zarr").images(CAMERA)
    assert back.encoding != JPEG_BGR
    pixels = back.decode([2])[0].astype(int)
    assert np.abs(pixels[4:12, 4:12] - _scene(2)[4:12, 4:12]).max() < 30
    assert np.abs(pixels[4:12, 20:28] - _scene(2)[4:12, 20:28]).max() < 30


def test_exported_tables_hold_lossless_frames(store: EpisodeStore) -> None:
    """A frame that had to be put right is encoded without loss."""
    from robot_datasets.store.frames import standard_frame

    column = store.images(CAMERA)
    frame = standard_frame(column.encoded(1), column.feature, column.encoding)
    assert sniff_encoding(frame) == "png"
    np.testing.assert_array_equal(decode_frame(frame), column.decode([1])[0])


def test_depth_has_no_channel_order(tmp_path: Path) -> None:
    """Declaring depth as exchanged is an error, not ignored."""
    features = {
        ACTION: Feature(dtype="float32", shape=(1,)),
        DEPTH_PREFIX + "top": Feature(dtype="uint16", shape=(4, 4, 1)),
    }
    with pytest.raises(DatasetError, match="jpeg_bgr, which is for colour"):
        EpisodeStoreWriter(
            tmp_path / "s.zarr",
            features=features,
            fps=1,
            embodiment="",
            image_encodings={DEPTH_PREFIX + "top": JPEG_BGR},
        )
