"""The HTML form of an inspection: one page about a dataset, with its numbers, pictures and faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.checks import Finding
from robot_datasets.features import is_image
from robot_datasets.store import EpisodeStore
from robot_policies.pages.page import command_card, section, write_page
from robot_policies.pages.parts import facts, folded, properties, shares, table
from robot_policies.pages.signals import component_table, length_chart, timeline
from robot_policies.pages.thumbnails import contact_sheet

SHOWN_EPISODES = 3
"""Episodes whose signals are drawn."""
_LISTED = 500
_PILLS = {"error": "bad", "warning": "warn", "note": "note"}


def write_dataset_page(
    path: Path,
    store: EpisodeStore,
    *,
    summary: Mapping[str, Any],
    findings: Sequence[Finding],
    command: str,
) -> None:
    """Write a page about a store.

    Args:
        path: The HTML file.
        store: The store.
        summary: What `robot_datasets.summary.summarise` returned.
        findings: What `robot_datasets.checks.lint` found.
        command: The command that was given.
    """
    name = Path(store.path).name
    shown = sample_episodes(store, SHOWN_EPISODES)
    cameras = [n for n in sorted(store.features) if is_image(n)]
    signals = [n for n in sorted(store.features, key=_reading_order) if not is_image(n)]
    robot = store.embodiment or "an unknown robot"
    write_page(
        path,
        title=f"{name}: dataset",
        heading=name,
        subtitle=f"{escape(robot)}, {store.fps:g} Hz, {escape(str(summary['source'].get('name', '')))}",
        sections=[
            _headline(summary),
            _facts(summary),
            section("What the check found", _findings(findings)),
            section("Frames", "".join(contact_sheet(store, camera) for camera in cameras)),
            section("Length of episodes", length_chart(store)),
            section("Instructions", _tasks(store)),
            section("Signals", _signals(store, signals, shown)),
            section("Labelled parts", timeline(store)),
            section("Features", _features(store)),
            section("Episodes", _episodes(store)),
            section("How it was made", _made(summary)),
            section("Make this page again", command_card(command, "It is drawn from the store alone.")),
        ],
    )


def sample_episodes(store: EpisodeStore, wanted: int) -> list[int]:
    """Return up to `wanted` episodes, evenly spread."""
    n = store.n_episodes
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(int)).tolist()


def _reading_order(name: str) -> tuple[int, str]:
    """The state first, then the action, then the rest."""
    return {"observation.state": 0, "action": 1}.get(name, 2), name


def _headline(summary: Mapping[str, Any]) -> str:
    counts = summary["success"]
    parts = [
        ("reached their goal", counts["yes"], "var(--good)"),
        ("failed", counts["no"], "var(--bad)"),
        ("outcome unknown", counts["unknown"], "var(--muted)"),
    ]
    return (
        '<div class="card metric"><div class="name">Episodes</div>'
        f'<div class="value">{summary["n_episodes"]:,}</div>{shares([part for part in parts if part[1]])}</div>'
    )


def _facts(summary: Mapping[str, Any]) -> str:
    length, size = summary["episode_length"], summary["bytes"]
    entries = [
        ("Steps", f"{summary['n_steps']:,}", f"{summary['fps']:g} per second"),
        ("Recorded time", _duration(summary["seconds"]), "of all episodes together"),
        ("Median episode", f"{length['median']:g} steps", f"{length['min']} to {length['max']}"),
        ("Instructions", f"{summary['n_tasks']:,}", "different texts"),
        ("Set aside", f"{summary['n_quarantined']:,}", "episodes of the source"),
    ]
    if size is not None:
        entries.append(
            ("On disk", f"{size / 1e6:,.1f} MB", f"{size / summary['n_steps']:,.0f} bytes per step")
        )
    return facts(entries)


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return '<div class="card"><span class="pill good">nothing found</span></div>'
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code, finding.feature), []).append(finding)
    rows = []
    for (severity, code, feature), found in groups.items():
        of_store = found[0].episode is None
        where = "" if of_store else ", ".join(str(f.episode) for f in found[:8])
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        episodes = f"episode{'s' if len(found) > 1 else ''} {where}{more}"
        subject = f" in {escape(feature)}" if feature else ""
        rows.append(
            f'<tr><td><span class="pill {_PILLS[severity]}">{severity}</span></td>'
            f"<td><b>{escape(code)}</b>{subject}<small>{escape(found[0].detail)}</small>"
            f"<small>&rarr; {escape(found[0].remedy)}</small></td>"
            f"<td>{'the store' if of_store else episodes}</td></tr>"
        )
    return f'<div class="card table-card scroll"><table class="findings">{"".join(rows)}</table></div>'


def _tasks(store: EpisodeStore) -> str:
    index = np.asarray(store.episodes["task_index"])
    lengths = store.episode_ends - store.episode_starts
    numbers, counts = np.unique(index, return_counts=True)
    rows = [
        [
            store.tasks[numbers[i]] or "(none)",
            f"{counts[i]:,}",
            f"{100 * counts[i] / len(index):.1f} %",
            f"{np.median(lengths[index == numbers[i]]):g}",
        ]
        for i in np.argsort(-counts, kind="stable")[:_LISTED]
    ]
    return table(["Instruction", "Episodes", "Share", "Median steps"], rows, numeric=(1, 2, 3), tall=True)


def _signals(store: EpisodeStore, names: Sequence[str], shown: Sequence[int]) -> str:
    legend = "".join(
        f'<span style="--swatch:var({colour})">episode {episode}</span>'
        for episode, colour in zip(shown, ("--accent", "--second", "--good"), strict=False)
    )
    return f'<p class="legend">{legend}</p>' + "".join(component_table(store, name, shown) for name in names)


def _features(store: EpisodeStore) -> str:
    rows = []
    for name, feature in sorted(store.features.items()):
        encoding = store.spec.encodings.get(name, "")
        conventions = (feature.frame, feature.rotation, feature.gripper, feature.meaning)
        rows.append(
            [
                name,
                f"{feature.dtype} {encoding}".strip(),
                " x ".join(str(size or "any") for size in feature.shape),
                ", ".join(dict.fromkeys(feature.units)),
                "\n".join(filter(None, conventions)),
            ]
        )
    return table(["Feature", "Type", "Shape", "Units", "Conventions"], rows)


def _episodes(store: EpisodeStore) -> str:
    warned = [[store.episodes["source_id"][e], text] for e, texts in store.warnings.items() for text in texts]
    aside = [[name, reason] for name, reason in store.quarantined.items()]
    lengths = store.episode_ends - store.episode_starts
    outcome = {1: "yes", 0: "no", -1: ""}
    rows = [
        [
            str(e),
            store.episodes["source_id"][e],
            f"{lengths[e]:,}",
            outcome[int(store.episodes["success"][e])],
            store.episodes["split"][e],
            store.tasks[int(store.episodes["task_index"][e])],
        ]
        for e in range(min(store.n_episodes, _LISTED))
    ]
    columns = ["Number", "Name", "Steps", "Success", "Split", "Instruction"]
    note = f" (the first {_LISTED})" if store.n_episodes > _LISTED else ""
    return (
        folded(f"All episodes{note}", table(columns, rows, numeric=(0, 2), tall=True))
        + _listed("Kept with warnings", ["Episode", "Warning"], warned)
        + _listed("Set aside", ["Episode", "Reason"], aside)
    )


def _listed(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    note = f"{len(rows):,}" + (f", the first {_LISTED} are listed" if len(rows) > _LISTED else "")
    return folded(f"{title} ({note})", table(columns, rows[:_LISTED], tall=True))


def _made(summary: Mapping[str, Any]) -> str:
    conversion = summary["conversion"]
    options = {f"option {name}": str(value) for name, value in conversion.get("options", {}).items()}
    return properties(
        {
            "store": summary["path"],
            "fingerprint": summary["fingerprint"],
            "importer": f"{conversion.get('importer', 'none')}, version {conversion.get('version', '')}",
            **options,
        }
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
