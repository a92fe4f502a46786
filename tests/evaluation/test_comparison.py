"""Comparing two evaluations seed by seed."""

import json

import numpy as np
import pytest

from robot_policies.cli.main import main
from robot_policies.evaluation.comparison import compare_folders, compare_results
from robot_policies.evaluation.results import EpisodeResult, ResultsError, ResultsFolder


def results(scores, start=0):
    """One result per score; a score of 1 is a success."""
    return [
        EpisodeResult(
            task="toy", seed=start + i, score=float(s), max_reward=float(s), sum_reward=0.0, success=s >= 1,
            success_step=None, steps=1, wall_time_s=0.0, n_chunks=1, n_network_calls=1, policy_latency_ms=1.0,
        )
        for i, s in enumerate(scores)
    ]  # fmt: skip


def folder(path, scores, **task):
    """A results folder with these scores."""
    protocol = {
        "format": 1,
        "task": {"name": "toy", "score": "max_reward", "max_steps": 300, **task},
        "seeds": list(range(len(scores))),
        "checkpoint": {"sha256": str(path)},
    }
    opened = ResultsFolder.open(path, protocol)
    for result in results(scores):
        opened.append(result)
    return opened


def test_only_common_seeds_count():
    """Seeds that one side lacks are left out, and counted."""
    comparison = compare_results(results([0, 1, 1]), results([1, 1, 1], start=1))
    assert (comparison.n, comparison.left_out) == (2, 2)


def test_discordant_episodes_are_counted():
    """McNemar's counts are the seeds on which exactly one side succeeded."""
    comparison = compare_results(results([1, 1, 0, 0, 0.5]), results([1, 0, 1, 1, 1]))
    assert (comparison.only_first, comparison.only_second) == (1, 3)
    assert comparison.p_value == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.1, "the second scores higher"), (-0.1, "the first"), (0, "no difference")]
)
def test_verdict_follows_the_interval(shift, verdict):
    """A sentence claims a difference only if the interval excludes 0."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.8, 60)
    noise = rng.normal(scale=0.02, size=60)
    assert compare_results(results(scores), results(scores + shift + noise)).verdict().startswith(verdict)


def test_nothing_in_common_is_refused():
    """Evaluations on disjoint seeds cannot be paired."""
    with pytest.raises(ResultsError, match="no seed in common"):
        compare_results(results([1]), results([1], start=5))


def test_other_tasks_are_refused_and_other_protocols_named(tmp_path):
    """Two tasks cannot be compared; other differences than the policy's are pointed out."""
    a = folder(tmp_path / "a", [1, 0])
    with pytest.raises(ResultsError, match="compare evaluations of one task"):
        compare_folders(a, folder(tmp_path / "b", [1, 0], name="other"))
    comparison = compare_folders(a, folder(tmp_path / "c", [1, 0], max_steps=100))
    assert comparison.protocol_differences == ("task.max_steps: 300 -> 100",)


def test_command_line(tmp_path, capsys):
    """`compare` prints a table, or one JSON object."""
    folder(tmp_path / "a", [0, 0, 1])
    folder(tmp_path / "b", [1, 1, 1])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["n"], answer["only_second"]) == (3, 2)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "nowhere")]) == 2
    assert "nowhere holds no protocol.json" in capsys.readouterr().err
