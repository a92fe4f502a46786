"""What a rule reports: `Finding`, and how serious it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SEVERITIES = ("error", "warning", "note")
"""Unusable or wrong; probably a fault of the recording; worth knowing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        code: Name of the fault, e.g. ``"frozen-signal"``; documented in ``docs/datasets/tools.md``.
        severity: One of `SEVERITIES`.
        detail: What was found, with its number.
        remedy: What to do about it.
        number: The number that was compared with a threshold, if there is one.
        episode: Episode number, if it concerns one.
        source_id: That episode's name in its source.
        feature: Feature name, if it concerns one.
    """

    code: str
    severity: str
    detail: str
    remedy: str
    number: float | None = None
    episode: int | None = None
    source_id: str = ""
    feature: str = ""

    def __str__(self) -> str:
        who = f"episode {self.episode} ({self.source_id})" if self.episode is not None else "store"
        where = f"{who}{', ' + self.feature if self.feature else ''}"
        return f"{self.severity} {self.code}: {where}: {self.detail}; {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)
