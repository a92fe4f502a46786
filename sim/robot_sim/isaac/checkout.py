"""Run task files of IsaacGymEnvs as they are, from a checkout of it.

::

    task = make_task("~/IsaacGymEnvs", "FrankaCubeStack", num_envs=16)
    obs, reward, reset, extras = task.step(torch.zeros(16, task.num_actions))

Nothing of the checkout is copied or changed. Its packages are imported without running their ``__init__``, which
would import all its tasks and what each of them needs.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from robot_datasets.errors import unknown_name
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.shim import install_shim

_PACKAGE = "isaacgymenvs"


def make_task(
    checkout: str | Path,
    name: str,
    *,
    num_envs: int,
    rl_device: str = "cpu",
    overrides: Sequence[str] = (),
) -> Any:
    """Return a task of IsaacGymEnvs, of its own class.

    Args:
        checkout: Folder that contains ``isaacgymenvs/``.
        name: Name of the task there, such as ``"Ant"``.
        num_envs: Number of environments.
        rl_device: Device of the learner.
        overrides: Hydra overrides of its configuration, such as ``"task.env.controlType=joint_tor"``.

    Raises:
        IsaacError: The folder is no checkout, there is no such task, or it needs a package that is not installed.
    """
    config = load_config(checkout, name, num_envs=num_envs, rl_device=rl_device, overrides=overrides)
    return task_class(checkout, name)(
        cfg=config["task"],
        rl_device=rl_device,
        sim_device="cpu",
        graphics_device_id=-1,
        headless=True,
        virtual_screen_capture=False,
        force_render=False,
    )


def task_class(checkout: str | Path, name: str) -> Any:
    """Return the class of a task of IsaacGymEnvs; its module runs on the shim.

    Raises:
        IsaacError: As `make_task`.
    """
    folder = _package_folder(checkout)
    modules = _task_modules(folder)
    if name not in modules:
        raise IsaacError(unknown_name(f"task of {folder}", name, modules))
    install_shim()
    _declare_package(_PACKAGE, folder)
    _declare_package(f"{_PACKAGE}.tasks", folder / "tasks")
    module, class_name = modules[name]
    try:
        loaded = importlib.import_module(f"{_PACKAGE}.tasks.{module}")
    except ModuleNotFoundError as error:
        raise IsaacError(
            f"task {name} of {folder} needs the package '{error.name}', which is not installed"
        ) from error
    # The base class keeps one simulation per process in a global, because Isaac Gym can have no second one.
    base = sys.modules.get(f"{_PACKAGE}.tasks.base.vec_task")
    if base is not None:
        base.__dict__["EXISTING_SIM"] = None
    return getattr(loaded, class_name)


def load_config(
    checkout: str | Path, name: str, *, num_envs: int, rl_device: str = "cpu", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the composed configuration of a task, ``task`` and ``train`` included, for the CPU.

    Raises:
        IsaacError: The folder is no checkout, or the configuration does not compose.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folder = _package_folder(checkout)
    resolvers = {
        "eq": lambda x, y: x.lower() == y.lower(),
        "contains": lambda x, y: x.lower() in y.lower(),
        "if": lambda condition, a, b: a if condition else b,
        "resolve_default": lambda default, value: default if value == "" else value,
    }
    for resolver, function in resolvers.items():
        if not OmegaConf.has_resolver(resolver):
            OmegaConf.register_new_resolver(resolver, function)
    settings = [
        *(f"task={name}", f"num_envs={num_envs}", "sim_device=cpu", f"rl_device={rl_device}", "pipeline=cpu"),
        *("graphics_device_id=-1", "headless=True", "force_render=False", *overrides),
    ]
    try:
        with initialize_config_dir(config_dir=str(folder / "cfg"), version_base="1.3"):
            config = compose(config_name="config", overrides=settings)
        resolved = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise IsaacError(
            f"the configuration of task {name} in {folder} does not compose: {reason}"
        ) from error
    assert isinstance(resolved, dict)  # what Hydra composes is a mapping
    return resolved  # type: ignore[return-value]  # with string keys


def _package_folder(checkout: str | Path) -> Path:
    folder = Path(checkout).expanduser().resolve() / _PACKAGE
    if not (folder / "tasks" / "__init__.py").is_file() or not (folder / "cfg" / "config.yaml").is_file():
        raise IsaacError(
            f"{checkout} is no checkout of IsaacGymEnvs: it has no {_PACKAGE}/tasks and cfg/config.yaml"
        )
    return folder


def _declare_package(name: str, folder: Path) -> None:
    known = sys.modules.get(name)
    if known is not None and list(getattr(known, "__path__", [])) == [str(folder)]:
        return
    if known is not None:
        raise IsaacError(
            f"another {name} is imported in this process ({known}); use one checkout per process"
        )
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)


def _task_modules(folder: Path) -> dict[str, tuple[str, str]]:
    """Return task name -> module and class, read from the checkout's table of tasks without running it."""
    tree = ast.parse((folder / "tasks" / "__init__.py").read_text(encoding="utf-8"))
    modules = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    tables = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    return {
        str(key.value): modules[value.id]
        for table in tables
        for key, value in zip(table.keys, table.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Name) and value.id in modules
    }
