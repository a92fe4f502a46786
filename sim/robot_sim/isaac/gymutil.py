"""Isaac Gym's ``gymutil``: command line and configuration of simulations; lines are not drawn."""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from typing import Any

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.gym import Gym
from robot_sim.isaac.parameters import SimParams, SimType
from robot_sim.isaac.transforms import Transform, Vec3

__all__ = [
    "AxesGeometry",
    "WireframeBoxGeometry",
    "WireframeSphereGeometry",
    "_indent_xml",
    "draw_line",
    "draw_lines",
    "parse_arguments",
    "parse_bool",
    "parse_device_str",
    "parse_sim_config",
]


class _Lines:
    """Lines that a viewer would draw; kept, never drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.arguments, self.options = args, kwargs


class AxesGeometry(_Lines):
    """Three axes."""


class WireframeBoxGeometry(_Lines):
    """The edges of a box."""


class WireframeSphereGeometry(_Lines):
    """Circles of a sphere."""


def draw_lines(geometry: _Lines, gym: Gym, viewer: Any, env: Any, pose: Transform) -> None:
    """Do nothing: there is no viewer."""
    gym.add_lines(viewer, env, geometry, pose)


def draw_line(p1: Vec3, p2: Vec3, color: Vec3, gym: Gym, viewer: Any, env: Any) -> None:
    """Do nothing: there is no viewer."""
    gym.add_lines(viewer, env, p1, p2, color)


def _indent_xml(element: ElementTree.Element, level: int = 0) -> None:
    """Indent an XML tree; Quadcopter and Ingenuity call this private function to write their assets."""
    ElementTree.indent(element, space="  ", level=level)


def parse_bool(text: str) -> bool:
    """Return the truth value of ``true``, ``1``, ``false`` or ``0``.

    Raises:
        IsaacError: The text is something else.
    """
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.strip().lower() not in values:
        raise IsaacError(f"'{text}' is no truth value; expected one of {', '.join(values)}")
    return values[text.strip().lower()]


def parse_device_str(device: str) -> tuple[str, int]:
    """Return kind and number of a device such as ``"cuda:0"`` or ``"cpu"``.

    Raises:
        IsaacError: It is neither.
    """
    kind, _, number = device.lower().partition(":")
    if kind not in ("cpu", "cuda", "gpu") or not (number or "0").isdigit():
        raise IsaacError(f"device '{device}'; expected 'cpu' or 'cuda:0'")
    return ("cpu" if kind == "cpu" else "cuda"), int(number or 0)


def parse_sim_config(config: dict[str, Any], params: SimParams) -> None:
    """Write a configuration's values into simulation parameters.

    Args:
        config: As ``sim`` of a task's configuration: dt, substeps, gravity, physx, flex, ...
        params: Changed in place.
    """
    for name, value in config.items():
        if name == "gravity":
            params.gravity = Vec3(*value)
        elif name in ("physx", "flex"):
            for option, setting in value.items():
                setattr(getattr(params, name), option, setting)
        else:
            setattr(params, name, value)


def parse_arguments(
    description: str = "Isaac Gym Example",
    headless: bool = False,
    no_graphics: bool = False,
    custom_parameters: list[dict[str, Any]] | None = None,
) -> argparse.Namespace:
    """Parse the command line of Isaac Gym's examples.

    Args:
        description: For ``--help``.
        headless: Whether ``--headless`` is an option.
        no_graphics: Whether ``--nographics`` is an option.
        custom_parameters: Further options: ``{"name": "--x", "type": int, "default": 1, "help": "..."}``.

    Returns:
        Also ``sim_device_type``, ``compute_device_id``, ``physics_engine``, ``use_gpu`` and ``use_gpu_pipeline``, which
        say CPU: that is where MuJoCo computes.
    """
    parser = argparse.ArgumentParser(description=description)
    if headless:
        parser.add_argument("--headless", action="store_true", help="there is no viewer either way")
    if no_graphics:
        parser.add_argument("--nographics", action="store_true", help="there are no graphics either way")
    parser.add_argument("--sim_device", default="cpu", help="cpu")
    parser.add_argument("--pipeline", default="cpu", help="cpu")
    parser.add_argument("--graphics_device_id", type=int, default=0, help="ignored")
    engines = parser.add_mutually_exclusive_group()
    engines.add_argument("--flex", action="store_true", help="ignored: MuJoCo simulates")
    engines.add_argument("--physx", action="store_true", help="ignored: MuJoCo simulates")
    parser.add_argument("--num_threads", type=int, default=0, help="ignored; see install_shim(threads=)")
    parser.add_argument("--subscenes", type=int, default=0, help="ignored")
    parser.add_argument("--slices", type=int, help="ignored")
    for option in custom_parameters or []:
        settings = {key: value for key, value in option.items() if key != "name"}
        parser.add_argument(option["name"], **settings)
    arguments = parser.parse_args()
    kind, number = parse_device_str(arguments.sim_device)
    if kind != "cpu" or arguments.pipeline not in ("cpu",):
        raise IsaacError(
            "MuJoCo computes on the CPU; give --sim_device cpu --pipeline cpu, which are the defaults"
        )
    arguments.sim_device_type, arguments.compute_device_id = kind, number
    arguments.physics_engine = SimType.SIM_FLEX if arguments.flex else SimType.SIM_PHYSX
    arguments.use_gpu = arguments.use_gpu_pipeline = False
    return arguments
