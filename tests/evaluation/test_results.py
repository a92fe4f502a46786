"""The results folder: nothing is lost, nothing is mixed."""

import copy
import json

import numpy as np
import pytest

from robot_policies.evaluation.protocol import differences
from robot_policies.evaluation.results import EpisodeResult, ResultsError, ResultsFolder

PROTOCOL = {
    "format": 1,
    "task": {"name": "toy", "score": "success", "options": {}},
    "seeds": [3, 4, 5],
    "policy_seed": 0,
    "horizons": {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4},
    "executor": {"type": "receding_horizon"},
    "sampler": {"type": "ddim", "steps": 10},
    "checkpoint": {"path": "runs/a", "sha256": "abc"},
    "software": {"torch": "2"},
    "machine": {"device": "cpu"},
}


def result(seed, **changes):
    values = {
        "task": "toy", "seed": seed, "score": 1.0, "max_reward": 1.0, "sum_reward": 2.0, "success": True,
        "success_step": 7, "steps": 9, "wall_time_s": 0.5, "n_chunks": 3, "n_network_calls": 30,
        "policy_latency_ms": 1.5,
        "actions": np.arange(18, dtype=np.float32).reshape(9, 2), "rewards": np.linspace(0, 1, 9),
        "latencies_ms": np.array([1.0, 2.0, 1.5]), "batch_sizes": np.array([4, 4, 2]),
    }  # fmt: skip
    return EpisodeResult(**{**values, **changes})


def changed(**parts):
    protocol = copy.deepcopy(PROTOCOL)
    protocol.update(parts)
    return protocol


def test_what_is_written_is_read(tmp_path):
    """Records and arrays come back equal, in the order of the protocol's seeds."""
    folder = ResultsFolder.open(tmp_path, PROTOCOL)
    broken = result(3, success=False, success_step=None, policy_latency_ms=None, failure="ValueError: no")
    folder.append(result(4))
    folder.append(broken)
    again = ResultsFolder.read(tmp_path)
    assert again.results == [broken, result(4)]
    np.testing.assert_array_equal(again.results[1].actions, result(4).actions)
    np.testing.assert_array_equal(again.results[1].latencies_ms, [1.0, 2.0, 1.5])
    assert again.missing_seeds() == [5]


def test_one_json_line_per_episode(tmp_path):
    """results.jsonl is plain JSON lines with the promised fields."""
    folder = ResultsFolder.open(tmp_path, PROTOCOL)
    folder.append(result(3))
    folder.append(result(4))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [3, 4]
    assert {"score", "max_reward", "success", "steps", "n_network_calls", "failure"} <= set(
        json.loads(lines[0])
    )


def test_resume_skips_finished_seeds_and_extends(tmp_path):
    """The same protocol with more seeds continues."""
    ResultsFolder.open(tmp_path, PROTOCOL).append(result(4))
    again = ResultsFolder.open(tmp_path, changed(seeds=[3, 4, 5, 6]))
    assert again.missing_seeds() == [3, 5, 6]


def test_fewer_seeds_count_fewer_results(tmp_path):
    """Results of seeds that are not asked for are kept on disk but not counted."""
    folder = ResultsFolder.open(tmp_path, PROTOCOL)
    for seed in (3, 4, 5):
        folder.append(result(seed))
    assert [r.seed for r in ResultsFolder.open(tmp_path, changed(seeds=[3, 5])).results] == [3, 5]


def test_a_torn_last_line_is_dropped(tmp_path):
    """A line cut off by a kill does not count, and does not spoil the next one."""
    folder = ResultsFolder.open(tmp_path, PROTOCOL)
    folder.append(result(3))
    folder.append(result(4))
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = ResultsFolder.open(tmp_path, PROTOCOL)
    assert again.missing_seeds() == [4, 5]
    again.append(result(4))
    assert [r.seed for r in ResultsFolder.read(tmp_path).results] == [3, 4]


@pytest.mark.parametrize(
    "parts",
    [
        {"checkpoint": {"path": "runs/a", "sha256": "def"}},
        {"sampler": {"type": "ddim", "steps": 5}},
        {"sampler": None},
        {"policy_seed": 1},
        {"executor": {"type": "receding_horizon", "n_action_steps": 2}},
        {"task": {"name": "toy", "score": "success", "options": {"images": True}}},
        {"software": {"torch": "3"}},
    ],
)
def test_another_protocol_is_refused(tmp_path, parts):
    """Results of two protocols never share a file; the message names the difference and the way out."""
    ResultsFolder.open(tmp_path, PROTOCOL).append(result(3))
    before = (tmp_path / "protocol.json").read_text()
    with pytest.raises(ResultsError, match=r"another protocol \((.+ -> .+)\); choose another output_dir"):
        ResultsFolder.open(tmp_path, changed(**parts))
    assert (tmp_path / "protocol.json").read_text() == before


def test_machine_and_seeds_are_no_difference():
    """Another machine, checkpoint path or set of seeds is the same protocol."""
    other = changed(machine={"device": "cuda"}, seeds=[9], checkpoint={"path": "elsewhere", "sha256": "abc"})
    assert differences(PROTOCOL, other) == []


def test_no_resume(tmp_path):
    """Without resume, a folder with results is refused; overwrite starts again."""
    ResultsFolder.open(tmp_path, PROTOCOL).append(result(3))
    with pytest.raises(ResultsError, match="already holds 1 results"):
        ResultsFolder.open(tmp_path, PROTOCOL, resume=False)
    (tmp_path / "mine.txt").write_text("keep")
    fresh = ResultsFolder.open(tmp_path, changed(policy_seed=1), overwrite=True)
    assert fresh.missing_seeds() == [3, 4, 5]
    assert not list((tmp_path / "trajectories").iterdir())
    assert (tmp_path / "mine.txt").exists()


def test_a_folder_that_is_no_evaluation(tmp_path):
    """Reading another folder says what was expected."""
    with pytest.raises(ResultsError, match="expected a folder written by 'robot-policies eval'"):
        ResultsFolder.read(tmp_path)


def test_damage_is_named(tmp_path):
    """A line that is no result is reported with its number."""
    folder = ResultsFolder.open(tmp_path, PROTOCOL)
    folder.append(result(3))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"seed": "four"}\n')
    with pytest.raises(ResultsError, match="line 2 is not a result"):
        ResultsFolder.read(tmp_path)


def test_results_without_a_protocol_are_refused(tmp_path):
    """results.jsonl alone does not say what it is of."""
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ResultsError, match="without protocol"):
        ResultsFolder.open(tmp_path, PROTOCOL)
