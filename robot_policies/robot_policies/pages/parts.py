"""Parts that pages are put together from: banners, figures side by side, shares, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def banner(text: str) -> str:
    """Return one line (text) that cannot be missed."""
    return f'<p class="warning">{escape(text)}</p>'


def facts(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return figures side by side: (name, value, remark), all text."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for name, value, remark in entries
    )
    return f'<dl class="card facts">{cells}</dl>'


def shares(parts: Sequence[tuple[str, int, str]]) -> str:
    """Return one bar divided by counts, with its legend: (name, count, CSS colour)."""
    total = max(1, sum(count for _, count, _ in parts))
    bar = "".join(
        f'<i style="width:{100 * count / total:.4f}%;background:{colour}"></i>'
        for _, count, colour in parts
        if count
    )
    legend = "".join(
        f'<span style="--swatch:{colour}"><b>{count:,}</b> {escape(name)}</span>'
        for name, count, colour in parts
    )
    return f'<div class="share" role="presentation">{bar}</div><div class="legend">{legend}</div>'


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int] = (), tall: bool = False
) -> str:
    """Return a table of text, or nothing if there are no rows.

    Args:
        columns: Headings.
        rows: Cells.
        numeric: Numbers of the columns that are right-aligned.
        tall: Scroll instead of growing with the rows.
    """

    def cell(tag: str, index: int, text: str) -> str:
        return f"<{tag}{' class=n' if index in numeric else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(columns))
    body = "".join(f"<tr>{''.join(cell('td', i, text) for i, text in enumerate(row))}</tr>" for row in rows)
    if not body:
        return ""
    return (
        f'<div class="card table-card {"tall" if tall else "scroll"}"><table class="listed"><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def properties(entries: Mapping[str, str]) -> str:
    """Return a table of names and values, both text; empty values are left out."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in entries.items()
        if value
    )
    return f'<div class="card table-card"><table class="protocol">{rows}</table></div>' if rows else ""


def folded(summary: str, content: str) -> str:
    """Return `content` (HTML) that is shown when its summary (text) is clicked; nothing if it is empty."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""
