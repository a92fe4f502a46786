"""Compose a Hydra configuration for one command, with errors that say what to type instead.

Only Hydra's composition is used: nothing changes the working directory, creates an ``outputs/`` folder or
configures logging, so relative paths in a configuration mean what they mean in the shell.

    config = compose_config("train", argv, examples=("+experiment=lift_demo",))

``argv`` holds Hydra overrides (``trainer.steps=2000``, ``policy=unet``, ``+experiment=lift_demo``) and these
options: ``--help``, ``--cfg`` (print the resolved configuration) and ``--config-dir DIR`` (a folder with more
groups and presets, searched after the built-in ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robot_datasets.errors import unknown_name
from robot_policies.cli.config_groups import (
    CONFIG_FOLDER,
    default_groups,
    find_groups,
    fitting_options,
    head_comment,
    plain_keys,
    primary_file,
)
from robot_policies.cli.hydra_help import help_text
from robot_policies.configuration import ConfigError

_OPTIONS = ("--help", "--cfg", "--config-dir")


@dataclass
class _Request:
    """The command line, taken apart."""

    overrides: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=lambda: [CONFIG_FOLDER])
    show_help: bool = False
    show_config: bool = False


def compose_config(
    config_name: str, argv: Sequence[str], *, about: str = "", examples: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the resolved configuration of a command as a plain tree of dicts, lists and scalars.

    Args:
        config_name: Primary configuration, e.g. ``"train"`` for ``robot_configs/train.yaml``.
        argv: Overrides and options as typed after the subcommand.
        about: One or two sentences for ``--help``; empty takes the comment at the head of the YAML file.
        examples: Overrides to show in ``--help``, one example per string.

    Raises:
        ConfigError: An override is malformed, names an unknown key, group or option (with the nearest
            match), or a value without a default was not given.
        SystemExit: With status 0, after ``--help`` or ``--cfg`` printed what they were asked for.
    """
    request = _parse(argv)
    groups = find_groups(request.folders)
    # Hydra takes every override of a group's name for a choice of the group, but `task` of "train" is a value.
    values = plain_keys(config_name, request.folders)
    groups = {group: options for group, options in groups.items() if group not in values}
    plain = [text for text in request.overrides if text.lstrip("+").partition("=")[0] in values]
    overrides = [
        _check_group(text, groups, config_name, request.folders)
        for given in request.overrides
        if given not in plain
        for text in _take_family_apart(given, groups)
    ]
    if request.show_help:
        defaults = _compact_yaml(_compose(config_name, [], request.folders))
        shown = {group: fitting_options(group, config_name, request.folders) for group in groups}
        head = about or head_comment(primary_file(config_name, request.folders))
        print(help_text(config_name, head, shown, defaults, examples))
        raise SystemExit(0)
    try:
        config = _compose(config_name, overrides, request.folders)
        for override in map(_parse_override, plain):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_diagnose(error, config_name, overrides, groups, request.folders)) from error
    if request.show_config:
        print(_yaml(config), end="")
        raise SystemExit(0)
    return _to_plain(config, config_name)


def _parse(argv: Sequence[str]) -> _Request:
    request = _Request()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        option, _, value = word.partition("=")
        if word in ("-h", "--help"):
            request.show_help = True
        elif word == "--cfg":
            request.show_config = True
        elif option == "--config-dir":
            given = value or (rest.pop(0) if rest else "")
            if not given or not Path(given).is_dir():
                raise ConfigError(
                    f"--config-dir: '{given}' is not a folder; give one that holds YAML presets"
                )
            request.folders.append(Path(given).resolve())
        elif word.startswith("-"):
            raise ConfigError(unknown_name("option", word, _OPTIONS))
        elif "=" not in word and not word.startswith("~"):
            raise ConfigError(f"'{word}' is not an override; expected key=value, e.g. seed=1 (see --help)")
        else:
            request.overrides.append(word)
    return request


def _parse_override(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, _, value = text.partition("=")
        raise ConfigError(
            f"cannot read '{text}' ({_first_line(error)}); quote values with special characters: "
            f"'{key}=\"{value}\"'"
        ) from error
    if override.is_sweep_override():
        raise ConfigError(
            f"'{text}' asks for several runs, which this command does not do; give one value, "
            "or a list as key=[a,b]"
        )
    return override


def _take_family_apart(text: str, groups: dict[str, list[str]]) -> list[str]:
    """``task=metaworld/reach-v3`` -> ``task=metaworld`` and ``task.name=metaworld/reach-v3``.

    A preset may speak for a whole family of things with names of their own; its option is the family.
    """
    group, _, value = text.removeprefix("+").partition("=")
    family, slash, member = value.partition("/")
    options = groups.get(group, [])
    if not (slash and member and family in options) or value in options:
        return [text]
    return [text.removesuffix(f"/{member}"), f"{group}.name={value}"]


def _check_group(text: str, groups: dict[str, list[str]], config_name: str, folders: list[Path]) -> str:
    """Check the option of a group override; add or drop the ``+`` so that both spellings work."""
    override = _parse_override(text)
    group = override.key_or_group
    if group not in groups or override.type not in (OverrideType.CHANGE, OverrideType.ADD):
        return text
    value = override.value()
    if value is not None:
        for option in value if isinstance(value, list) else [value]:
            if str(option) not in groups[group]:
                raise ConfigError(unknown_name(f"option of '{group}'", option, groups[group]))
            if str(option) not in fitting_options(group, config_name, folders):
                raise ConfigError(f"{group}={option} is a preset of another command, not of '{config_name}'")
    bare = text.removeprefix("+")
    return bare if group in default_groups(config_name, folders) else f"+{bare}"


def _compose(config_name: str, overrides: list[str], folders: Sequence[Path]) -> DictConfig:
    home = primary_file(config_name, folders).parent  # Hydra looks for the primary configuration only here
    others = ",".join(f'"file://{folder}"' for folder in folders if folder != home)
    search = [f"hydra.searchpath=[{others}]"] if others else []
    with initialize_config_dir(str(home), version_base="1.3", job_name=config_name):
        return compose(config_name, [*search, *overrides])


def _diagnose(
    error: Exception,
    config_name: str,
    overrides: list[str],
    groups: dict[str, list[str]],
    folders: list[Path],
) -> str:
    """Find the override to blame: compose the groups alone, then look every other key up."""
    parsed = [_parse_override(text) for text in overrides]
    chosen = [o.input_line for o in parsed if o.key_or_group in groups and o.input_line]
    try:
        config = _compose(config_name, chosen, folders)
    except (HydraException, OmegaConfBaseException) as group_error:
        return _first_line(group_error)
    keys = flat_keys(OmegaConf.to_container(config, resolve=False))
    for override in parsed:
        key = override.key_or_group
        if key not in groups and key not in keys and override.type in (OverrideType.CHANGE, OverrideType.DEL):
            leaves = [k for k in keys if not any(other.startswith(f"{k}.") for other in keys)]
            near = unknown_name("key", key, [*leaves, *groups])
            return f"{near.partition(' Available:')[0].rstrip('.')} (see: {config_name} --help)"
    return _first_line(error)


def flat_keys(tree: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys of a nested mapping, inner nodes included: ``["trainer", "trainer.lr"]``."""
    if not isinstance(tree, dict):
        return []
    keys: list[str] = []
    for name, value in tree.items():
        keys += [f"{prefix}{name}", *flat_keys(value, f"{prefix}{name}.")]
    return keys


def _to_plain(config: DictConfig, config_name: str) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        example = f"{missing[0]}=..."
        raise ConfigError(
            f"no value for {', '.join(missing)}; give it: robot-policies {config_name} {example}"
        )
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _compact_yaml(config: DictConfig) -> str:
    """Inner nodes that hold scalars only stand on one line: a page of help, not three."""
    plain = OmegaConf.to_container(config, resolve=False)
    return yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, width=110)


def _yaml(config: DictConfig) -> str:
    try:
        return OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException:  # an interpolation of a value that was not given yet: show it as written
        return OmegaConf.to_yaml(config)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
