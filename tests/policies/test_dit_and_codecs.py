"""Parts of the video policies: the diffusion transformer and the codecs of frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_policies.configuration import ConfigError
from robot_policies.networks.codecs import codecs, to_frames, to_unit
from robot_policies.networks.dit import (
    Dit,
    DitConfig,
    DitHead,
    grid_positions,
    init_dit,
    patchify,
    unpatchify,
)

SMALL = DitConfig(width=16, n_layers=2, n_heads=2)


def codec(name: str, shape: tuple[int, int, int] = (3, 16, 16), **options):
    return codecs.build({"type": name, **options}, where="codec", image_shape=shape)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 4]))
def test_patches_are_undone(channels: int, rows: int, columns: int, patch: int) -> None:
    """`unpatchify` inverts `patchify`, and a patch holds one square of the image."""
    x = torch.arange(2 * channels * rows * columns * patch * patch).float()
    x = x.view(2, channels, rows * patch, columns * patch)
    tokens = patchify(x, patch)
    assert tokens.shape == (2, rows * columns, channels * patch * patch)
    torch.testing.assert_close(unpatchify(tokens, (channels, rows * patch, columns * patch), patch), x)
    torch.testing.assert_close(tokens[0, -1], x[0, :, -patch:, -patch:].flatten())


def test_blocks_start_as_the_identity() -> None:
    """adaLN-zero: before training, tokens pass unchanged and the head says 0, whatever the condition."""
    dit, head = Dit(SMALL, 8), DitHead(16, 8, 5)
    init_dit(dit)
    init_dit(head)
    x, condition = torch.randn(3, 7, 16), torch.randn(3, 8)
    torch.testing.assert_close(dit(x, condition), x)
    assert (head(x, condition) == 0).all()


@settings(max_examples=15)
@given(st.integers(2, 6), st.integers(0, 99))
def test_a_token_depends_only_on_those_it_may_attend_to(n: int, seed: int) -> None:
    """The mask holds through all layers of a chain: what is not reachable has no influence."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    dit = Dit(SMALL, 8).eval()
    allowed = torch.eye(n, dtype=torch.bool) | (torch.rand(n, n, generator=generator) < 0.3)
    reachable = torch.linalg.matrix_power(allowed.float(), SMALL.n_layers) > 0
    x, condition = torch.randn(1, n, 16, generator=generator), torch.randn(1, 8, generator=generator)
    base = dit(x, condition, allowed)
    for changed in range(n):
        other = x.clone()
        other[:, changed] += 1
        moved = (dit(other, condition, allowed) - base).abs().amax(dim=-1)[0] > 1e-6
        assert not (moved & ~reachable[:, changed]).any()
        assert moved[changed]


def test_positions_tell_patches_apart() -> None:
    """No two patches of a grid have the same position, for any width."""
    for dim in (8, 10, 16):
        positions = grid_positions(5, 4, dim)
        assert positions.shape == (20, dim)
        assert torch.cdist(positions, positions).add(torch.eye(20)).min() > 1e-3


def test_pixels_come_back() -> None:
    """Frames of the codec's own size survive exactly; larger ones are averaged."""
    frames = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    same = codec("pixels")
    torch.testing.assert_close(same.decode(same.encode(frames)), frames)
    half = codec("pixels", size=8)
    assert half.latent_shape == (3, 8, 8)
    expected = frames.float().view(2, 3, 8, 2, 8, 2).mean(dim=(3, 5))
    assert (half.decode(half.encode(frames)).float() - expected).abs().max() <= 0.51


def test_the_autoencoder_learns_to_reconstruct() -> None:
    """Sixty steps on smooth frames at least halve the error; latents stay within [-1, 1]."""
    torch.manual_seed(0)
    ae = codec("conv", width=8)
    assert ae.latent_shape == (4, 2, 2)
    axis = torch.linspace(-1, 1, 16)
    places = torch.rand(32, 2) * 2 - 1
    blobs = (
        (axis[None, None, :] - places[:, :1, None]) ** 2 + (axis[None, :, None] - places[:, 1:, None]) ** 2
    ) < 0.3
    frames = (blobs[:, None].expand(-1, 3, -1, -1) * 255).to(torch.uint8)
    optimiser = torch.optim.Adam(ae.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = ae.loss(frames)
        assert loss is not None
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    latents = ae.encode(frames)
    assert latents.abs().max() <= 1
    assert not latents.requires_grad
    assert ae.decode(latents).shape == frames.shape


def test_a_pretrained_autoencoder_is_read_from_its_folder(tmp_path) -> None:
    """Its weights are not the policy's: no parameters, nothing in the state; latents have its shape."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    sizes: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "latent_channels": 2,
    }
    vae = AutoencoderKL(**sizes)
    vae.save_pretrained(str(tmp_path / "vae"))
    built = codec("autoencoder_kl", path=str(tmp_path / "vae"), channels=2, factor=2)
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    latents = built.encode(frames)
    assert latents.shape == (3, 2, 8, 8)
    assert built.decode(latents).shape == frames.shape
    assert list(built.parameters()) == []
    assert built.state_dict() == {}
    wrong = codec("autoencoder_kl", path=str(tmp_path / "vae"))
    with pytest.raises(ConfigError, match="makes latents"):
        wrong.encode(frames)
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        codec("autoencoder_kl", path=str(tmp_path / "absent")).encode(frames)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pixel", {}, "did you mean 'pixels'"),
        ("conv", {"size": 20}, "20 is not divisible by 8"),
        ("autoencoder_kl", {"path": "x", "size": 4}, "4 is not divisible by 8"),
    ],
)
def test_impossible_codecs_are_explained(name: str, options: dict, message: str) -> None:
    """Before any frame is seen."""
    with pytest.raises(ConfigError, match=message):
        codec(name, **options)


def test_units_are_undone() -> None:
    """uint8 to [-1, 1] and back is exact."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    unit = to_unit(values, (16, 16))
    assert (unit.min(), unit.max()) == (-1, 1)
    torch.testing.assert_close(to_frames(unit), values)
