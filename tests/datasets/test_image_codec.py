"""Encoded frames: pixels come back exactly, whoever wrote the PNG, and damage is an error."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import decode_frame, encode_frame, frame_size


def _picture(height: int, width: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return (noise + 2 * np.arange(width)[None, :, None]).astype(np.uint8)


def _png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


@given(height=st.integers(1, 40), width=st.integers(1, 40), level=st.integers(0, 9), view=st.booleans())
def test_any_png_of_8_bit_colour_comes_back(height: int, width: int, level: int, view: bool) -> None:
    """Sizes down to one pixel, every compression level, bytes and views of bytes."""
    pixels = _picture(height, width, seed=level)
    frame = _png(Image.fromarray(pixels), compress_level=level)
    np.testing.assert_array_equal(decode_frame(memoryview(frame) if view else frame), pixels)
    out = np.empty_like(pixels)
    assert decode_frame(frame, out=out) is out
    np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_other_kinds_of_png_become_colour(mode: str) -> None:
    """Palettes, transparency and bitmaps decode to what Pillow makes of them."""
    image = Image.fromarray(_picture(12, 20, seed=0)).convert(mode)
    np.testing.assert_array_equal(decode_frame(_png(image)), np.asarray(image.convert("RGB")))


def test_grey_and_depth_keep_one_channel() -> None:
    """8-bit grey stays 8 bit; 16-bit depth stays 16 bit."""
    grey = _picture(12, 20, seed=1)[..., 0]
    decoded = decode_frame(_png(Image.fromarray(grey)))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded[..., 0], grey)
    depth = np.random.default_rng(0).integers(0, 65536, (12, 20, 1)).astype(np.uint16)
    decoded = decode_frame(encode_frame(depth, "png"))
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, depth)


@given(data=st.data())
def test_a_damaged_png_is_an_error_or_unharmed(data: st.DataObject) -> None:
    """A frame that is cut short, or whose compressed pixels have a flipped bit, never decodes to other pixels."""
    pixels = _picture(30, 40, seed=2)
    frame = bytearray(encode_frame(pixels, "png"))
    if data.draw(st.booleans()):
        del frame[data.draw(st.integers(0, len(frame) - 20)) :]
    else:
        start = frame.index(b"IDAT") + 4
        frame[data.draw(st.integers(start, len(frame) - 20))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = decode_frame(bytes(frame))
    except DatasetError as error:
        assert "copy it again" in str(error) or "neither JPEG nor PNG" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(decoded, pixels)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_size_of_a_jpeg_is_that_of_its_own_header(data: st.DataObject) -> None:
    """Whatever frames were looked at before, of other sizes, with other tables, progressive or cut short."""
    random = np.random.default_rng(0)
    frames = []
    for height, width, options in [
        (24, 32, {}),
        (32, 24, {}),
        (24, 32, {"quality": 30}),
        (16, 48, {"progressive": True}),
        (48, 16, {"optimize": True}),
    ]:
        buffer = io.BytesIO()
        pixels = random.integers(0, 255, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, format="JPEG", **options)
        frames.append((buffer.getvalue(), (height, width)))
    for _ in range(8):
        frame, size = data.draw(st.sampled_from(frames))
        length = data.draw(st.sampled_from([len(frame), *range(2, 700, 7)]))
        seen = memoryview(frame)[:length] if data.draw(st.booleans()) else frame[:length]
        try:
            found = frame_size(seen)
        except DatasetError:
            assert length < len(frame)
        else:
            assert found == size


def test_the_known_size_is_forgotten_with_a_changed_header() -> None:
    """The same header but for its height is another header."""
    frame = encode_frame(np.zeros((24, 32, 3), np.uint8), "jpeg")
    assert frame_size(frame) == (24, 32)
    place = frame.index(b"\xff\xc0") + 5
    assert frame_size(frame[:place] + (40).to_bytes(2, "big") + frame[place + 2 :]) == (40, 32)
    assert frame_size(frame) == (24, 32)
