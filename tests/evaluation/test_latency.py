"""Latency figures."""

import numpy as np
import pytest

from robot_policies.evaluation.episode import ChunkRequest
from robot_policies.evaluation.inference import measure_latency
from robot_policies.evaluation.latency import summarise_latency


def test_percentiles_of_known_times():
    """0 to 100 ms: the percentiles are their own names."""
    summary = summarise_latency(np.arange(101))
    assert summary is not None
    assert (summary.n, summary.mean_ms, summary.max_ms) == (101, 50, 100)
    assert (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms) == (50, 90, 95, 99)


def test_no_times_no_summary():
    """Nothing measured is None, not zero."""
    assert summarise_latency([]) is None


@pytest.mark.parametrize(("calls", "budget_s", "expected"), [(5, 60.0, 5), (5, 0.0, 1)])
def test_measuring_is_bounded(policy, calls, budget_s, expected):
    """The first call is not counted; a slow policy is measured at least once."""
    import torch

    request = ChunkRequest(step=0, observation={"observation.state": np.zeros((2, 2), dtype=np.float32)})
    times = measure_latency(
        policy, request, sampler=None, device=torch.device("cpu"), calls=calls, budget_s=budget_s
    )
    assert len(times) == expected
    assert len(policy.batch_sizes) == expected + 1
