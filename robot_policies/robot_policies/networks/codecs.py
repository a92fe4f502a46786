"""Codecs: from camera frames to the latents that a video model denoises, and back.

A latent is (C, h, w) with values of about [-1, 1]. Three choices, by what is at hand:

``pixels``          the frame itself, shrunk; no training, exact at its resolution
``conv``            a small convolutional autoencoder, trained with the policy on its own reconstruction error;
                    the policy's other losses do not reach it, so that latents cannot become trivial to predict
``autoencoder_kl``  a frozen AutoencoderKL of Hugging Face diffusers (Stable Diffusion's) from a folder on this
                    machine; its weights are not part of a checkpoint, the path is
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_policies.configuration import ConfigError, Registry

Shape = tuple[int, int, int]


class Codec(nn.Module, ABC):
    """One camera's codec.

    Attributes:
        latent_shape: (C, h, w) of a frame's latent.
        image_shape: (channels, height, width) of the frames it takes.
        decoded_size: Height and width of decoded frames.
    """

    latent_shape: Shape
    decoded_size: tuple[int, int]

    def __init__(self, image_shape: Shape) -> None:
        super().__init__()
        self.image_shape = image_shape

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Frames (N, channels, height, width) uint8 to latents (N, C, h, w), without gradients."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) to frames (N, channels, *decoded_size) uint8."""

    def loss(self, images: Tensor) -> Tensor | None:
        """What the codec learns from frames of a batch; None if it does not learn."""
        return None


codecs: Registry[Codec] = Registry("codec")


def to_unit(images: Tensor, size: tuple[int, int], max_value: float = 255.0) -> Tensor:
    """Frames (N, C, H, W) of integers to float in [-1, 1] of another size, by area averaging.

    Values above `max_value` (depth beyond what matters) become 1.
    """
    x = (images.float() / (max_value / 2) - 1.0).clamp(max=1.0)
    return x if tuple(x.shape[-2:]) == size else F.interpolate(x, size, mode="area")


def to_frames(x: Tensor) -> Tensor:
    """Float in [-1, 1] to uint8."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _check_divisible(name: str, size: int, by: int) -> None:
    if size % by or size < by:
        raise ConfigError(f"policy.codec.{name}: {size} is not divisible by {by}")


@dataclass(frozen=True, kw_only=True)
class PixelCodecConfig:
    """Options of a `PixelCodec`.

    Attributes:
        size: Frames are shrunk to `size` x `size`; null keeps their size.
        max_value: What becomes 1: 255 for colour, the largest depth that matters for depth [its unit].
    """

    size: int | None = None
    max_value: float = 255.0


class PixelCodec(Codec):
    """The shrunk frame is its own latent."""

    def __init__(self, config: PixelCodecConfig, image_shape: Shape) -> None:
        super().__init__(image_shape)
        channels, height, width = image_shape
        if config.size is not None:
            height = width = config.size
        self.max_value = config.max_value
        self.decoded_size = (height, width)
        self.latent_shape = (channels, height, width)

    def encode(self, images: Tensor) -> Tensor:
        """Shrink and scale."""
        return to_unit(images, self.decoded_size, self.max_value)

    def decode(self, latents: Tensor) -> Tensor:
        """Scale back."""
        return to_frames(latents)


@dataclass(frozen=True, kw_only=True)
class ConvCodecConfig:
    """A convolutional autoencoder.

    Attributes:
        size: Frames are shrunk to `size` x `size` first; null keeps their size.
        channels: Channels of the latent.
        width: Channels of the first stage; later ones have twice as many.
        stages: Each halves the resolution.
        noise: Standard deviation of noise on latents while the decoder learns, which keeps nearby latents alike.
    """

    size: int | None = None
    channels: int = 4
    width: int = 32
    stages: int = 3
    noise: float = 0.05


class ConvCodec(Codec):
    """Strided convolutions to a tanh, upsampling ones back."""

    def __init__(self, config: ConvCodecConfig, image_shape: Shape) -> None:
        super().__init__(image_shape)
        channels, height, width = image_shape
        if config.size is not None:
            height = width = config.size
        factor = 2**config.stages
        _check_divisible("size", height, factor)
        _check_divisible("size", width, factor)
        self.noise = config.noise
        self.decoded_size = (height, width)
        self.latent_shape = (config.channels, height // factor, width // factor)
        widths = [config.width] + [2 * config.width] * (config.stages - 1)
        down: list[nn.Module] = []
        for n_in, n_out in zip([channels, *widths[:-1]], widths, strict=True):
            down += [nn.Conv2d(n_in, n_out, 4, 2, 1), nn.GroupNorm(8, n_out), nn.SiLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], config.channels, 3, 1, 1), nn.Tanh())
        up: list[nn.Module] = [nn.Conv2d(config.channels, widths[-1], 3, 1, 1), nn.SiLU()]
        for n_in, n_out in zip(widths[::-1], [*widths[-2::-1], config.width], strict=True):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, 1, 1)]
            up += [nn.GroupNorm(8, n_out), nn.SiLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(config.width, channels, 3, 1, 1))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode."""
        return self.encoder(to_unit(images, self.decoded_size)).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode."""
        return to_frames(self.decoder(latents))

    def loss(self, images: Tensor) -> Tensor:
        """Mean squared error of reconstructed frames, in [-1, 1]."""
        x = to_unit(images, self.decoded_size)
        latents = self.encoder(x)
        return F.mse_loss(self.decoder(latents + self.noise * torch.randn_like(latents)).float(), x)


@dataclass(frozen=True, kw_only=True)
class AutoencoderKlConfig:
    """A pretrained AutoencoderKL.

    Attributes:
        path: Folder with ``config.json`` and weights, as diffusers writes it. Nothing is downloaded.
        size: Frames are resized to `size` x `size` first; null keeps their size.
        channels: Channels of its latent.
        factor: How much smaller a latent is than its frame, along one side.
        divide: Latents, scaled to unit variance by its own factor, are divided by so much to lie in about
            [-1, 1] (3 in UWM).
    """

    path: str
    size: int | None = None
    channels: int = 4
    factor: int = 8
    divide: float = 3.0


class AutoencoderKlCodec(Codec):
    """Stable Diffusion's autoencoder, read when it is first needed."""

    def __init__(self, config: AutoencoderKlConfig, image_shape: Shape) -> None:
        super().__init__(image_shape)
        _, height, width = image_shape
        if config.size is not None:
            height = width = config.size
        _check_divisible("size", height, config.factor)
        _check_divisible("size", width, config.factor)
        self.config = config
        self.decoded_size = (height, width)
        self.latent_shape = (config.channels, height // config.factor, width // config.factor)
        self._frozen: list[Any] = []  # in a list, so that its weights are not this module's

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encode to the mode of the latent's distribution."""
        vae = self._vae(images.device)
        latents = vae.encode(to_unit(images, self.decoded_size)).latent_dist.mode()
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ConfigError(
                f"policy.codec: {self.config.path} makes latents {tuple(latents.shape[1:])}, expected "
                f"{self.latent_shape}; set channels and factor to its own"
            )
        return latents.float() * (vae.config.scaling_factor / self.config.divide)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode."""
        vae = self._vae(latents.device)
        return to_frames(vae.decode(latents * (self.config.divide / vae.config.scaling_factor)).sample)

    def _vae(self, device: torch.device) -> Any:
        if not self._frozen:
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

            if not (Path(self.config.path) / "config.json").is_file():
                raise ConfigError(
                    f"policy.codec.path: {self.config.path} holds no config.json; expected a folder that "
                    f"diffusers' AutoencoderKL was saved to"
                )
            vae = AutoencoderKL.from_pretrained(self.config.path, local_files_only=True)
            self._frozen.append(vae.eval().requires_grad_(False))
        return self._frozen[0].to(device)


@codecs.register("pixels", PixelCodecConfig)
def _build_pixels(config: PixelCodecConfig, *, image_shape: Shape) -> Codec:
    return PixelCodec(config, image_shape)


@codecs.register("conv", ConvCodecConfig)
def _build_conv(config: ConvCodecConfig, *, image_shape: Shape) -> Codec:
    return ConvCodec(config, image_shape)


@codecs.register("autoencoder_kl", AutoencoderKlConfig)
def _build_autoencoder_kl(config: AutoencoderKlConfig, *, image_shape: Shape) -> Codec:
    return AutoencoderKlCodec(config, image_shape)
