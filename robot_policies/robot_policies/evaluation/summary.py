"""The numbers of an evaluation, computed from its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robot_policies.evaluation.latency import summarise_latency
from robot_policies.evaluation.results import EpisodeResult
from robot_policies.evaluation.statistics import bootstrap_mean, clopper_pearson_interval, wilson_interval


def summarise(
    results: Sequence[EpisodeResult], protocol: Mapping[str, Any], *, single_latency_ms: Sequence[float] = ()
) -> dict[str, Any]:
    """Return the JSON-ready summary of finished episodes.

    An episode that failed to finish counts as an episode without success and with score 0.

    Args:
        results: At least one result.
        protocol: The protocol they belong to.
        single_latency_ms: Wall times of policy calls for one environment, as on a robot [ms].
    """
    successes = sum(result.success for result in results)
    n = len(results)
    steps = [result.success_step for result in results if result.success and result.success_step is not None]
    batched = np.concatenate([np.asarray(result.latencies_ms, dtype=np.float64) for result in results])
    sizes = np.concatenate([np.asarray(result.batch_sizes, dtype=np.int64) for result in results])
    single, many = summarise_latency(single_latency_ms), summarise_latency(batched)
    return {
        "task": protocol["task"]["name"],
        "score_rule": protocol["task"]["score"],
        "n_episodes": n,
        "n_requested": len(protocol["seeds"]),
        "n_successes": successes,
        "n_failures": sum(bool(result.failure) for result in results),
        "success": wilson_interval(successes, n).to_dict(),
        "success_exact": clopper_pearson_interval(successes, n).to_dict(),
        "score": bootstrap_mean([result.score for result in results]).to_dict(),
        "mean_steps": float(np.mean([result.steps for result in results])),
        "median_success_step": float(np.median(steps)) if steps else None,
        "network_calls_per_chunk": _ratio(
            sum(result.n_network_calls for result in results), sum(result.n_chunks for result in results)
        ),
        "latency_single": None if single is None else single.to_dict(),
        "latency_batched": None if many is None else many.to_dict(),
        "mean_batch_size": round(float(sizes.mean()), 2) if len(sizes) else None,
    }


def headline(summary: Mapping[str, Any]) -> str:
    """The result in one line, with its interval."""
    success = summary["success"]
    rate = (
        f"success {_percent(success['value'])} "
        f"[{_percent(success['low'])}, {_percent(success['high'])}] "
        f"({summary['n_successes']} of {summary['n_episodes']})"
    )
    if summary["score_rule"] == "success":
        return f"{summary['task']}: {rate}"
    score = summary["score"]
    return f"{summary['task']}: score {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}], {rate}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _ratio(a: float, b: float) -> float | None:
    return round(a / b, 3) if b else None
