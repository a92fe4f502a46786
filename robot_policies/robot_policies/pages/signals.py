"""Small pictures of numbers as SVG: histograms, curves of sample episodes, lengths, labelled parts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from robot_datasets.store import EpisodeStore

_BINS = 32
_WIDTH, _HEIGHT = 160, 34
_CURVE_WIDTH = 250
_POINTS = 160
_SHOWN_COMPONENTS = 64
_HISTOGRAM_ROWS = 500_000
_COLOURS = ("var(--accent)", "var(--second)", "var(--good)")
_TIMELINE_EPISODES = 12
_TAG_COLOURS = ("var(--accent)", "var(--second)", "var(--good)", "var(--warn)", "var(--bad)", "var(--muted)")


def component_table(store: EpisodeStore, name: str, episodes: Sequence[int]) -> str:
    """Return a table of a feature's components: statistics, histogram, and curves of sample episodes.

    Args:
        store: The store.
        name: A low-dimensional feature.
        episodes: Episodes whose curves are drawn, at most three.
    """
    feature, stats = store.features[name], store.stats(name)
    column = store.column(name).reshape(store.n_steps, -1)
    if column.dtype == np.bool_:
        column = column.astype(np.uint8)
    table = stats.to_array().reshape(10, -1)
    rows = []
    for i in range(min(column.shape[1], _SHOWN_COMPONENTS)):
        label = feature.names[i] if feature.names else str(i)
        unit = feature.units[i] if len(feature.units) > 1 else (feature.units[0] if feature.units else "")
        numbers = "".join(f"<td class=n>{table[k, i]:.3g}</td>" for k in (1, 5, 7, 9, 2))
        finite, constant = bool(np.isfinite(column[:, i]).all()), table[1, i] == table[2, i]
        pictures = (
            f'<td colspan=2><span class="pill {"note" if finite else "bad"}">'
            f"{'constant' if finite else 'not finite'}</span></td>"
            if constant or not finite
            else f"<td class=picture>{_histogram(column[:, i], table[:, i])}</td>"
            f"<td class=picture>{_curves(store, column[:, i], episodes)}</td>"
        )
        rows.append(
            f"<tr><td><b>{escape(label)}</b><small>{escape(unit)}</small></td>{numbers}{pictures}</tr>"
        )
    more = column.shape[1] - len(rows)
    note = f'<p class="note">and {more} more components</p>' if more > 0 else ""
    head = "<th>component</th>" + "".join(
        f"<th class=n>{text}</th>" for text in ("min", "1 %", "median", "99 %", "max")
    )
    meaning = f" <small>{escape(feature.meaning)}</small>" if feature.meaning else ""
    return (
        f"<h3>{escape(name)}{meaning}</h3>"
        f'<div class="card table-card scroll"><table class="listed components"><thead><tr>{head}'
        f"<th>histogram</th><th>sample episodes</th></tr></thead><tbody>{''.join(rows)}</tbody></table>{note}</div>"
    )


def length_chart(store: EpisodeStore) -> str:
    """Return a histogram of episode lengths."""
    lengths = store.episode_ends - store.episode_starts
    shortest, longest = int(lengths.min()), int(lengths.max())
    counts, edges = np.histogram(lengths, bins=min(40, max(1, longest - shortest + 1)))
    bars = _bars(counts, 1000, 130)
    middle = (shortest + longest) / 2
    labels = "".join(
        f"<span>{text}</span>"
        for text in (f"{edges[0]:g} steps ({edges[0] / store.fps:.1f} s)", f"{middle:g}", f"{edges[-1]:g}")
    )
    return (
        f'<div class="card"><svg viewBox="0 0 1000 130" role="img" aria-label="episodes by length">{bars}</svg>'
        f'<div class="scale">{labels}</div></div>'
    )


def timeline(store: EpisodeStore) -> str:
    """Return the labelled parts of the first episodes that have some, and a table of all labels."""
    from robot_policies.pages.parts import table

    every = [(e, s) for e, segments in enumerate(store.episodes["segments"]) for s in segments]
    if not every:
        return ""
    tags = sorted({s.tag or s.text for _, s in every})
    colour = {tag: _TAG_COLOURS[i % len(_TAG_COLOURS)] for i, tag in enumerate(tags)}
    rows = []
    for tag in tags[:100]:
        own = [s for _, s in every if (s.tag or s.text) == tag]
        median = float(np.median([s.end - s.start for s in own]))
        rows.append([tag, own[0].text if own[0].tag else "", f"{len(own):,}", f"{median / store.fps:.1f} s"])
    bars = []
    for episode in dict.fromkeys(e for e, _ in every):
        if len(bars) == _TIMELINE_EPISODES:
            break
        length = int(store.episode_ends[episode] - store.episode_starts[episode])
        marks = "".join(
            f'<i style="left:{100 * s.start / length:.2f}%;width:{100 * (s.end - s.start) / length:.2f}%;'
            f'background:{colour[s.tag or s.text]}" title="{escape(s.tag or s.text)}"></i>'
            for s in store.episodes["segments"][episode]
        )
        bars.append(f'<div class="parts"><span>episode {episode}</span><div>{marks}</div></div>')
    counted = table(["Label", "Text", "Parts", "Median"], rows, numeric=(2, 3), tall=True)
    return f'<div class="card">{"".join(bars)}</div>{counted}'


def _histogram(values: np.ndarray, stats: np.ndarray) -> str:
    """Bars from the usual range and a margin; what is farther out is left to the numbers beside it."""
    margin = 0.25 * (stats[9] - stats[5])
    low, high = max(stats[1], stats[5] - margin), min(stats[2], stats[9] + margin)
    if not high > low:
        low, high = stats[1], stats[2]
    counts, _ = np.histogram(values[:: -(-len(values) // _HISTOGRAM_ROWS)], bins=_BINS, range=(low, high))
    return (
        f'<svg class="tiny" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="histogram">'
        f"{_bars(counts, _WIDTH, _HEIGHT)}</svg>"
    )


def _bars(counts: np.ndarray, width: int, height: int) -> str:
    """One path for all bars."""
    step, largest = width / len(counts), max(1, int(counts.max()))
    path = "".join(
        f"M{i * step:.1f} {height}v{-max(1.0, height * count / largest):.1f}h{step - min(1.0, step / 4):.1f}V{height}z"
        for i, count in enumerate(counts.tolist())
        if count
    )
    return f'<path d="{path}" fill="var(--accent)" opacity=".75"/>'


def _curves(store: EpisodeStore, values: np.ndarray, episodes: Sequence[int]) -> str:
    """The component over time in sample episodes, on a common scale."""
    parts = [values[int(store.episode_starts[e]) : int(store.episode_ends[e])] for e in episodes]
    low, high = min(float(p.min()) for p in parts), max(float(p.max()) for p in parts)
    longest = max(map(len, parts))
    lines = []
    for part, colour in zip(parts, _COLOURS, strict=False):
        steps = np.unique(np.linspace(0, len(part) - 1, min(len(part), _POINTS)).astype(int))
        x = 1 + (_CURVE_WIDTH - 2) * steps / max(1, longest - 1)
        scaled = (
            (part[steps].astype(np.float64) - low) / (high - low) if high > low else np.full(len(steps), 0.5)
        )
        y = 2 + (_HEIGHT - 4) * (1 - scaled)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    return (
        f'<svg class="tiny wide" viewBox="0 0 {_CURVE_WIDTH} {_HEIGHT}" role="img" aria-label="sample episodes">'
        f"{''.join(lines)}</svg>"
    )
