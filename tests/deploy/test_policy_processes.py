"""The inference as a real process: its answers, its refusals, its end."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.errors import UserError
from robot_deploy.inference.client import Answer, InferenceConfig, InferenceProcess
from robot_deploy.observation.window import Window
from robot_deploy.runtime_config import ChunkRequest


def _request(process: InferenceProcess, ticket: int) -> ChunkRequest:
    arrays = {n: np.full((2, *f.shape), 0.1, dtype=np.float32) for n, f in process.spec.observation.items()}
    return ChunkRequest(ticket=ticket, window=Window(arrays=arrays, time_ns=0, ages_ms={}), continuation=None)


def test_the_process_answers_as_the_policy_does(still_checkpoint: Path):
    """The same window gives the same chunk as in process, and a killed process is told at once."""
    import torch

    from robot_policies.checkpoint import load_policy

    answers: list[Answer] = []
    process = InferenceProcess(InferenceConfig(checkpoint=str(still_checkpoint)))
    try:
        process.serve({}, {}, answers.append)
        request = _request(process, 7)
        process.ask(request)
        _until(lambda: len(answers) == 1)
        observation = {n: torch.from_numpy(a[None]) for n, a in request.window.arrays.items()}
        with torch.inference_mode():
            expected = load_policy(still_checkpoint).policy.predict_chunk(observation).actions[0].numpy()
        assert answers[0].ticket == 7
        assert answers[0].chunk is not None
        np.testing.assert_allclose(answers[0].chunk, expected, atol=1e-6)
        process._process.kill()
        _until(lambda: len(answers) == 2)
        assert "status -9" in answers[1].failed
    finally:
        process.close()


_LOADED_BY_AN_ANSWER = """
import sys
from robot_deploy.inference.block import ObservationBlock
from robot_deploy.inference.client import InferenceConfig
from robot_deploy.inference.worker import PolicyServer

server = PolicyServer(vars(InferenceConfig(checkpoint=sys.argv[1])))
server.attach({"max_bytes": {}, "images": {}}, ObservationBlock(server.spec, {}).descriptor)
before = set(sys.modules)
assert "predict_ms" in server.answer({"ticket": 1, "limit": None})
print(*sorted(set(sys.modules) - before))
"""


def test_the_first_answer_loads_nothing(still_checkpoint: Path):
    """What answers need is loaded before the process says that it is ready: the first is as quick as the others."""
    command = [sys.executable, "-c", _LOADED_BY_AN_ANSWER, str(still_checkpoint)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []


def test_a_bad_checkpoint_is_refused(tmp_path: Path):
    """What the loader says arrives as it is."""
    with pytest.raises(UserError, match="does not exist"):
        InferenceProcess(InferenceConfig(checkpoint=str(tmp_path / "nowhere")))


def _until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
