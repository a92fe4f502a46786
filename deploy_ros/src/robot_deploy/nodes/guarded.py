"""Callbacks that cannot end a node.

An exception in a callback leaves ``spin`` and, in a background thread, ends that thread silently, while the last
target stays latched in the controller. So every callback is wrapped: what it raises is logged with its traceback
and told to the node, which stops the robot.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.node import Node


def guarded(node: Node, callback: Callable[..., Any], on_error: Callable[[str], None]) -> Callable[..., Any]:
    """Return `callback`, which now never raises.

    Args:
        node: Whose logger is used.
        callback: Of a subscription, timer or service.
        on_error: Told the kind and text of what was raised; must not raise.
    """

    @functools.wraps(callback)
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except Exception as error:  # noqa: BLE001  (whatever it is, the node goes on and says so)
            node.get_logger().error(traceback.format_exc())
            on_error(f"{type(error).__name__} in {callback.__qualname__}: {error}")
            # A service that returns nothing would raise once more: give its response back unfilled.
            return arguments[1] if len(arguments) == 2 else None

    return call
