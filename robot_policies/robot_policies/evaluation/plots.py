"""The figures of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from robot_policies.evaluation.results import EpisodeResult
from robot_policies.pages.drawing import SENTINELS, STYLE, log_scale, new_figure, new_panels, to_svg

# Above so many episodes single curves are noise: the band of percentiles is drawn instead.
MAX_CURVES = 60


def plot_scores(results: Sequence[EpisodeResult], summary: Mapping[str, Any]) -> str:
    """Score of every episode by seed, with the mean and its interval."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(9.6, 2.9)
        x = np.arange(len(results))
        score = summary["score"]
        axes.axhspan(score["low"], score["high"], color=SENTINELS["accent"], alpha=0.15, lw=0)
        axes.axhline(score["value"], color=SENTINELS["accent"], lw=1.5)
        for passed, colour, marker, label in (
            (True, "good", "o", "success"),
            (False, "bad", "X", "no success"),
        ):
            chosen = [i for i, result in enumerate(results) if result.success == passed]
            if chosen:
                scores = [results[i].score for i in chosen]
                axes.vlines(x[chosen], 0, scores, color=SENTINELS[colour], alpha=0.35, lw=1)
                axes.plot(x[chosen], scores, marker, color=SENTINELS[colour], ms=4.5, label=label, mew=0)
        axes.set(ylim=(-0.04, 1.06), xlim=(-1, len(results)), ylabel="score", xlabel="seed")
        ticks = list(range(0, len(results), max(1, -(-len(results) // 10))))
        axes.set_xticks(ticks, [str(results[i].seed) for i in ticks])
        axes.grid(axis="x", visible=False)
        axes.set_title(f"Score per episode: mean {score['value']:.3f} with its 95 % interval")
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
        return to_svg(figure, "score of every episode")


def plot_score_histogram(results: Sequence[EpisodeResult]) -> str:
    """How the scores are distributed."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.7, 2.9)
        axes.hist(
            [r.score for r in results],
            bins=np.linspace(0, 1, 21).tolist(),
            color=SENTINELS["accent"],
            rwidth=0.9,
        )
        axes.set(xlabel="score", ylabel="episodes", xlim=(0, 1), title="Distribution of scores")
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return to_svg(figure, "histogram of scores")


def plot_success_over_time(results: Sequence[EpisodeResult], *, fps: float, max_steps: int) -> str:
    """Share of all episodes that have succeeded by a given time."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.7, 2.9)
        steps = sorted(r.success_step for r in results if r.success and r.success_step is not None)
        times = np.array([0, *steps, max_steps]) / fps
        share = np.array([0, *range(1, len(steps) + 1), len(steps)]) / len(results)
        axes.step(times, share, where="post", color=SENTINELS["good"], lw=1.8)
        axes.fill_between(times, share, step="post", color=SENTINELS["good"], alpha=0.15, lw=0)
        axes.set(xlabel="time [s]", ylabel="share of episodes", ylim=(0, 1.03), xlim=(0, max_steps / fps))
        axes.set_title("Succeeded by time")
        return to_svg(figure, "share of episodes that succeeded by a given time")


def plot_rewards(results: Sequence[EpisodeResult], *, fps: float) -> str:
    """Best reward so far over time: every episode, and their mean."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.7, 2.9)
        curves = [np.maximum.accumulate(r.rewards) for r in results if len(r.rewards)]
        longest = max((len(c) for c in curves), default=1)
        # An episode that is over keeps its best reward, so that all episodes count at all times.
        padded = np.array([np.pad(c, (0, longest - len(c)), mode="edge") for c in curves])
        times = np.arange(1, longest + 1) / fps
        if len(curves) > MAX_CURVES:
            low, high = np.percentile(padded, (10, 90), axis=0)
            axes.fill_between(
                times, low, high, color=SENTINELS["accent"], alpha=0.2, lw=0, label="10 to 90 %"
            )
        else:
            for curve, result in zip(curves, [r for r in results if len(r.rewards)], strict=True):
                colour = SENTINELS["good" if result.success else "bad"]
                axes.plot(times[: len(curve)], curve, color=colour, lw=0.7, alpha=0.45)
        if len(padded):
            axes.plot(times, padded.mean(axis=0), color=SENTINELS["ink"], lw=2, label="mean")
            axes.legend(loc="lower right")
        axes.set(xlabel="time [s]", ylabel="best reward so far", xlim=(0, longest / fps))
        axes.set_title("Reward over time")
        return to_svg(figure, "best reward so far, over time")


def plot_latency(times_ms: Sequence[float], *, budget_ms: float | None, title: str) -> str:
    """Histogram of policy calls, with percentiles and the time a chunk buys."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.7, 2.9)
        times = np.asarray(times_ms, dtype=np.float64)
        p50, p99 = np.percentile(times, (50, 99))
        right = max(float(times.max()) * 1.05, 1e-3)
        axes.hist(
            times,
            bins=np.linspace(min(0.0, float(times.min())), right, 41).tolist(),
            color=SENTINELS["second"],
            histtype="stepfilled",  # one outline: 40 bars are 40 things to draw
        )
        for value, label, style in ((p50, "median", "-"), (p99, "99 %", "--")):
            axes.axvline(
                value, color=SENTINELS["ink"], lw=1.2, ls=style, label=f"{label} {_digits(value)} ms"
            )
        if budget_ms is not None and budget_ms < right:
            axes.axvline(
                budget_ms, color=SENTINELS["bad"], lw=1.2, label=f"chunk lasts {_digits(budget_ms)} ms"
            )
        axes.set(xlabel="wall time of a call [ms]", ylabel="calls", title=title, xlim=(0, right))
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")  # calls take their time: there are none near 0
        return to_svg(figure, "latency of the policy")


def plot_training(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Loss and validation error of the training run; None if the lines hold neither."""
    losses = [
        (line["step"], line["loss"]) for line in lines if line.get("kind") == "train" and "loss" in line
    ]
    errors = {
        label: [(line["step"], line[key]) for line in lines if key in line]
        for key, label in (("train/action_nmse", "training"), ("val/action_nmse", "held-out"))
    }
    if not losses and not any(errors.values()):
        return None
    with mpl.rc_context(STYLE):
        figure, (left, right) = new_panels(9.6, 2.9, 2)
        if losses:
            left.plot(*zip(*losses, strict=True), color=SENTINELS["accent"], lw=1.2)
            log_scale(left)
        left.set(xlabel="step", ylabel="loss", title="Training loss")
        for (label, points), colour in zip(errors.items(), ("accent", "second"), strict=True):
            if points:
                right.plot(
                    *zip(*points, strict=True), "o-", color=SENTINELS[colour], lw=1.4, ms=3, label=label
                )
        right.set(xlabel="step", ylabel="normalised squared error", title="Error of sampled actions")
        if any(errors.values()):
            log_scale(right)
            right.legend()
        return to_svg(figure, "training curves")


def _digits(value: float) -> str:
    """Three significant digits, never an exponent: 0.41, 41.2, 2,010."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
