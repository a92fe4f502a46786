"""MuJoCo, imported after an off-screen back end was chosen: import it from here.

MuJoCo reads ``MUJOCO_GL`` when it is first imported; see `robot_sim.rendering.choose_backend`.
"""

from __future__ import annotations

import importlib
from typing import Any

from robot_sim.rendering import choose_backend

choose_backend()
mujoco: Any = importlib.import_module("mujoco")  # a compiled module that type checkers know little of
importlib.import_module("mujoco.rollout")
