"""The same pictures by gsplat's CUDA kernels (Ye et al. 2024), for large ones; asked for by name, never fallen back to.

Not part of the dependencies: ``pip install gsplat`` on a machine with a CUDA device and its compiler.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from robot_sim.twin.gaussians.camera import Pinhole
from robot_sim.twin.gaussians.renderer import BLUR, NEAR, RendererError, Rendering, Splats


class GsplatRenderer:
    """Draws with gsplat; tensors are moved to the GPU and back, and gradients flow.

    Raises:
        RendererError: No CUDA device, or no gsplat.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise RendererError(
                "renderer 'gsplat' needs a CUDA device and torch sees none; use renderer 'torch'"
            )
        try:
            self._gsplat: Any = importlib.import_module("gsplat")
        except ImportError as error:
            raise RendererError(
                f"renderer 'gsplat' needs the package gsplat ({error}); pip install gsplat, or use renderer 'torch'"
            ) from error

    def __call__(self, splats: Splats, camera: Pinhole, background: torch.Tensor) -> Rendering:
        """Draw; see `robot_sim.twin.gaussians.renderer.Renderer`."""
        device = torch.device("cuda")
        half_axes = (splats.rotations * splats.scales[:, None, :]).to(device)
        view = torch.eye(4, device=device)
        view[:3, :3] = torch.as_tensor(camera.rotation, dtype=torch.float32, device=device)
        view[:3, 3] = torch.as_tensor(camera.translation, dtype=torch.float32, device=device)
        intrinsics = view.new_tensor([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
        image, alpha, _ = self._gsplat.rasterization(
            means=splats.means.to(device),
            quats=None,
            scales=None,
            covars=half_axes @ half_axes.transpose(1, 2),
            opacities=splats.opacities.to(device),
            colors=splats.colours.to(device),
            viewmats=view[None],
            Ks=intrinsics[None],
            width=camera.width,
            height=camera.height,
            near_plane=NEAR,
            eps2d=BLUR,
            rasterize_mode="antialiased",
        )
        behind = background.to(device).expand(camera.height, camera.width, 3)
        back = splats.means.device
        return Rendering((image[0] + (1.0 - alpha[0]) * behind).to(back), alpha[0, ..., 0].to(back))
