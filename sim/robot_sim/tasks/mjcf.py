"""Objects from MJCF files of the user's, with errors that name file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from robot_sim.engine import mujoco
from robot_sim.registry import TaskError

_LINE = re.compile(r"[Ll]ine(?: number=)?\s*(\d+)")


def read_mjcf(path: str | Path) -> Any:
    """Read an MJCF file and compile it once, to find out what is wrong with it here and not in a scene.

    Returns:
        ``mujoco.MjSpec``.

    Raises:
        TaskError: The file is missing or broken, with the line where MuJoCo found it.
    """
    if not Path(path).is_file():
        raise TaskError(f"{path}: no such file; expected an MJCF file")
    try:
        spec = mujoco.MjSpec.from_file(str(path))
        spec.compile()
    except ValueError as error:
        text = " ".join(str(error).split())
        found = _LINE.search(text)
        where = f"{path}, line {found.group(1)}" if found else str(path)
        raise TaskError(f"{where}: MuJoCo cannot read it: {text}") from error
    return spec


def attach_object(scene: Any, name: str, path: str | Path) -> None:
    """Add the first body of an MJCF file to a scene as `name`, with free joint ``<name>_joint``.

    Raises:
        TaskError: The file is missing or broken, holds no body, or its body has joints.
    """
    spec = read_mjcf(path)
    body = spec.worldbody.first_body()
    if body is None:
        raise TaskError(f"{path}: holds no body; expected one object")
    if len(body.joints) > 0:
        raise TaskError(f"{path}: body '{body.name}' has joints; leave them out, the object moves freely")
    attached = scene.worldbody.add_frame().attach_body(body, f"{name}_", "")
    attached.name = name
    attached.add_freejoint(name=f"{name}_joint")
