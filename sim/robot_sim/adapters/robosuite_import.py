"""Imports robosuite without its side effects; everything that needs robosuite imports this module first.

robosuite greets with warnings about optional parts and insists on EGL while it is imported; worker processes
would inherit that choice.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any

from robot_sim.rendering import choose_backend

_BACKEND = choose_backend()  # before mujoco is imported
# Its errors still come through.
logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)

robosuite: Any = import_module(
    "robosuite"
)  # after the lines above; type checkers know little of its submodules
_factory = import_module("robosuite.controllers.composite.composite_controller_factory")
refactor_composite_controller_config: Any = _factory.refactor_composite_controller_config

if _BACKEND:
    os.environ["MUJOCO_GL"] = _BACKEND
else:
    os.environ.pop("MUJOCO_GL", None)

__all__ = ["refactor_composite_controller_config", "robosuite"]
