"""Message classes by name, for nodes that subscribe to what a file tells them to."""

from __future__ import annotations

import importlib
import re
from typing import Any

from robot_datasets.errors import UserError

_NAME = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)")


def message_class(kind: str) -> Any:
    """Return the class of a message type, ``package/msg/Name``.

    Raises:
        UserError: It is no such name, or the package is not installed.
    """
    match = _NAME.fullmatch(kind)
    if match is None:
        raise UserError(f"'{kind}' is no message type; expected package/msg/Name")
    try:
        # ROS generates one module per package and kind; nothing else can be reached by such a name.
        return getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f"the message type '{kind}' is not installed; install its package, or leave it out"
        ) from error
