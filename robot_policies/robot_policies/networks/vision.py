"""Image encoders: ResNet-18 with GroupNorm and spatial softmax, as in Diffusion Policy.

BatchNorm is not used: its running statistics and an EMA of the weights do not agree, which collapses
performance (Chi et al., 2023, Sec. III-B).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robot_policies.configuration import ConfigError, Registry

CHANNELS_PER_GROUP = 16


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """An image encoder.

    Attributes:
        stage_channels: Channels of the stages; each stage but the first halves the image.
        blocks_per_stage: Residual blocks per stage (2 makes a ResNet-18 with four stages).
        n_keypoints: Spatial-softmax keypoints.
        out_dim: Features per camera.
        crop: Fraction of height and width kept by the crop: random in training, centred otherwise.
    """

    stage_channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks_per_stage: int = 2
    n_keypoints: int = 32
    out_dim: int = 64
    crop: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ConfigError(f"encoder.crop must be in (0, 1], got {self.crop}")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(channels // CHANNELS_PER_GROUP, 1), channels)


class BasicBlock(nn.Module):
    """ResNet's two-convolution residual block (He et al., 2016) with GroupNorm."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.norm1 = _norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm2 = _norm(c_out)
        same = stride == 1 and c_in == c_out
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), _norm(c_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class SpatialSoftmax(nn.Module):
    """Expected image position of each of K learned heat maps (Finn et al., 2016).

    Maps (N, C, H, W) to (N, K, 2): x right and y down, each in [-1, 1] from edge to edge.
    """

    def __init__(self, channels: int, n_keypoints: int) -> None:
        super().__init__()
        self.heat = nn.Conv2d(channels, n_keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the keypoints."""
        heat = self.heat(x)
        _, _, h, w = heat.shape
        weights = heat.flatten(2).softmax(dim=-1).view(-1, heat.shape[1], h, w)
        xs = torch.linspace(-1, 1, w, device=x.device, dtype=weights.dtype)
        ys = torch.linspace(-1, 1, h, device=x.device, dtype=weights.dtype)
        return torch.stack([(weights.sum(2) * xs).sum(-1), (weights.sum(3) * ys).sum(-1)], dim=-1)


class ResNetEncoder(nn.Module):
    """One camera: (N, C, H, W) uint8 -> (N, out_dim); cropping included."""

    def __init__(self, config: VisionConfig, channels: int) -> None:
        super().__init__()
        self.crop = config.crop
        self.out_dim = config.out_dim
        first, blocks = config.stage_channels[0], []
        self.stem = nn.Sequential(
            nn.Conv2d(channels, first, 7, 2, 3, bias=False),
            _norm(first),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        c_in = first
        for stage, c_out in enumerate(config.stage_channels):
            for block in range(config.blocks_per_stage):
                blocks.append(BasicBlock(c_in, c_out, 2 if stage > 0 and block == 0 else 1))
                c_in = c_out
        self.stages = nn.Sequential(*blocks)
        self.keypoints = SpatialSoftmax(c_in, config.n_keypoints)
        self.head = nn.Linear(2 * config.n_keypoints, config.out_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images."""
        x = crop_images(images, self.crop, random=self.training).float() / 127.5 - 1.0
        return self.head(self.keypoints(self.stages(self.stem(x))).flatten(1))


def crop_images(images: Tensor, fraction: float, *, random: bool) -> Tensor:
    """Crop (N, C, H, W) to `fraction` of its size; at a random place per image, or centred."""
    n, _, height, width = images.shape
    h, w = round(height * fraction), round(width * fraction)
    if (h, w) == (height, width):
        return images
    if not random:
        top, left = (height - h) // 2, (width - w) // 2
        return images[:, :, top : top + h, left : left + w]
    top = torch.randint(height - h + 1, (n, 1), device=images.device) + torch.arange(h, device=images.device)
    left = torch.randint(width - w + 1, (n, 1), device=images.device) + torch.arange(w, device=images.device)
    rows = torch.arange(n, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[rows, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)


image_encoders: Registry[ResNetEncoder] = Registry("image encoder")


@image_encoders.register("resnet", VisionConfig)
def _build_resnet(config: VisionConfig, *, channels: int) -> ResNetEncoder:
    return ResNetEncoder(config, channels)
