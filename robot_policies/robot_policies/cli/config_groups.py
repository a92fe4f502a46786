"""What the configuration folders offer: primary files, groups, and which presets fit which command.

Reads the YAML as text and plain data, without Hydra, to say in help and error messages what could be typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

import robot_configs
from robot_policies.configuration import ConfigError

CONFIG_FOLDER = Path(robot_configs.__file__).parent
_PRESET_MARK = "@package _global_"


def find_groups(folders: Sequence[Path] = (CONFIG_FOLDER,)) -> dict[str, list[str]]:
    """Return every configuration group and its options, e.g. ``{"policy": ["mlp", "unet"]}``."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(path.stem)
    return {group: sorted(options) for group, options in sorted(groups.items())}


def primary_file(config_name: str, folders: Sequence[Path] = (CONFIG_FOLDER,)) -> Path:
    """Return the path of a primary configuration such as ``train``; the first folder that has it wins."""
    for folder in folders:
        if (folder / f"{config_name}.yaml").is_file():
            return folder / f"{config_name}.yaml"
    raise ConfigError(f"no configuration '{config_name}.yaml' in {', '.join(map(str, folders))}")


def default_groups(config_name: str, folders: Sequence[Path] = (CONFIG_FOLDER,)) -> set[str]:
    """Return the groups in the defaults list of a primary configuration."""
    return _groups_in_defaults(_read(primary_file(config_name, folders)))


def plain_keys(config_name: str, folders: Sequence[Path] = (CONFIG_FOLDER,)) -> set[str]:
    """Return the keys of a command that hold a value although there is a group of the same name."""
    keys = _read(primary_file(config_name, folders)).keys() - default_groups(config_name, folders)
    return keys & find_groups(folders).keys()


def fitting_options(group: str, config_name: str, folders: Sequence[Path] = (CONFIG_FOLDER,)) -> list[str]:
    """Return the options of a group that belong to a command.

    The parts of a group in the command's defaults list do. A preset (``# @package _global_``) does if it
    touches no key and no group that the command does not have.
    """
    groups = default_groups(config_name, folders)
    keys = groups | {key for key in _read(primary_file(config_name, folders)) if key != "defaults"}
    fitting: list[str] = []
    for option in find_groups(folders).get(group, []):
        path = next(file for folder in folders if (file := folder / group / f"{option}.yaml").is_file())
        if _PRESET_MARK in path.read_text(encoding="utf-8"):
            preset = _read(path)
            touched = _groups_in_defaults(preset) | {key for key in preset if key != "defaults"}
            if touched <= keys:
                fitting.append(option)
        elif group in groups:
            fitting.append(option)
    return fitting


def head_comment(path: Path) -> str:
    """Return the comment at the head of a YAML file, which says what it is for."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(line for line in lines if not line.startswith("@package"))


def _groups_in_defaults(config: Mapping[str, Any]) -> set[str]:
    names = [str(key) for entry in config.get("defaults") or [] if isinstance(entry, dict) for key in entry]
    return {name.split()[-1].partition("@")[0].lstrip("/") for name in names}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


@cache  # by the text: a command asks for the same few files once for every override
def _parse(text: str) -> Mapping[str, Any]:
    return MappingProxyType({str(key): value for key, value in (yaml.safe_load(text) or {}).items()})
