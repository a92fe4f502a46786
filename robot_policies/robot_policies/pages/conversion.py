"""The HTML form of a conversion report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from robot_policies.pages.page import command_card, section, write_page
from robot_policies.pages.parts import banner, facts, folded, properties, shares, table

_LISTED = 500
_AGAIN = (
    "The same command goes on with an interrupted conversion, and does nothing if the store is up to date."
)


def write_conversion_page(path: Path, content: Mapping[str, Any]) -> None:
    """Write the page of a report.

    Args:
        path: The HTML file.
        content: What `robot_datasets.engine.report.describe` returned, and under ``command`` the command that
            was given.
    """
    source, store = Path(content["source"]).name, Path(content["store"]).name
    finished = content["finished"][:16].replace("T", " ")
    write_page(
        path,
        title=f"Conversion of {source}",
        heading=source,
        subtitle=escape(f"{content['format']} converted to {store}, {finished} UTC"),
        sections=[
            _verdict(content),
            _headline(content),
            _facts(content),
            section(
                "The source as a whole",
                table(["Warning"], [[text] for text in content["source_warnings"]]),
            ),
            section("Left out, and why", _left_out(content)),
            section("Kept with warnings", _warned(content)),
            section("How it was made", _made(content)),
            section("Run it again", command_card(content["command"], _AGAIN)),
        ],
    )


def _verdict(content: Mapping[str, Any]) -> str:
    skipped = len(content["quarantined"])
    if content["outcome"] == "nothing converted":
        return banner(f"Nothing was converted: all {skipped} episodes were left out.")
    lost = content["n_lost_workers"]
    if not lost:
        return ""
    died = "1 worker process died and was" if lost == 1 else f"{lost} worker processes died and were"
    return banner(f"{died} replaced. Episodes that kill their reader again and again are left out.")


def _headline(content: Mapping[str, Any]) -> str:
    stored, warned, skipped = content["n_episodes"], len(content["warnings"]), len(content["quarantined"])
    parts = [("without a warning", stored - warned, "var(--good)")]
    if warned:
        parts.append(("with warnings", warned, "#d9961a"))
    if skipped:
        parts.append(("left out", skipped, "var(--bad)"))
    return (
        '<div class="card metric"><div class="name">Episodes in the store</div>'
        f'<div class="value">{stored:,} <small>of {content["n_source"]:,}</small></div>{shares(parts)}</div>'
    )


def _facts(content: Mapping[str, Any]) -> str:
    seconds = content["n_steps"] / content["fps"]
    entries = [
        ("Steps", f"{content['n_steps']:,}", f"{content['fps']:g} per second"),
        ("Recorded time", _duration(seconds), "of all episodes together"),
    ]
    if "megabytes_per_second" in content:
        entries += [
            ("This run", _duration(content["seconds"]), f"{content['n_new']:,} episodes read"),
            (
                "Speed",
                f"{content['megabytes_per_second']:,.1f} MB/s",
                f"{content['episodes_per_second']:,.1f} episodes per second",
            ),
        ]
    workers = content["workers"]
    entries.append(("Workers", str(workers), content["executor"]))
    if content["n_resumed"] and not content["unchanged"]:
        entries.append(("Resumed", f"{content['n_resumed']:,}", "episodes of an earlier run"))
    return facts(entries)


def _left_out(content: Mapping[str, Any]) -> str:
    return _kinds(content["skipped_by_reason"], content["n_source"]) + _episodes(
        "Every episode left out", content["quarantined"].items()
    )


def _warned(content: Mapping[str, Any]) -> str:
    messages = [(name, text) for name, texts in content["warnings"].items() for text in texts]
    return _kinds(content["warnings_by_kind"], content["n_episodes"]) + _episodes("Every warning", messages)


def _kinds(kinds: Sequence[Mapping[str, Any]], total: int) -> str:
    prefix = _common_folder([name for kind in kinds for name in kind["first_episodes"]])
    rows = []
    for kind in kinds:
        more = kind["episodes"] - len(kind["first_episodes"])
        names = [name.removeprefix(prefix) for name in kind["first_episodes"]]
        where = "\n".join(names + ([f"and {more:,} more"] if more > 0 else []))
        share = f"{100 * kind['episodes'] / max(1, total):.1f} %"
        example = kind["example"].replace(prefix, "") if prefix else kind["example"]
        rows.append([f"{kind['episodes']:,}", share, example, where])
    return table(["Episodes", "Share", "Message (of the first)", "Where"], rows, numeric=(0, 1))


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that all names begin with; names of a tree are long and differ at their end."""
    common: list[str] = []
    for parts in zip(*(name.split("/")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/".join([*common, ""])


def _episodes(summary: str, messages: Any) -> str:
    listed = list(messages)
    rest = len(listed) - _LISTED
    note = (
        f" (the first {_LISTED}; the JSON file beside this page has all {len(listed):,})" if rest > 0 else ""
    )
    return folded(f"{summary}{note}", table(["Episode", "Message"], listed[:_LISTED], tall=True))


def _made(content: Mapping[str, Any]) -> str:
    options = {f"option {name}": value for name, value in content["options"].items()}
    return properties(
        {
            "source": content["source"],
            "store": content["store"],
            "fingerprint": content["fingerprint"],
            "importer": f"{content['format']}, version {content['importer_version']}",
            **options,
            "versions": ", ".join(f"{name} {number}" for name, number in content["versions"].items()),
        }
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
