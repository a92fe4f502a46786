"""Two evaluations, compared seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from robot_policies.evaluation.protocol import differences
from robot_policies.evaluation.results import EpisodeResult, ResultsError, ResultsFolder
from robot_policies.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    mcnemar_exact,
    paired_difference,
    wilson_interval,
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Second minus first, on the seeds that both have.

    Attributes:
        n: Common seeds.
        left_out: Seeds that only one of the two has.
        success_first: Success rate of the first.
        success_second: Success rate of the second.
        score_first: Mean score of the first.
        score_second: Mean score of the second.
        score_difference: Mean of score(second) - score(first) over seeds, paired.
        only_first: Seeds on which only the first succeeded.
        only_second: Seeds on which only the second succeeded.
        p_value: McNemar's exact test that both succeed equally often.
        protocol_differences: What else differs between the two evaluations.
    """

    n: int
    left_out: int
    success_first: Interval
    success_second: Interval
    score_first: Interval
    score_second: Interval
    score_difference: Interval
    only_first: int
    only_second: int
    p_value: float
    protocol_differences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)

    def verdict(self) -> str:
        """What the numbers allow one to say, in one sentence."""
        difference = self.score_difference
        level = f"{100 * difference.confidence:.0f} %"
        if difference.low > 0:
            return f"the second scores higher: the {level} interval of the difference lies above 0"
        if difference.high < 0:
            return f"the first scores higher: the {level} interval of the difference lies below 0"
        return (
            f"no difference is shown: the {level} interval of the difference contains 0; more seeds narrow it"
        )


def compare_folders(first: ResultsFolder, second: ResultsFolder) -> Comparison:
    """Compare two results folders.

    Raises:
        ResultsError: They are of different tasks or scores, or have no seed in common.
    """
    tasks = [(f.protocol["task"]["name"], f.protocol["task"]["score"]) for f in (first, second)]
    if tasks[0] != tasks[1]:
        raise ResultsError(
            f"{first.path} is of task {tasks[0][0]} (score {tasks[0][1]}), {second.path} of task {tasks[1][0]} "
            f"(score {tasks[1][1]}); compare evaluations of one task"
        )
    ignored = ("checkpoint.", "sampler", "executor", "horizons", "policy_seed")
    changed = [d for d in differences(first.protocol, second.protocol) if not d.startswith(ignored)]
    return compare_results(first.results, second.results, protocol_differences=changed)


def compare_results(
    first: Sequence[EpisodeResult],
    second: Sequence[EpisodeResult],
    *,
    protocol_differences: Sequence[str] = (),
) -> Comparison:
    """Compare two sets of results on their common seeds.

    Raises:
        ResultsError: They have no seed in common.
    """
    by_seed = {result.seed: result for result in second}
    pairs = [(a, by_seed[a.seed]) for a in first if a.seed in by_seed]
    if not pairs:
        raise ResultsError(
            f"the two evaluations have no seed in common ({len(first)} and {len(second)} episodes); "
            f"run both with the same seed_start"
        )
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    only_first = sum(x.success and not y.success for x, y in pairs)
    only_second = sum(y.success and not x.success for x, y in pairs)
    return Comparison(
        n=len(pairs),
        left_out=len(first) + len(second) - 2 * len(pairs),
        success_first=wilson_interval(sum(x.success for x in a), len(a)),
        success_second=wilson_interval(sum(y.success for y in b), len(b)),
        score_first=bootstrap_mean([x.score for x in a]),
        score_second=bootstrap_mean([y.score for y in b]),
        score_difference=paired_difference([x.score for x in a], [y.score for y in b]),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar_exact(only_first, only_second),
        protocol_differences=tuple(protocol_differences),
    )
