"""A page that shows what was retrieved: how much of which source, at which distances, and what it looks like."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_datasets.features import IMAGE_PREFIX
from robot_datasets.store import EpisodeStore
from robot_policies.pages.page import command_card, section, write_page
from robot_policies.retrieval import plots
from robot_policies.retrieval.neighbours import nearest
from robot_policies.retrieval.retrieve import Retrieval

EXAMPLES = 6
NEIGHBOURS = 5
THUMBNAIL = 128


@dataclass(frozen=True, kw_only=True)
class SourceCount:
    """What was retrieved of one source.

    Attributes:
        name: The source: a common beginning of episode names, or an instruction.
        episodes: Its episodes.
        steps: Its steps.
        selected: Steps with a weight above 0.
        weight: Share of all draws that go to it.
        distance: Median distance to the target.
    """

    name: str
    episodes: int
    steps: int
    selected: int
    weight: float
    distance: float


def count_sources(retrieval: Retrieval, label_of_episode: Sequence[str]) -> list[SourceCount]:
    """Count by source, the most drawn first."""
    ends = np.asarray(retrieval.prior.episode_ends)
    names, group = np.unique(np.asarray(label_of_episode), return_inverse=True)
    of_step = np.repeat(group, np.diff(ends, prepend=0))
    total = float(retrieval.weights.sum(dtype=np.float64))
    counts = [
        SourceCount(
            name=str(name),
            episodes=int((group == k).sum()),
            steps=int((of_step == k).sum()),
            selected=int((retrieval.weights[of_step == k] > 0).sum()),
            weight=float(retrieval.weights[of_step == k].sum(dtype=np.float64)) / total,
            distance=float(np.median(retrieval.distances[of_step == k])),
        )
        for k, name in enumerate(names)
    ]
    return sorted(counts, key=lambda count: -count.weight)


def source_labels(store: EpisodeStore) -> list[str]:
    """Episode names without what counts: ``useful/episode_0012`` -> ``useful/episode``."""
    return [re.sub(r"[\W_]*\d+\D*$", "", name) or name for name in store.episodes["source_id"]]


def summarise(retrieval: Retrieval) -> dict[str, Any]:
    """The numbers of the page, JSON-ready."""
    kept = retrieval.weights > 0
    weights = retrieval.weights.astype(np.float64)
    return {
        "prior": {"path": str(retrieval.prior.path), "fingerprint": retrieval.prior.fingerprint},
        "target": {"path": str(retrieval.target.path), "fingerprint": retrieval.target.fingerprint},
        "prior_steps": len(kept),
        "target_steps": len(retrieval.target_z),
        "selected_steps": int(kept.sum()),
        "effective_steps": float(weights.sum() ** 2 / np.square(weights).sum()),
        "median_distance": float(np.median(retrieval.distances)),
        "median_distance_selected": float(np.median(retrieval.distances[kept])),
        "sources": [vars(count) for count in count_sources(retrieval, source_labels(retrieval.prior))],
        "tasks": [vars(count) for count in count_sources(retrieval, _tasks(retrieval.prior))],
    }


def write_report(retrieval: Retrieval, path: Path, *, command: str) -> dict[str, Any]:
    """Write the page and return `summarise`'s numbers.

    Args:
        retrieval: What was retrieved.
        path: The HTML file.
        command: The command line that repeats it.
    """
    summary = summarise(retrieval)
    config = retrieval.config
    how = "likeness" if config.method == "nearest" else "importance weight"
    unit = "transitions" if config.window == 1 else f"beginnings of {config.window} steps"
    sections = [
        _facts(summary),
        section("What was retrieved from where", _source_tables(summary)),
        section("How far it is", _figures(retrieval)),
        section("Which steps of which episodes", _strips(retrieval)),
        section("What it looks like", _examples(retrieval)),
        section(
            "Reproduce",
            command_card(command, "The same stores, options and versions give the same selection."),
        ),
    ]
    write_page(
        path,
        title=f"Retrieval for {Path(retrieval.target.path).name}",
        heading=f"Retrieval for {Path(retrieval.target.path).name}",
        subtitle=f"from {escape(Path(retrieval.prior.path).name)} &middot; {unit} by {how}",
        sections=sections,
    )
    return summary


def _tasks(store: EpisodeStore) -> list[str]:
    return [store.tasks[int(i)] or "(no instruction)" for i in store.episodes["task_index"]]


def _facts(summary: Mapping[str, Any]) -> str:
    share = 100 * summary["selected_steps"] / summary["prior_steps"]
    facts = [
        ("Prior", f"{summary['prior_steps']:,}", "steps"),
        ("Target", f"{summary['target_steps']:,}", "steps"),
        ("Selected", f"{summary['selected_steps']:,}", f"{share:.1f} % of the prior"),
        ("Effective number", f"{summary['effective_steps']:,.0f}", "steps, given their weights"),
        ("Median distance", f"{summary['median_distance']:.3g}", "whole prior"),
        ("Median distance", f"{summary['median_distance_selected']:.3g}", "selected"),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<dl class="card facts">{cells}</dl>'


def _source_tables(summary: Mapping[str, Any]) -> str:
    tables = [_source_table("source", summary["sources"])]
    if len(summary["tasks"]) > 1:
        tables.append(_source_table("instruction", summary["tasks"]))
    return "".join(tables)


def _source_table(kind: str, counts: Sequence[Mapping[str, Any]]) -> str:
    heads = (kind, "episodes", "steps", "selected steps", "of its steps", "of all draws", "median distance")
    head = "".join(f'<th class="{"n" if i else ""}">{escape(name)}</th>' for i, name in enumerate(heads))
    rows = []
    for count in counts:
        values = (
            f"{count['episodes']:,}",
            f"{count['steps']:,}",
            f"{count['selected']:,}",
            f"{100 * count['selected'] / count['steps']:.1f} %",
            f"{100 * count['weight']:.1f} %",
            f"{count['distance']:.3g}",
        )
        cells = "".join(f'<td class="n">{value}</td>' for value in values)
        rows.append(f"<tr><td>{escape(count['name'])}</td>{cells}</tr>")
    return (
        '<div class="card table-card tall" style="margin-bottom:14px"><table class="episodes"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figures(retrieval: Retrieval) -> str:
    drawings = [plots.plot_distances(retrieval), plots.plot_embedding(retrieval)]
    figures = "".join(f'<figure class="card">{svg}</figure>' for svg in drawings)
    return f'<div class="plots">{figures}</div>'


def _strips(retrieval: Retrieval) -> str:
    svg = plots.plot_episodes(retrieval, source_labels(retrieval.prior))
    return f'<figure class="card" style="margin:0">{svg}</figure>'


def _examples(retrieval: Retrieval) -> str:
    """Some target frames, each with the selected prior frames nearest to it; then the farthest of the prior."""
    cameras = [
        name
        for name in retrieval.target.features
        if name.startswith(IMAGE_PREFIX) and name in retrieval.prior.features
    ]
    if not cameras:
        return '<p class="note">These stores have no camera in common, so there is nothing to show.</p>'
    camera = cameras[0]
    n = len(retrieval.target_z)
    chosen = np.unique(np.linspace(0, n - 1, EXAMPLES + 2).round().astype(np.int64)[1:-1])
    kept = torch.from_numpy(np.flatnonzero(retrieval.weights > 0))
    found, keys = nearest(retrieval.target_z[chosen], retrieval.prior_z[kept], k=NEIGHBOURS)
    rows = []
    for row, step in enumerate(chosen):
        steps = kept[keys[row]].numpy()
        cells = [_thumbnail(retrieval.target, camera, int(step), "target")]
        cells += [
            _thumbnail(retrieval.prior, camera, int(s), f"d {d:.2f}")
            for s, d in zip(steps, found[row].tolist(), strict=True)
        ]
        rows.append(_row(cells))
    far = np.argsort(retrieval.distances)[::-1][: NEIGHBOURS + 1]
    farthest = [_thumbnail(retrieval.prior, camera, int(s), f"d {retrieval.distances[s]:.2f}") for s in far]
    return (
        f'<p class="note">Camera {escape(camera.removeprefix(IMAGE_PREFIX))}. On the left a step of the target, '
        "then the selected prior steps nearest to it, with their distance d.</p>"
        f'<div class="card">{"".join(rows)}</div>'
        '<p class="note">The farthest steps of the prior, for comparison:</p>'
        f'<div class="card">{_row(farthest)}</div>'
    )


def _row(cells: Sequence[str]) -> str:
    return (
        f'<div style="display:grid;grid-template-columns:repeat({NEIGHBOURS + 1},minmax(0,1fr));gap:10px;'
        f'margin-bottom:12px">{"".join(cells)}</div>'
    )


def _thumbnail(store: EpisodeStore, camera: str, step: int, label: str) -> str:
    episode = int(np.searchsorted(np.asarray(store.episode_ends), step, side="right"))
    within = step - int(store.episode_starts[episode])
    name = store.episodes["source_id"][episode]
    return (
        '<figure style="margin:0"><img style="width:100%;border-radius:8px;display:block" alt="" '
        f'src="data:image/png;base64,{_png(store.images(camera).decode(np.array([step]))[0])}">'
        f"<figcaption>{escape(label)}<br>{escape(name)}, step {within}</figcaption></figure>"
    )


def _png(frame: NDArray[Any]) -> str:
    from PIL import Image

    picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
