"""The figures of a retrieval's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import torch

from robot_policies.pages.drawing import SENTINELS, STYLE, new_figure, to_svg

if TYPE_CHECKING:
    from robot_policies.retrieval.retrieve import Retrieval

MAX_POINTS = 700
MAX_EPISODES = 40
SEGMENTS = 80


def plot_distances(retrieval: Retrieval) -> str:
    """Histogram of the prior's distances, the selected part filled."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.7, 3.4)
        distances, kept = retrieval.distances, retrieval.weights > 0
        bins = np.linspace(float(distances.min()), float(np.quantile(distances, 0.995)) + 1e-6, 50).tolist()
        axes.hist(distances, bins=bins, color=SENTINELS["grid"], label="prior", histtype="stepfilled")
        axes.hist(
            distances[kept],
            bins=bins,
            color=SENTINELS["accent"],
            alpha=0.8,
            label="selected",
            histtype="stepfilled",
        )
        axes.set(xlabel="distance to the target", ylabel="steps", title="Distances")
        axes.legend(loc="upper right")
        return to_svg(figure, "histogram of distances to the target")


def plot_embedding(retrieval: Retrieval) -> str:
    """Prior, selected and target steps in the plane of the two largest principal components."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.7, 3.4)
        both = torch.cat([retrieval.prior_z[: 50 * MAX_POINTS], retrieval.target_z])
        _, _, directions = torch.pca_lowrank(both, q=min(2, *both.shape), niter=4)
        centre = both.mean(dim=0)
        kept = torch.from_numpy(retrieval.weights > 0)
        for points, colour, size, label in (
            (retrieval.prior_z[~kept], "muted", 8, "left out"),
            (retrieval.prior_z[kept], "accent", 9, "selected"),
            (retrieval.target_z, "bad", 12, "target"),
        ):
            shown = points[np.linspace(0, len(points) - 1, min(len(points), MAX_POINTS)).astype(np.int64)]
            plane = ((shown - centre) @ directions).numpy()
            if len(plane) and plane.shape[1] == 2:
                axes.scatter(
                    plane[:, 0], plane[:, 1], s=size, color=SENTINELS[colour], alpha=0.5, lw=0, label=label
                )
        axes.set(title="Embedding, two principal components", xticks=[], yticks=[])
        axes.legend(loc="upper right", markerscale=1.4)
        return to_svg(figure, "steps in the plane of two principal components")


def plot_episodes(retrieval: Retrieval, labels: Sequence[str]) -> str:
    """Share of selected steps along each episode, from its start to its end; the most used episodes."""
    ends = np.asarray(retrieval.prior.episode_ends)
    starts = np.concatenate([[0], ends[:-1]])
    shares = []
    for start, end in zip(starts, ends, strict=True):
        kept = (retrieval.weights[start:end] > 0).astype(np.float64)
        edges = np.linspace(0, len(kept), SEGMENTS + 1)
        total = np.interp(edges, np.arange(len(kept) + 1), np.concatenate([[0.0], kept.cumsum()]))
        shares.append(np.diff(total) / np.diff(edges))
    table = np.array(shares)
    order = np.argsort(-table.mean(axis=1), kind="stable")
    # Evenly through the ranking, so that used and unused episodes are seen.
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MAX_EPISODES)).astype(np.int64))]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(9.6, 0.9 + 0.17 * len(shown))
        for row, episode in enumerate(shown):
            for level in (0.1, 0.35, 0.6, 0.85):  # four layers: the darker, the larger the share
                bars = [(float(i), 1.0) for i in np.flatnonzero(table[episode] >= level)]
                axes.broken_barh(bars, (row - 0.4, 0.8), color=SENTINELS["accent"], alpha=0.3, lw=0)
        axes.set(xlim=(0, SEGMENTS), ylim=(len(shown) - 0.4, -0.6), xlabel="start of the episode to its end")
        axes.set_xticks([])
        axes.set_yticks(range(len(shown)), [f"{labels[e]} {e}" for e in shown], fontsize=7)
        axes.grid(visible=False)
        more = (
            f" ({len(shown)} of {len(order)} episodes, evenly through the ranking)"
            if len(shown) < len(order)
            else ""
        )
        axes.set_title(f"Selected share along each episode{more}")
        return to_svg(figure, "selected share along each episode")
