"""One HTML file that shows an evaluation: plots and videos inline, readable offline, safe to send around."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from robot_policies.evaluation import plots
from robot_policies.evaluation.report_foresight import foresight_section
from robot_policies.evaluation.report_tables import (
    episode_table,
    executed_steps,
    failure_list,
    protocol_table,
)
from robot_policies.evaluation.results import EpisodeResult, ResultsFolder
from robot_policies.pages.page import command_card, section, write_page

# Single clips beyond this much base64 stay in the videos folder, so that the report can be mailed.
MAX_CLIPS_BYTES = 12_000_000


def write_report(folder: ResultsFolder, summary: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into a results folder and return its path.

    Args:
        folder: Results and their protocol; videos are taken from its ``videos`` folder.
        summary: What `robot_policies.evaluation.summary.summarise` returned, with ``video_problems`` and
            ``single_latency_ms`` if there are any.
    """
    results, protocol = folder.results, folder.protocol
    sections = [
        _warnings(summary),
        _headline(summary),
        _facts(summary, protocol),
        _videos(folder, summary),
        section("What it expected, and what happened", foresight_section(folder.path)),
        _plots(folder, summary),
        section("Failures", failure_list(results)),
        section("Protocol", protocol_table(protocol)),
        section("Episodes", episode_table(results)),
        section("Reproduce", _command(protocol)),
        _method(summary),
    ]
    task = protocol["task"]
    path = folder.path / "report.html"
    write_page(
        path,
        title=f"{task['name']}: {_main_value(summary)}",
        heading=task["name"],
        subtitle=f"{escape(task['instruction'])} &middot; {escape(_policy_name(protocol))}",
        sections=sections,
    )
    return path


def _policy_name(protocol: Mapping[str, Any]) -> str:
    checkpoint = protocol["checkpoint"]
    parameters = checkpoint.get("n_parameters")
    size = f", {parameters / 1e6:.3g} M parameters" if parameters else ""
    return f"{checkpoint.get('policy', 'policy')}{size}"


def _main_value(summary: Mapping[str, Any]) -> str:
    if summary["score_rule"] == "success":
        return f"{100 * summary['success']['value']:.1f} % success"
    return f"score {summary['score']['value']:.3f}"


def _warnings(summary: Mapping[str, Any]) -> str:
    texts = []
    missing = summary["n_requested"] - summary["n_episodes"]
    if missing and summary.get("stopped"):
        texts.append(
            f"Stopped early, {missing} of {summary['n_requested']} episodes not run: {summary['stopped']}."
        )
    elif missing:
        texts.append(
            f"{missing} of {summary['n_requested']} episodes have not been run: the result is partial."
        )
    if summary["n_failures"]:
        texts.append(
            f"{summary['n_failures']} episodes did not finish because something broke; they count as score 0. "
            "See Failures."
        )
    problems = summary.get("video_problems", {})
    if problems:
        seed, problem = next(iter(problems.items()))
        texts.append(f"{len(problems)} videos have a problem, first seed {seed}: {problem}")
    return "".join(f'<p class="warning">{escape(text)}</p>' for text in texts)


def _headline(summary: Mapping[str, Any]) -> str:
    success, score = summary["success"], summary["score"]
    rate = _metric(
        "Success rate",
        f"{100 * success['value']:.1f} %",
        f"{100 * success['low']:.1f} % to {100 * success['high']:.1f} %",
        success,
        f"{summary['n_successes']} of {summary['n_episodes']} episodes",
        minor=summary["score_rule"] != "success",
    )
    if summary["score_rule"] == "success":
        return f'<div class="headline">{rate}</div>'
    rule = "the return" if summary["score_rule"] == "return" else "the best reward per episode"
    mean = _metric(
        f"Score: mean of {rule}",
        f"{score['value']:.3f}",
        f"{score['low']:.3f} to {score['high']:.3f}",
        score,
        f"{summary['n_episodes']} episodes",
    )
    return f'<div class="headline">{mean}{rate}</div>'


def _metric(
    name: str, value: str, limits: str, interval: Mapping[str, Any], count: str, *, minor: bool = False
) -> str:
    low, middle, high = (100 * min(max(interval[k], 0.0), 1.0) for k in ("low", "value", "high"))
    bounded = all(0.0 <= interval[k] <= 1.0 for k in ("low", "value", "high"))
    return (
        f'<div class="card metric{" minor" if minor else ""}"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div>'
        f'<div class="range">{100 * interval["confidence"]:.0f} % interval <b>{escape(limits)}</b>'
        f" &middot; {escape(count)}</div>"
        + (  # a return has no such scale
            f'<div class="bar" role="presentation"><i style="left:{low:.2f}%;right:{100 - high:.2f}%"></i>'
            f'<b style="left:{middle:.2f}%"></b></div>'
            '<div class="scale"><span>0</span><span>1</span></div></div>'
            if bounded
            else "</div>"
        )
    )


def _facts(summary: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    fps = protocol["task"]["fps"]
    single, batched = summary["latency_single"], summary["latency_batched"]
    facts: list[tuple[str, str, str]] = []
    if summary["median_success_step"] is not None:
        facts.append(("Median time to success", f"{summary['median_success_step'] / fps:.1f} s", "simulated"))
    facts.append(
        ("Mean episode", f"{summary['mean_steps'] / fps:.1f} s", f"{summary['mean_steps']:.0f} steps")
    )
    if summary["network_calls_per_chunk"] is not None:
        facts.append(("Network calls", f"{summary['network_calls_per_chunk']:g}", "per chunk"))
    if single:
        facts.append(
            ("Policy latency", f"{single['p50_ms']:.3g} ms", f"99 %: {single['p99_ms']:.3g} ms, batch 1")
        )
    elif batched:
        facts.append(
            ("Policy latency", f"{batched['p50_ms']:.3g} ms", f"batch {summary['mean_batch_size']:.0f}")
        )
    horizon = executed_steps(protocol)
    facts.append(("A chunk lasts", f"{1e3 * horizon / fps:.0f} ms", f"{horizon} steps at {fps:g} Hz"))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<dl class="card facts">{cells}</dl>'


def _videos(folder: ResultsFolder, summary: Mapping[str, Any]) -> str:
    videos = folder.path / "videos"
    filmed = [r for r in folder.results if (videos / f"{r.seed}.mp4").is_file()]
    grid = videos / "grid.mp4"
    parts = []
    if grid.is_file():
        label = "Seed and score" if summary["score_rule"] == "max_reward" else "The seed"
        parts.append(
            f'<figure class="card grid-video">{_video(grid, "autoplay muted loop")}<figcaption>{label} under each '
            "episode; green: success, red: none. An episode that is over stays on its last frame, dimmed."
            "</figcaption></figure>"
        )
    clips, used = [], 0
    # The episodes one wants to look at first: those that went wrong.
    for result in sorted(filmed, key=lambda r: (r.success, r.seed)):
        path = videos / f"{result.seed}.mp4"
        used += path.stat().st_size * 4 // 3
        if used > MAX_CLIPS_BYTES:
            break
        clips.append(_clip(path, result))
    if clips:
        left = len(filmed) - len(clips)
        more = f'<p class="note">{left} more are in the videos folder.</p>' if left else ""
        parts.append(
            f'<details class="clips-box"><summary>{len(clips)} single episodes</summary>'
            f'<div class="clips">{"".join(clips)}</div>{more}</details>'
        )
    return section("Videos", "".join(parts))


def _clip(path: Path, result: EpisodeResult) -> str:
    return (
        f'<figure class="{"passed" if result.success else "missed"}">{_video(path, "muted")}'
        f"<figcaption>seed {result.seed} &middot; score {result.score:.3f} &middot; {result.steps} steps"
        "</figcaption></figure>"
    )


def _video(path: Path, attributes: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<video controls playsinline {attributes} src="data:video/mp4;base64,{data}"></video>'


def _plots(folder: ResultsFolder, summary: Mapping[str, Any]) -> str:
    results, task = folder.results, folder.protocol["task"]
    fps = task["fps"]
    drawings = [plots.plot_rewards(results, fps=fps)] if any(len(r.rewards) for r in results) else []
    if task["score"] == "success":
        drawings.append(plots.plot_success_over_time(results, fps=fps, max_steps=task["max_steps"]))
        wide = []
    else:
        drawings.append(plots.plot_score_histogram(results))
        wide = [plots.plot_scores(results, summary)]
    budget = 1e3 * executed_steps(folder.protocol) / fps
    single = summary.get("single_latency_ms") or []
    if single:
        drawings.append(plots.plot_latency(single, budget_ms=budget, title="Latency, one environment"))
    batched = [float(t) for r in results for t in r.latencies_ms]
    if batched:
        title = f"Latency, batches of {summary['mean_batch_size']:.0f}"
        drawings.append(plots.plot_latency(batched, budget_ms=None, title=title))
    figures = [f'<figure class="card wide">{svg}</figure>' for svg in wide]
    figures += [f'<figure class="card">{svg}</figure>' for svg in drawings]
    training = plots.plot_training(read_metrics(folder.protocol))
    if training is not None:
        figures.append(f'<figure class="card wide">{training}</figure>')
    return section("Measurements", f'<div class="plots">{"".join(figures)}</div>')


def read_metrics(protocol: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lines of the training run's ``metrics.jsonl``; empty if the run folder is not there any more."""
    checkpoint = Path(protocol["checkpoint"].get("path") or "-")
    for folder in (checkpoint, *list(checkpoint.parents)[:2]):
        path = folder / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
            return [json.loads(line) for line in lines if line]
    return []


def _command(protocol: Mapping[str, Any]) -> str:
    return command_card(
        protocol["command"],
        "The same seeds, checkpoint and software versions repeat these numbers; "
        "the checkpoint and the data are identified by the hashes above.",
    )


def _method(summary: Mapping[str, Any]) -> str:
    text = (
        "Success rates carry Wilson score intervals, mean scores bootstrap intervals (BCa, 10,000 resamples of "
        "episodes, fixed seed). A seed fixes the initial state and the policy's noise. "
        f"Clopper-Pearson for the success rate: {100 * summary['success_exact']['low']:.1f} % to "
        f"{100 * summary['success_exact']['high']:.1f} %. The intervals cover the choice of initial states and noise, "
        "not that of the training seed."
    )
    return f'<p class="note">{escape(text)}</p>'
