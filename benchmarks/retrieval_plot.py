"""The picture of benchmarks/retrieval.py: what was found, how near each source is, and what it brought."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import retrieval_pool as pool

from robot_datasets.selection import Selection
from robot_datasets.store import EpisodeStore

COLOURS = {"useful": "#2a9d8f", "turned": "#e9c46a", "noisy": "#e76f51", "wandering": "#8d99ae"}
NAMES = {
    "nearest": "nearest",
    "nearest-transitions": "transitions",
    "nearest-raw": "no VAE",
    "importance": "IWR",
}
ARMS = ("target", "mixed", "retrieved", "weighted", "oracle")


def plot(folder: Path, draw: int, found: Sequence[dict[str, Any]], judged: Sequence[dict[str, Any]]) -> None:
    """Write ``retrieval.png`` into the benchmark's output folder.

    Args:
        folder: The output folder.
        draw: The draw whose distances are shown.
        found: What `retrieve_all` returned, by draw.
        judged: Scores by arm, by draw.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    _shares(left, found)
    _distances(middle, folder / f"draw{draw}")
    _scores(right, judged)
    figure.savefig(folder / "retrieval.png", dpi=90)
    plt.close(figure)


def _shares(axes: Any, found: Sequence[dict[str, Any]]) -> None:
    steps = [{s["name"]: s["steps"] for s in f["nearest"]["sources"]} for f in found]
    bars = {"whole pool": [{name: n / sum(s.values()) for name, n in s.items()} for s in steps]}
    for key, name in NAMES.items():
        bars[name] = [{s["name"]: s["weight"] for s in f[key]["sources"]} for f in found]
    bottom = np.zeros(len(bars))
    for source in pool.SOURCES:
        height = np.array([100 * np.mean([share.get(source, 0.0) for share in b]) for b in bars.values()])
        axes.bar(list(bars), height, bottom=bottom, color=COLOURS[source], label=source)
        bottom += height
    axes.set(title="What the prior's half of a batch is", ylabel="share of draws [%]")
    axes.tick_params(axis="x", rotation=20)
    axes.legend(fontsize=8)


def _distances(axes: Any, folder: Path) -> None:
    from robot_policies.retrieval.report import source_labels

    prior = EpisodeStore.open(folder / "prior.zarr")
    distances = Selection.load(folder / "nearest.npz").distances
    labels = np.repeat(
        [label.split("/")[0] for label in source_labels(prior)], np.diff(prior.episode_ends, prepend=0)
    )
    bins = np.linspace(0, float(np.quantile(distances, 0.99)), 50)
    for source in pool.SOURCES:
        axes.hist(
            distances[labels == source], bins=bins, histtype="step", color=COLOURS[source], label=source
        )
    axes.axvline(np.quantile(distances, 0.2), color="black", lw=0.8, ls=":", label="20 % kept")
    axes.set(title=f"Distance to the target ({folder.name})", xlabel="distance", ylabel="steps")
    axes.legend(fontsize=8)


def _scores(axes: Any, judged: Sequence[dict[str, Any]]) -> None:
    from robot_policies.evaluation.statistics import bootstrap_mean

    intervals = [bootstrap_mean(np.mean([j[arm]["score"] for j in judged], axis=0)) for arm in ARMS]
    values = np.array([i.value for i in intervals])
    errors = np.array([[i.value - i.low, i.high - i.value] for i in intervals]).T
    axes.bar(list(ARMS), values, yerr=errors, color="#264653", capsize=4, alpha=0.85)
    for j in judged:
        axes.plot(list(ARMS), [np.mean(j[arm]["score"]) for arm in ARMS], "o", color="#e76f51", ms=4)
    axes.set(title="Score of the policy (bars: 95 %, dots: draws)", ylabel="score", ylim=(0, 1))
    axes.tick_params(axis="x", rotation=20)
