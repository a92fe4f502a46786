"""Frames brought to one size."""

import numpy as np
import pytest

from robot_datasets.errors import DatasetError
from robot_datasets.image_fit import fit_image


@pytest.mark.parametrize("size", [(24, 24), (10, 40), (96, 128), (48, 64), (7, 5)])
def test_a_frame_fills_its_new_size_in_proportion(size: tuple[int, int]) -> None:
    """The picture touches two opposite edges, keeps its mean, and what is left is black on both sides."""
    fitted = fit_image(np.full((48, 64, 3), 200, np.uint8), size)
    assert fitted.shape == (*size, 3)
    seen = fitted[..., 0] > 0
    rows, columns = np.asarray(seen.any(axis=1)), np.asarray(seen.any(axis=0))
    assert rows.all() or columns.all()
    scale = min(size[0] / 48, size[1] / 64)
    assert (rows.sum(), columns.sum()) == (max(1, round(48 * scale)), max(1, round(64 * scale)))
    assert abs(int(rows.argmax()) - int(rows[::-1].argmax())) <= 1
    assert fitted[seen].min() >= 198


def test_colours_are_averaged() -> None:
    """A fine pattern becomes its mean, not one of its two colours."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    fitted = fit_image(np.repeat(board[..., None], 3, axis=2), (16, 16))
    assert abs(float(fitted.mean()) - 127.5) < 2
    assert fitted.std() < 3


def test_channels_stay_in_order() -> None:
    """Red stays red."""
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 250
    fitted = fit_image(red, (10, 10))
    assert fitted[..., 0].min() > 245
    assert fitted[..., 1:].max() < 5


def test_depth_is_never_mixed() -> None:
    """Every distance in the new frame is one of the old frame."""
    depth = np.where(np.arange(40)[None, :, None] < 20, 500, 3000).astype(np.uint16).repeat(30, axis=0)
    assert set(np.unique(fit_image(depth, (13, 17)))) <= {0, 500, 3000}


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    """Nothing is computed where nothing changes."""
    frame = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    assert fit_image(frame, (12, 16)) is frame


def test_other_arrays_are_refused() -> None:
    """Floating-point pictures and pictures with an alpha channel are no frames."""
    with pytest.raises(DatasetError, match="expected uint8"):
        fit_image(np.zeros((4, 4, 4), np.uint8), (2, 2))
