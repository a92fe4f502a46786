"""The renderers there are, by name."""

from __future__ import annotations

from robot_datasets.errors import unknown_name
from robot_sim.twin.gaussians.gsplat_renderer import GsplatRenderer
from robot_sim.twin.gaussians.renderer import Renderer, RendererError, render


def build_renderer(name: str) -> Renderer:
    """Return the renderer of this name: ``torch``, or ``gsplat`` on a CUDA device.

    Raises:
        RendererError: An unknown name; or gsplat is asked for and not there. There is no fallback.
    """
    if name == "torch":
        return render
    if name == "gsplat":
        return GsplatRenderer()
    raise RendererError(unknown_name("renderer", name, ("torch", "gsplat")))
