"""The calls of Isaac Gym's ``gym`` about pictures, which do nothing here and say so once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

#: Calls that do nothing, and what they return.
SILENT_CALLS: dict[str, Any] = {
    **dict.fromkeys(("viewer_camera_look_at", "step_graphics", "draw_viewer", "sync_frame_time")),
    **dict.fromkeys(
        ("subscribe_viewer_keyboard_event", "subscribe_viewer_mouse_event", "poll_viewer_events")
    ),
    **dict.fromkeys(
        ("add_lines", "clear_lines", "destroy_viewer", "render_all_camera_sensors", "set_light_parameters")
    ),
    **dict.fromkeys(("start_access_image_tensors", "end_access_image_tensors", "set_rigid_body_color")),
    **dict.fromkeys(("set_rigid_body_segmentation_id", "write_viewer_image_to_file", "debug_print_asset")),
    **dict.fromkeys(("begin_aggregate", "end_aggregate", "enable_actor_dof_force_sensors"), True),
    "create_viewer": None,
    "query_viewer_has_closed": False,
}
#: Those among them that are about physics here or there, and lose nothing: no need to speak of them.
_NOTHING_LOST = {"begin_aggregate", "end_aggregate", "enable_actor_dof_force_sensors", "debug_print_asset"}


class ViewerCalls:
    """Calls about pictures: they do nothing, and the first of them says so in the log."""

    _told = False

    def query_viewer_action_events(self, viewer: Any) -> list[Any]:
        """Return no events."""
        del viewer
        self._tell("query_viewer_action_events")
        return []

    def silent(self, name: str) -> Callable[..., Any]:
        """Return a call that does nothing."""

        def call(*args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            if name not in _NOTHING_LOST:
                self._tell(name)
            return SILENT_CALLS[name]

        call.__name__ = name
        return call

    def _tell(self, name: str) -> None:
        if not ViewerCalls._told:
            ViewerCalls._told = True
            logger.warning(
                "gym.%s and the other calls about viewer, colours and lines do nothing on MuJoCo; to see a state, draw "
                "it with mujoco.Renderer from sim.physics.write_to(...)",
                name,
            )
