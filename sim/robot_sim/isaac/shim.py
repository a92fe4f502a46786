"""Make ``isaacgym`` importable, on request, as names for this package; a real ``isaacgym`` is never shadowed."""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from robot_sim.isaac.errors import IsaacError

_MODULES = ("isaacgym", "isaacgym.gymapi", "isaacgym.gymtorch", "isaacgym.gymutil", "isaacgym.torch_utils")
_MARK = "__robot_sim_shim__"
#: Names that NumPy 2 took away and code of Isaac Gym's time uses.
_NUMPY_NAMES: dict[str, Any] = {
    **{"Inf": np.inf, "Infinity": np.inf, "infty": np.inf, "NaN": np.nan, "NAN": np.nan, "PINF": np.inf},
    **{"float": float, "int": int, "bool": bool, "object": object, "float_": np.float64, "bool8": np.bool_},
}


def install_shim(*, max_timestep: float | None = None, threads: int | None = None) -> None:
    """Make ``from isaacgym import gymapi, gymtorch, gymutil, torch_utils`` work in this process.

    It also offers ``gymnasium`` as ``gym`` where the latter is not installed, and gives NumPy 2 the names back that
    code of that time uses (``np.Inf``, ``np.float``). Installing twice is harmless.

    Args:
        max_timestep: Longest physics step [s]; see `robot_sim.isaac.simulation.MAX_TIMESTEP`.
        threads: Threads of the physics; None leaves it at what it was, at first all cores.

    Raises:
        IsaacError: A real ``isaacgym`` is installed or imported.
    """
    from robot_sim.isaac.gym import acquire_gym

    if "isaacgym" in sys.modules and not hasattr(sys.modules["isaacgym"], _MARK):
        raise IsaacError(
            "a real isaacgym is imported in this process; it is not replaced: use it, or another process"
        )
    if "isaacgym" not in sys.modules:
        found = importlib.util.find_spec("isaacgym")
        if found is not None:
            raise IsaacError(
                f"a real isaacgym is installed ({found.origin}); it is not shadowed: use it, or an environment "
                "without it"
            )
        for name, module in _build().items():
            sys.modules[name] = module
    gym = acquire_gym()
    if max_timestep is not None:
        if not max_timestep > 0:
            raise IsaacError(
                f"max_timestep is {max_timestep}; expected a positive number of seconds, such as 0.005"
            )
        gym.max_timestep = max_timestep
    if threads is not None:
        gym.threads = threads
    _alias_gym()
    for name, value in _NUMPY_NAMES.items():
        if name not in np.__dict__:
            setattr(np, name, value)


def uninstall_shim() -> None:
    """Take the modules away again; what has imported them keeps them."""
    for name in _MODULES:
        if hasattr(sys.modules.get(name), _MARK):
            del sys.modules[name]


@contextlib.contextmanager
def shim(**options: Any) -> Iterator[None]:
    """Install the shim for a block; options as for `install_shim`."""
    install_shim(**options)
    try:
        yield
    finally:
        uninstall_shim()


def _build() -> dict[str, ModuleType]:
    modules = {
        name: ModuleType(name, "Isaac Gym's interface on MuJoCo (robot_sim.isaac).") for name in _MODULES
    }
    for module in modules.values():
        setattr(module, _MARK, True)
    package = modules["isaacgym"]
    package.__path__ = []
    package.__dict__["__version__"] = "1.0.preview4"  # the interface that is offered
    _fill_gymapi(modules["isaacgym.gymapi"])
    sources = {
        "isaacgym.gymtorch": ("robot_sim.isaac.gym_tensors", ("wrap_tensor", "unwrap_tensor")),
        "isaacgym.gymutil": ("robot_sim.isaac.gymutil", None),
        "isaacgym.torch_utils": ("robot_sim.isaac.torch_functions", None),
    }
    for name, (source, names) in sources.items():
        found = importlib.import_module(source)
        for attribute in names or found.__all__:
            setattr(modules[name], attribute, getattr(found, attribute))
    modules["isaacgym.torch_utils"].__dict__.update(np=np, torch=importlib.import_module("torch"))
    for name, module in modules.items():
        if name != "isaacgym":
            setattr(package, name.partition(".")[2], module)
    return modules


def _fill_gymapi(module: ModuleType) -> None:
    from robot_sim.isaac import gym, gym_actors, parameters, simulation, transforms

    for source in (parameters, transforms):
        for name, value in vars(source).items():
            if inspect.isclass(value) and value.__module__ == source.__name__ and not name.startswith("_"):
                setattr(module, name, value)
                if issubclass(value, enum.IntEnum | enum.IntFlag):
                    module.__dict__.update(value.__members__)
    module.__dict__.update(parameters.EXTRA_CONSTANTS)
    keys = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "ESCAPE", "SPACE", "ENTER", "LEFT", "RIGHT", "UP", "DOWN", "TAB"]
    module.__dict__.update({f"KEY_{key}": number for number, key in enumerate(keys)})
    module.__dict__.update(
        acquire_gym=gym.acquire_gym, Gym=gym.Gym, Sim=simulation.Simulation, Env=gym_actors.EnvHandle
    )
    module.__dict__["DofState"] = type("DofState", (), {"dtype": parameters.DOF_STATE})


def _alias_gym() -> None:
    if "gym" in sys.modules or importlib.util.find_spec("gym") is not None:
        return
    gymnasium = importlib.import_module("gymnasium")
    sys.modules["gym"], sys.modules["gym.spaces"] = gymnasium, importlib.import_module("gymnasium.spaces")
