"""Values of the options that several importers take."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from robot_datasets.errors import DatasetError, unknown_name


def positive_rate(text: str, source: Path | str) -> float:
    """Return a rate [Hz] given as text.

    Raises:
        DatasetError: It is no positive number; `source` is named as what does not tell it.
    """
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise DatasetError(
            f"{source} does not tell its rate, got fps='{text}'; give it in Hz, for example --option fps=30"
        )
    return rate


def whole_number(text: str, option: str) -> int:
    """Return a whole number of at least 0; anything else is an error that names the option."""
    if not text.isdecimal():
        raise DatasetError(f"option {option} is '{text}'; expected a whole number, for example 1")
    return int(text)


def chosen_names(text: str, known: Iterable[str], option: str) -> list[str]:
    """Split a comma-separated choice; empty means all of `known`, unknown names are errors."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    everything = list(known)
    for name in names:
        if name not in everything:
            raise DatasetError(f"option {option}: {unknown_name('name', name, everything)}")
    return [name for name in everything if name in names] if names else everything
