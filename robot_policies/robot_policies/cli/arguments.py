"""What several commands share: parsers, options, the console."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from robot_datasets.store import EpisodeStore


def describe_options(importer: Any) -> str:
    """Describe an importer or exporter and its options, for `--help`."""
    lines = [f"  {importer.name}: {importer.summary}"]
    for option in importer.options:
        choices = f" ({', '.join(c or 'empty' for c in option.choices)})" if option.choices else ""
        default = f" [{option.default}]" if option.default else ""
        lines.append(f"      {option.name}{default}: {option.help}{choices}")
    return "\n".join(lines)


def command_parser(command: str, text: str, epilog: str) -> argparse.ArgumentParser:
    """Return the parser of one command; `epilog` holds its examples."""
    return argparse.ArgumentParser(
        prog=f"robot-policies {command}",
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of text")


def parse_options(pairs: list[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` pairs; `UserError` if one is malformed."""
    options = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise UserError(
                f"--option got '{pair}'; expected NAME=VALUE, for example --option image_encoding=raw"
            )
        options[name] = value
    return options


def parse_number(text: str) -> int:
    """Parse an episode number; `UserError` if it is none."""
    if not text.isdigit():
        raise UserError(f"'{text}' is no episode number; expected e.g. 7")
    return int(text)


def parse_numbers(text: str) -> list[int]:
    """Parse episode numbers: ``3,8-11`` -> [3, 8, 9, 10, 11]."""
    numbers: list[int] = []
    for part in text.split(","):
        first, separator, last = part.strip().partition("-")
        start = parse_number(first)
        numbers.extend(range(start, (parse_number(last) if separator else start) + 1))
    return numbers


def chosen_episodes(store: EpisodeStore, texts: list[str]) -> list[int]:
    """Parse episode numbers of a store; `UserError` if one does not exist."""
    numbers = [number for text in texts for number in parse_numbers(text)]
    for number in numbers:
        if number >= store.n_episodes:
            raise UserError(f"there is no episode {number}; the store has 0 to {store.n_episodes - 1}")
    return numbers


def open_store(address: str) -> EpisodeStore:
    """Open an episode store, local or remote."""
    from robot_datasets.store import EpisodeStore

    return EpisodeStore.open(address)


def make_console(*, stderr: bool = False) -> Console:
    """Return a rich console."""
    from rich.console import Console

    return Console(stderr=stderr)
