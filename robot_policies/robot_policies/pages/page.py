"""A page from its parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from robot_policies import __version__


def write_page(path: Path, *, title: str, heading: str, subtitle: str, sections: Sequence[str]) -> None:
    """Write a page; the old one or the new one is there, never half of it.

    Args:
        path: The HTML file.
        title: Title of the browser's tab, plain text.
        heading: Heading, plain text.
        subtitle: Line under the heading, HTML.
        sections: Parts of the body, HTML; empty ones are left out.
    """
    page = Template((files("robot_policies.pages") / "template.html").read_text("utf-8"))
    text = page.substitute(
        title=escape(title),
        heading=escape(heading),
        subtitle=subtitle,
        body="\n".join(part for part in sections if part),
        footer=f"robot-policies {escape(__version__)}",
    )
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)


def section(title: str, content: str) -> str:
    """A section with its heading; empty if there is no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def command_card(command: str, note: str) -> str:
    """A command to copy, and what it repeats."""
    return (
        f'<div class="card command"><pre id="command">{escape(command)}</pre>'
        '<button type="button" data-copy="command">copy</button></div>'
        f'<p class="note">{escape(note)}</p>'
    )
