"""Off-screen rendering with MuJoCo on machines without a display, and usually without a GPU.

MuJoCo picks its OpenGL back end from ``MUJOCO_GL`` when it is first imported, so a task calls
`choose_backend` before it imports ``mujoco``. Nothing here is needed to simulate: a machine without any GL
library runs every task that does not ask for images, and gets one clear line when it does ask.

Quality is set low on purpose: on a CPU rasteriser the shadow map alone is 97 % of an 84 x 84 frame.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import subprocess
import sys
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_sim.rendering_quality import RenderQuality, apply_to_xml
from robot_sim.system_libraries import REMEDY, loadable_backends

logger = logging.getLogger(__name__)

DISABLED = ("disable", "disabled", "off", "false", "0")

_PROBE = "import mujoco; r = mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8); r.render(); r.close()"


class RenderingError(UserError):
    """Images are wanted but this machine cannot draw off screen."""


def choose_backend() -> str:
    """Set ``MUJOCO_GL`` to a back end that draws here, and return it; call before importing ``mujoco``.

    A value the user set is kept. On Linux, EGL and then OSMesa are tried in a child process (about half a
    second); the choice lands in the environment, so worker processes started later inherit it without trying
    again. With neither, ``"disabled"``: simulation runs, `FrameRenderer` explains.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen:
        return chosen
    if not sys.platform.startswith("linux"):
        return ""  # macOS and Windows have one back end each, MuJoCo's default
    if "mujoco" in sys.modules:
        logger.warning(
            "mujoco was imported before a back end was chosen: images and videos may be unavailable; "
            "import robot_sim's task first, or set MUJOCO_GL=egl"
        )
        return ""
    chosen = next((backend for backend in loadable_backends() if backend_works(backend)), "disabled")
    if chosen == "disabled":
        logger.info("no off-screen OpenGL here: images and videos are unavailable; %s", REMEDY)
    os.environ["MUJOCO_GL"] = chosen
    return chosen


@functools.cache
def backend_works(backend: str) -> bool:
    """Whether a process with ``MUJOCO_GL=backend`` can draw a frame.

    Tried in a child process, because a failed attempt leaves half-loaded libraries behind.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"}
    environment["MUJOCO_GL"] = backend
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def cheap_rendering(xml: str) -> str:
    """Return a MuJoCo scene with shadows, multisampling and reflections off; physics is untouched.

    Args:
        xml: MJCF of the whole scene, with includes already resolved.
    """
    return apply_to_xml(xml, RenderQuality(mesh_detail=1.0))


class FrameRenderer:
    """Draws RGB frames of one model; made on first use, in the process that uses it.

    Args:
        model: Compiled ``mujoco.MjModel``; set its quality before (see `cheap_rendering`).
        hidden_groups: Geometry groups not to draw, e.g. robosuite's collision meshes in group 0.

    Raises:
        RenderingError: No off-screen OpenGL here.
    """

    def __init__(self, model: Any, *, hidden_groups: tuple[int, ...] = ()) -> None:
        if os.environ.get("MUJOCO_GL", "").strip().lower() in DISABLED:
            raise RenderingError(f"images need off-screen OpenGL, and none works here; run: {REMEDY}")
        self._mujoco = importlib.import_module("mujoco")
        self._model = model
        self._options = self._mujoco.MjvOption()
        for group in hidden_groups:
            self._options.geomgroup[group] = 0
        self._options.sitegroup[:] = 0
        self._renderers: dict[tuple[int, int], Any] = {}

    def render(self, data: Any, camera: str, *, width: int, height: int) -> np.ndarray:
        """Return what `camera` sees in `data` (``mujoco.MjData``) as (height, width, 3) uint8, top row first."""
        return self._prepared(data, camera, width, height).render()

    def render_depth(self, data: Any, camera: str, *, width: int, height: int) -> np.ndarray:
        """Return distances along the viewing direction [m], (height, width) float32; the sky is at the far plane."""
        renderer = self._prepared(data, camera, width, height)
        renderer.enable_depth_rendering()
        try:
            return renderer.render()
        finally:
            renderer.disable_depth_rendering()

    def render_segmentation(self, data: Any, camera: str, *, width: int, height: int) -> np.ndarray:
        """Return the id of the geom seen in each pixel, (height, width) int32; -1 where there is none."""
        renderer = self._prepared(data, camera, width, height)
        renderer.enable_segmentation_rendering()
        try:
            seen = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        geom = int(self._mujoco.mjtObj.mjOBJ_GEOM)  # the enum would be compared pixel by pixel
        is_geom = seen[..., 1] == geom
        return np.where(is_geom, seen[..., 0], -1).astype(np.int32)

    def close(self) -> None:
        """Free the OpenGL contexts; without this MuJoCo complains when the interpreter exits."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _prepared(self, data: Any, camera: str, width: int, height: int) -> Any:
        renderer = self._renderers.get((width, height))
        if renderer is None:
            renderer = self._renderers[width, height] = self._make(width, height)
        renderer.update_scene(data, camera=camera, scene_option=self._options)
        return renderer

    def _make(self, width: int, height: int) -> Any:
        try:
            return self._mujoco.Renderer(self._model, height=height, width=width)
        except (RuntimeError, AttributeError, ImportError, self._mujoco.FatalError) as error:
            backend = os.environ.get("MUJOCO_GL", "default")
            raise RenderingError(
                f"MuJoCo's '{backend}' back end cannot draw here ({error}); unset MUJOCO_GL to let EGL and OSMesa "
                f"be tried (before anything imports mujoco), or run: {REMEDY}"
            ) from error
