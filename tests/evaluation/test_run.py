"""From a checkpoint to a report, on the point mass and, once, on PushT."""

import json
import re
import shutil

import numpy as np
import pytest

from robot_datasets.errors import UserError
from robot_policies.checkpoint import CheckpointError, save_policy
from robot_policies.cli.main import main
from robot_policies.configuration import ConfigError
from robot_policies.evaluation import run as run_module
from robot_policies.evaluation.config import EvaluationConfig
from robot_policies.evaluation.results import ResultsError
from robot_policies.evaluation.run import rewrite_report, run_evaluation
from robot_policies.policies import build_policy
from robot_policies.spec import PolicySpec
from robot_sim import registry
from robot_sim.registry import TaskEntry, make_task, register_task

POLICY = {
    "type": "diffusion",
    "network": {"type": "mlp", "width": 16, "n_blocks": 1},
    "process": {"type": "edm"},
    "normalization": {"default": "min_max"},
}
SAMPLER = {"type": "ddim", "steps": 2}


@pytest.fixture(scope="module", autouse=True)
def point_mass_task():
    """Register the point mass for this process."""
    register_task("point_mass", TaskEntry(module="robot_policies.evaluation.point_mass"))
    yield
    del registry._TASKS["point_mass"]


def write_checkpoint(folder, spec, task, *, low=-1.0, high=1.0, card=None):
    """Save an untrained policy as the best checkpoint of a run."""
    stats = {
        name: {"min": np.full(f.shape, low), "max": np.full(f.shape, high)}
        | {"mean": np.zeros(f.shape), "std": np.ones(f.shape)}
        for name, f in {**spec.observation, "action": spec.action}.items()
    }
    policy = build_policy({**POLICY, "sampler": SAMPLER}, spec, stats)
    save_policy(
        folder / "checkpoints" / "best",
        policy,
        config={"policy": POLICY, "sampler": SAMPLER, "task": task, "seed": 0},
        stats=stats,
        dataset_card={"name": "demos.zarr", "fingerprint": "f00d", "features": {"long": 1}, **(card or {})},
    )
    return folder


def point_mass_spec():
    """Spec of a policy for the point mass."""
    from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY

    return PolicySpec(
        observation={"observation.state": POSITION}, action=VELOCITY,
        n_obs_steps=2, horizon=6, n_action_steps=4, fps=FPS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory with a checkpoint for the point mass and a training log."""
    spec = point_mass_spec()
    folder = write_checkpoint(tmp_path_factory.mktemp("run"), spec, "point_mass")
    lines = [{"step": i, "kind": "train", "loss": 1 / i} for i in (1, 2, 3)]
    lines.append({"step": 3, "kind": "validation", "val/action_nmse": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def configured(trained, **changes):
    values = {"checkpoint": str(trained), "episodes": 4, "workers": 0, "device": "cpu", "video": {"count": 2}}
    return EvaluationConfig.parse({**values, **changes})


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory, point_mass_task):
    """A finished evaluation."""
    folder = tmp_path_factory.mktemp("results")
    config = configured(trained, output_dir=str(folder), task={"name": "point_mass", "raises": [1003]})
    return run_evaluation(config, command=["robot-policies", "eval", "a b"])


def test_everything_is_written(finished):
    """Protocol, results, trajectories, videos, summary and report lie in the folder."""
    names = {str(p.relative_to(finished.folder.path)) for p in finished.folder.path.rglob("*") if p.is_file()}
    assert names == {
        "protocol.json", "results.jsonl", "summary.json", "report.html",
        "trajectories/1000.npz", "trajectories/1001.npz", "trajectories/1002.npz", "trajectories/1003.npz",
        "videos/1000.mp4", "videos/1001.mp4", "videos/grid.mp4",
    }  # fmt: skip


def test_protocol_says_what_was_run(finished):
    """Seeds, horizons, sampler, hashes, versions and command are recorded."""
    protocol = json.loads((finished.folder.path / "protocol.json").read_text())
    assert protocol["seeds"] == [1000, 1001, 1002, 1003]
    assert protocol["horizons"] == {"n_obs_steps": 2, "horizon": 6, "n_action_steps": 4}
    assert protocol["sampler"] == SAMPLER
    assert protocol["data"] == {"name": "demos.zarr", "fingerprint": "f00d"}
    assert re.fullmatch("[0-9a-f]{64}", protocol["checkpoint"]["sha256"])
    assert {"torch", "numpy", "gymnasium"} <= set(protocol["software"])
    assert protocol["command"] == "robot-policies eval 'a b'"


def test_summary_counts_failures_as_zero(finished):
    """A broken episode is no success and scores 0; latency is measured for one environment too."""
    summary = finished.summary
    assert (summary["n_episodes"], summary["n_failures"]) == (4, 1)
    assert summary["success"]["low"] <= summary["success"]["value"] <= summary["success"]["high"]
    assert summary["network_calls_per_chunk"] == 2
    assert summary["latency_single"]["n"] == 30
    assert summary["latency_batched"]["n"] == sum(r.n_chunks for r in finished.folder.results)


def test_report_is_self_contained(finished):
    """The page fetches nothing: every source is inline, and there is no link out."""
    page = finished.report.read_text()
    assert page.count("data:video/mp4;base64,") == 3
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page)
    assert {s.split(":")[0].split("#")[0] for s in sources} <= {"data", ""}
    assert not re.search(
        r"""@import|url\((?!["']?#)|https?://(?!www\.w3\.org|purl\.org|creativecommons)""", page
    )


def test_report_shows_what_matters(finished):
    """Headline with interval, plots, failure, protocol and command are on the page."""
    page = finished.report.read_text()
    success = finished.summary["success"]
    assert f"{100 * success['value']:.1f} %" in page
    assert f"{100 * success['low']:.1f} % to {100 * success['high']:.1f} %" in page
    assert page.count("<svg") == 5
    assert "Training loss" in page
    assert "fell off the plane (seed 1003)" in page
    assert finished.folder.protocol["checkpoint"]["sha256"] in page
    assert "robot-policies eval &#x27;a b&#x27;" in page
    assert "$" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def test_interrupted_evaluation_continues(trained, tmp_path, finished, monkeypatch):
    """Stopped after two episodes and run again: only the missing seeds run, with the same results."""
    config = configured(
        trained, output_dir=str(tmp_path), n_envs=1, task={"name": "point_mass", "raises": [1003]}
    )

    def stop(results, total):
        if len(results) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(config, progress=stop)
    seen = []
    done = run_evaluation(config, progress=lambda results, total: seen.append((len(results), total)))
    assert seen == [(3, 4), (4, 4)]
    for a, b in zip(done.folder.results, finished.folder.results, strict=True):
        assert (a.seed, a.steps, a.success) == (b.seed, b.steps, b.success)
        np.testing.assert_allclose(a.rewards, b.rewards, atol=1e-5)


def test_finished_evaluation_runs_nothing(trained, tmp_path, monkeypatch):
    """The same command again keeps results and latency, and rolls out no episode."""
    first = run_evaluation(configured(trained, output_dir=str(tmp_path)))
    monkeypatch.setattr(run_module, "Rollout", None)
    monkeypatch.setattr(run_module, "film_results", None)
    again = run_evaluation(configured(trained, output_dir=str(tmp_path)))
    assert again.summary == first.summary


def test_default_folder_is_in_the_run_and_tells_protocols_apart(trained, tmp_path):
    """Without output_dir, each protocol gets its own folder in the run directory."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    a = run_evaluation(configured(run, video={"keep": "none"}, episodes=1))
    b = run_evaluation(configured(run, video={"keep": "none"}, episodes=1, policy_seed=1))
    assert a.folder.path.parent == b.folder.path.parent == run.resolve() / "eval"
    assert a.folder.path != b.folder.path


def test_another_sampler_is_another_protocol(trained, tmp_path):
    """Results of another sampler are not mixed into a folder."""
    run_evaluation(configured(trained, output_dir=str(tmp_path), episodes=1))
    with pytest.raises(ResultsError, match=r"sampler\.steps: 2 -> 3"):
        run_evaluation(
            configured(trained, output_dir=str(tmp_path), episodes=1, sampler={"type": "ddim", "steps": 3})
        )


def test_partial_results_can_be_reported(trained, tmp_path):
    """`report` on an unfinished folder says that it is partial."""
    run_evaluation(configured(trained, output_dir=str(tmp_path), video={"keep": "none"}))
    lines = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:3]))
    done = rewrite_report(tmp_path)
    assert done.summary["n_episodes"] == 3
    assert "1 of 4 episodes have not been run" in done.report.read_text()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"checkpoint": "nowhere"}, CheckpointError, "nowhere does not exist"),
        ({"episodes": 0}, ConfigError, "episodes: expected >= 1, got 0"),
        ({"n_envs": 0}, ConfigError, "n_envs"),
        ({"workers": -1}, ConfigError, "workers"),
        ({"device": "tpu9"}, ConfigError, "expected auto, cpu or cuda"),
        ({"task": "point_mas"}, UserError, "did you mean 'point_mass'"),
        ({"task": {"name": "point_mass", "size": 3}}, UserError, "option 'size'"),
        ({"executor": {"type": "receding_horizon", "n_action_steps": 6}}, ConfigError, "expected 1 to 5"),
        ({"video": {"keep": "some"}}, ConfigError, "video.keep"),
        ({"sampler": {"type": "ddin"}}, ConfigError, "did you mean 'ddim'"),
    ],
)
def test_bad_configuration_is_one_clear_error(trained, tmp_path, changes, error, message):
    """Each bad value is refused with what was found and expected, and nothing is written."""
    with pytest.raises(error, match=message):
        run_evaluation(configured(trained, **{"output_dir": str(tmp_path / "out"), **changes}))
    assert not (tmp_path / "out").exists()


def test_the_data_name_the_task_when_nobody_else_does(tmp_path):
    """A policy trained on a generated store is judged on the task, and the options, that the store shows."""
    card = {"task": {"name": "point_mass", "raises": [1003]}}
    run = write_checkpoint(tmp_path / "run", point_mass_spec(), None, card=card)
    results = run_evaluation(configured(run, output_dir=str(tmp_path / "out")))
    assert results.folder.protocol["task"]["options"] == {"raises": [1003]}


def test_without_a_task_anywhere_one_is_asked_for(tmp_path):
    """Neither the command, nor the training, nor its data say it."""
    run = write_checkpoint(tmp_path / "run", point_mass_spec(), None)
    with pytest.raises(UserError, match=r"does not say which task it was trained for.*task=lift"):
        run_evaluation(configured(run, output_dir=str(tmp_path / "out")))


def test_a_checkpoint_of_another_task_is_refused(trained, tmp_path):
    """A task that lacks the policy's features is a one-line error, before any episode."""
    config = configured(trained, task="pusht", output_dir=str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"task 'pusht' does not fit the policy: .*units"):
        run_evaluation(config)
    assert not (tmp_path / "out").exists()


def test_command_line_on_pusht(tmp_path, capsys):
    """The whole command, with worker processes, on the public benchmark."""
    env = make_task("pusht")
    task = env.task_spec
    env.close()
    spec = PolicySpec(
        observation=task.observation, action=task.action,
        n_obs_steps=2, horizon=16, n_action_steps=8, fps=task.fps,
    )  # fmt: skip
    write_checkpoint(tmp_path / "run", spec, "pusht", low=0.0, high=512.0)
    words = [f"checkpoint={tmp_path}/run", "episodes=2", f"output_dir={tmp_path}/out", "video.keep=none"]
    assert main(["eval", *words, "latency_calls=2"]) == 0
    assert "pusht: score 0." in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(line["seed"] for line in lines) == [100000, 100001]
    assert all(line["steps"] == 300 and not line["failure"] for line in lines)
    assert main(["report", f"{tmp_path}/out"]) == 0
    assert main(["compare", f"{tmp_path}/out", f"{tmp_path}/out"]) == 0
    assert "no difference is shown" in capsys.readouterr().out
