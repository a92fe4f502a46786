"""The ``--help`` page of a command that is configured through Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_OPTIONS = """options:
  -h, --help        show this help
  --cfg             print the resolved configuration and stop
  --config-dir DIR  a folder of your own groups and presets (DIR/policy/mine.yaml -> policy=mine)
  --debug           show the full traceback of an error"""


def help_text(
    command: str, about: str, groups: Mapping[str, Sequence[str]], defaults: str, examples: Sequence[str]
) -> str:
    """Return the help page: usage, groups with their options, every key with its default, examples.

    Args:
        command: Subcommand, e.g. ``"train"``.
        about: What the command does.
        groups: Configuration groups and their options; a group without options is left out.
        defaults: The default configuration as YAML.
        examples: Overrides, one example per string.
    """
    rows = {group: options for group, options in groups.items() if options}
    width = max(map(len, rows), default=0)
    listed = [f"  {group:<{width}}  {', '.join(options)}" for group, options in rows.items()]
    parts = [
        f"usage: robot-policies {command} [key=value ...] [+group=option ...] [options]",
        about,
        "\n".join(["groups (choose with group=option):", *listed]) if listed else "",
        _OPTIONS,
        "keys and their defaults (??? = you must give it; set with key.inner=value):\n"
        + "\n".join(f"  {line}" for line in defaults.rstrip().splitlines()),
        "\n".join(["examples:", *(f"  robot-policies {command} {e}" for e in examples)]) if examples else "",
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)
