"""Puts a part of the twin's page of measurements between its marks, and leaves the rest alone."""

from __future__ import annotations

from pathlib import Path


def replace_part(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``; appended if the page has no such part."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    part = f"{begin}\n{text}\n{end}"
    if begin in old and end in old:
        before, rest = old.split(begin, 1)
        page.write_text(before + part + rest.split(end, 1)[1], encoding="utf-8")
    else:
        page.write_text(f"{old}\n{part}\n", encoding="utf-8")
