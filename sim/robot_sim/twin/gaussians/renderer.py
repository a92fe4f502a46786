r"""Drawing Gaussians differentiably: elliptical weighted averaging, as in 3D Gaussian splatting (Kerbl et al. 2023).

A Gaussian with mean :math:`\mu` and covariance :math:`\Sigma` in camera coordinates is drawn as the Gaussian

.. math::
    m = \pi(\mu), \qquad S = J \Sigma J^\top + \epsilon I

in the picture, with :math:`J` the perspective projection's Jacobian at :math:`\mu` (Zwicker et al. 2001) and
:math:`\epsilon` a blur of half a pixel, and its opacity shared out over the area that the blur adds,
:math:`o' = o \sqrt{|S - \epsilon I| / |S|}` (Yu et al. 2024, Mip-Splatting): without this, surfaces seen edge on would
fatten every silhouette by a pixel. Front to back, with
:math:`\alpha_i(p) = o_i' \exp(-\frac12 (p - m_i)^\top S_i^{-1} (p - m_i))`,

.. math::
    I(p) = \sum_i c_i \alpha_i T_i + T_{N+1} b(p), \qquad T_i = \prod_{j < i} (1 - \alpha_j).

The picture is drawn in tiles with the Gaussians that reach them; what is below 1/255 counts as nothing everywhere, so
tiles do not change the result. Meant for small pictures on a CPU; ``gsplat`` draws large ones on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from robot_datasets.errors import UserError
from robot_sim.twin.gaussians.camera import Pinhole
from robot_sim.twin.gaussians.cloud import GaussianBody

BLUR = 0.3  # added to the variance in the picture [px²]
NEAR = 0.01  # what is nearer is not drawn [m]
FAINTEST = 1.0 / 255.0
THINNEST = 1e-8  # least share of an area that the blur leaves; keeps gradients finite
DENSEST = 0.999
WIDEST = 1.5  # directions so many times outside the picture are not drawn: the projection's Jacobian is wrong there
TILE = 32  # [px]


class RendererError(UserError):
    """A renderer is unknown, or its library or device is missing."""


@dataclass(frozen=True, eq=False)
class Splats:
    """N Gaussians in the world, as tensors of one dtype and device.

    Attributes:
        means: (N, 3) [m].
        rotations: (N, 3, 3) from the Gaussians' axes to the world's.
        scales: (N, 3) [m].
        colours: (N, 3).
        opacities: (N,).
    """

    means: torch.Tensor
    rotations: torch.Tensor
    scales: torch.Tensor
    colours: torch.Tensor
    opacities: torch.Tensor

    def __len__(self) -> int:
        return len(self.means)

    @classmethod
    def of_body(cls, body: GaussianBody, *, dtype: torch.dtype = torch.float32) -> Splats:
        """Take a body's Gaussians, in its own frame."""
        means, scales, quaternions, colours, opacities = (
            torch.as_tensor(getattr(body, name), dtype=dtype)
            for name in ("means", "scales", "quaternions", "colours", "opacities")
        )
        return cls(means, rotation_matrices(quaternions), scales, colours, opacities)

    def moved(self, rotation: torch.Tensor, position: torch.Tensor) -> Splats:
        """Return them after a rotation (3, 3) and a translation (3,)."""
        return replace(self, means=self.means @ rotation.T + position, rotations=rotation @ self.rotations)


@dataclass(frozen=True, eq=False)
class Rendering:
    """A picture.

    Attributes:
        image: (H, W, 3).
        alpha: (H, W) how much of the background is hidden.
    """

    image: torch.Tensor
    alpha: torch.Tensor


class Renderer(Protocol):
    """Draws Gaussians; gradients flow to all their parameters and to the background."""

    def __call__(self, splats: Splats, camera: Pinhole, background: torch.Tensor) -> Rendering:
        """Draw.

        Args:
            splats: The Gaussians, in any order.
            camera: The camera.
            background: (3,) or (H, W, 3) colours behind everything.
        """
        ...


def rotation_matrices(quaternions: torch.Tensor) -> torch.Tensor:
    """Return (..., 3, 3) of quaternions wxyz (..., 4), which are normalised first."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quaternions.shape[:-1], 3, 3)


def project(
    means: torch.Tensor, rotations: torch.Tensor, scales: torch.Tensor, camera: Pinhole
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return centres (N, 2) [px], covariances (xx, xy, yy) (N, 3) [px²], depths [m] and factors of opacity (N,)."""
    turn = torch.as_tensor(camera.rotation, dtype=means.dtype, device=means.device)
    seen = means @ turn.T + torch.as_tensor(camera.translation, dtype=means.dtype, device=means.device)
    x, y, depth = seen.unbind(-1)
    # Behind the camera nothing is drawn; the guard keeps those numbers finite.
    z = depth.clamp(min=NEAR)
    centres = torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], dim=-1)
    axes = (turn @ rotations) * scales[:, None, :]  # columns: the ellipsoid's half axes, camera frame
    across = (camera.fx / z)[:, None] * (axes[:, 0] - (x / z)[:, None] * axes[:, 2])
    down = (camera.fy / z)[:, None] * (axes[:, 1] - (y / z)[:, None] * axes[:, 2])
    xx, xy, yy = (across**2).sum(-1), (across * down).sum(-1), (down**2).sum(-1)
    covariances = torch.stack([xx + BLUR, xy, yy + BLUR], dim=-1)
    area = (xx * yy - xy * xy) / ((xx + BLUR) * (yy + BLUR) - xy * xy)
    return centres, covariances, depth, area.clamp(min=THINNEST).sqrt()


def visible_in_order(
    centres: torch.Tensor,
    covariances: torch.Tensor,
    depths: torch.Tensor,
    opacities: torch.Tensor,
    camera: Pinhole,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of the Gaussians that reach the picture, nearest first, and the reach (N,) of all [px]."""
    with torch.no_grad():
        xx, xy, yy = covariances.unbind(-1)
        middle = 0.5 * (xx + yy)
        widest = middle + (0.25 * (xx - yy) ** 2 + xy**2).sqrt()
        reach = (2.0 * widest * (opacities / FAINTEST).clamp(min=1.0).log()).sqrt()
        size = centres.new_tensor([camera.width, camera.height])
        outside = (centres + reach[:, None] < 0).any(-1) | (centres - reach[:, None] > size).any(-1)
        far_off = (centres - 0.5 * size).abs() > WIDEST * (size + 0.5 * size.max())
        # Drawn or not is decided by the direction alone, so that a crop draws what the whole picture would.
        shown = torch.nonzero(
            (depths > NEAR) & (opacities >= FAINTEST) & ~outside & ~far_off.all(-1)
        ).squeeze(-1)
        return shown[torch.argsort(depths[shown], stable=True)], reach


def alphas(
    centres: torch.Tensor, covariances: torch.Tensor, opacities: torch.Tensor, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return opacities (P, N) at pixels (P, 2), and where they come from: S^-1 (p - m), two times (P, N)."""
    xx, xy, yy = covariances.unbind(-1)
    determinant = xx * yy - xy * xy
    dx, dy = pixels[:, :1] - centres[:, 0], pixels[:, 1:] - centres[:, 1]
    u, v = (yy * dx - xy * dy) / determinant, (xx * dy - xy * dx) / determinant
    alpha = (opacities * torch.exp(-0.5 * (dx * u + dy * v))).clamp(max=DENSEST)
    return torch.where(alpha < FAINTEST, torch.zeros_like(alpha), alpha), u, v


def transmittance(alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much light passes before each Gaussian (P, N), and after all of them (P, 1)."""
    passed = torch.log1p(-alpha).cumsum(dim=1).exp()
    return torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1), passed[:, -1:]


def pixel_centres(left: int, top: int, right: int, bottom: int, like: torch.Tensor) -> torch.Tensor:
    """Return the centres (P, 2) of the pixels of a rectangle, row by row."""
    x = torch.arange(left, right, dtype=like.dtype, device=like.device) + 0.5
    y = torch.arange(top, bottom, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=1)


def render(splats: Splats, camera: Pinhole, background: torch.Tensor) -> Rendering:
    """Draw with torch, on any device; see `Renderer`."""
    behind = background.expand(camera.height, camera.width, 3)
    centres, covariances, depths, factors = project(splats.means, splats.rotations, splats.scales, camera)
    opacities = splats.opacities * factors
    order, reach = visible_in_order(centres, covariances, depths, opacities, camera)
    rows, hidden_rows = [], []
    for top in range(0, camera.height, TILE):
        bottom = min(top + TILE, camera.height)
        row, hidden_row = [], []
        for left in range(0, camera.width, TILE):
            right = min(left + TILE, camera.width)
            x, y, r = centres[order, 0], centres[order, 1], reach[order]
            touching = (x + r > left) & (x - r < right) & (y + r > top) & (y - r < bottom)
            chosen = order[touching.detach()]
            back = behind[top:bottom, left:right].reshape(-1, 3)
            if len(chosen) == 0:
                image, left_over = back, torch.ones_like(back[:, :1])
            else:
                pixels = pixel_centres(left, top, right, bottom, centres)
                alpha, _, _ = alphas(centres[chosen], covariances[chosen], opacities[chosen], pixels)
                before, left_over = transmittance(alpha)
                image = (alpha * before) @ splats.colours[chosen] + left_over * back
            row.append(image.reshape(bottom - top, right - left, 3))
            hidden_row.append(1.0 - left_over.reshape(bottom - top, right - left))
        rows.append(torch.cat(row, dim=1))
        hidden_rows.append(torch.cat(hidden_row, dim=1))
    return Rendering(torch.cat(rows), torch.cat(hidden_rows))


def background_tensor(picture: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return a picture (H, W, 3) uint8 or float as a tensor in [0, 1]."""
    values = picture.astype(np.float32) / 255.0 if picture.dtype == np.uint8 else picture
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
