"""Uncompressed frames: packed as they came, unpacked to the right pixels, and seen so by the policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robot_datasets.errors import DatasetError
from robot_datasets.features import STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_deploy.inference.block import ObservationBlock
from robot_deploy.observation.raw_image import frame_pixels, is_raw, pack_raw

PIXELS = np.random.default_rng(0).integers(
    0, 255, (64, 96, 3), dtype=np.uint8
)  # a smaller one is one point to the encoder
PNG, RAW = "observation.images.png", "observation.images.raw"


def message(pixels: np.ndarray, encoding: str, *, padding: int = 0) -> SimpleNamespace:
    """An Image as a node receives it; `padding` bytes stand at the end of each row."""
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)))
    return SimpleNamespace(
        height=height,
        width=width,
        step=rows.shape[1],
        encoding=encoding,
        is_bigendian=0,
        data=rows.reshape(-1),
    )


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize(
    ("encoding", "sent", "seen"),
    [
        ("rgb8", PIXELS, PIXELS),
        ("bgr8", PIXELS[..., ::-1], PIXELS),
        ("rgba8", np.dstack([PIXELS, PIXELS[..., 0]]), PIXELS),
        ("mono8", PIXELS[..., :1], PIXELS[..., :1].repeat(3, axis=2)),
    ],
)
def test_pixels_survive(encoding: str, sent: np.ndarray, seen: np.ndarray, padding: int):
    """Order of channels, alpha, grey and padded rows."""
    frame = pack_raw(message(sent, encoding, padding=padding))
    assert is_raw(frame)
    np.testing.assert_array_equal(frame_pixels(frame), seen)


def test_what_is_no_frame_is_refused():
    """Another encoding, a truncated frame, a head without pixels, an encoding that there is not."""
    with pytest.raises(DatasetError, match="yuv422"):
        pack_raw(message(PIXELS, "yuv422"))
    frame = pack_raw(message(PIXELS, "rgb8"))
    with pytest.raises(DatasetError, match="truncated"):
        frame_pixels(frame[:-1])
    with pytest.raises(DatasetError, match="ends inside"):
        frame_pixels(frame[:12])
    with pytest.raises(DatasetError, match="number 99"):
        frame_pixels(frame[:20] + bytes([99]) + frame[21:])
    png = encode_frame(PIXELS, "png")
    assert not is_raw(png)
    np.testing.assert_array_equal(frame_pixels(png), PIXELS)


def test_the_policy_sees_the_pixels(tmp_path: Path, make_still: Callable[..., Path]):
    """The inference's own server, given a PNG and a raw frame, answers as the policy does for the pixels themselves."""
    import torch

    from robot_deploy.inference.worker import PolicyServer
    from robot_policies.checkpoint import load_policy

    state, action = (Feature(dtype="float32", shape=(2,), names=("a", "b"), units=("rad",)) for _ in range(2))
    image = Feature(dtype="uint8", shape=PIXELS.shape)
    config = {
        "policy": {
            "type": "regression",
            "network": {"type": "mlp", "width": 16, "n_blocks": 1, "expansion": 1, "step_embed_dim": 8},
            "image_encoder": {"type": "resnet"},
        }
    }
    observation = {STATE: state, PNG: image, RAW: image}
    folder = make_still(tmp_path / "checkpoint", config, observation, action, np.zeros(2))
    server = PolicyServer(
        {"checkpoint": str(folder), "embodiment": None, "device": "cpu", "threads": 0, "sampler": None, "seed": 0,
         "instruction": "", "executor": None}
    )  # fmt: skip
    about = {"source": "camera", "min_contrast": 3.0, "resize": False}
    max_bytes: dict[str, int] = {PNG: 32_768, RAW: 32_768}
    block = ObservationBlock(server.spec, max_bytes)
    server.attach({"max_bytes": max_bytes, "images": dict.fromkeys((PNG, RAW), about)}, block.descriptor)
    seen = {name: np.stack([PIXELS, np.roll(PIXELS, shift, axis=0)]) for name, shift in ((PNG, 1), (RAW, 2))}
    for name, frames in seen.items():
        for row, pixels in enumerate(frames):
            frame = encode_frame(pixels, "png") if name == PNG else pack_raw(message(pixels, "rgb8"))
            block.arrays[name][row, : len(frame)] = np.frombuffer(frame, np.uint8)
            block.arrays[f"{name}/sizes"][row] = len(frame)
    block.arrays[STATE][...] = 0.1
    assert "predict_ms" in server.answer({"ticket": 1, "limit": None})
    given = {
        name: torch.from_numpy(frames.transpose(0, 3, 1, 2)[None].copy()) for name, frames in seen.items()
    }
    given[STATE] = torch.full((1, 2, 2), 0.1)
    policy = load_policy(folder).policy
    with torch.inference_mode():
        expected = policy.predict_chunk(given).actions[0].numpy()
        other = policy.predict_chunk({**given, RAW: given[PNG]}).actions[0].numpy()
    np.testing.assert_array_equal(block.arrays["chunk"], expected)
    assert np.abs(other - expected).max() > 1e-7, "one pixel row further is another chunk"
    block.close()
