"""Distilling a trained policy: from the teacher's run to a student that does without it."""

import shutil

import pytest
import torch

from robot_policies.checkpoint import CheckpointError, load_policy
from robot_policies.configuration import ConfigError
from robot_policies.training import train as train_module
from robot_policies.training.train import train

TEACHER = {
    "type": "diffusion",
    "network": {"type": "mlp", "width": 16, "n_blocks": 1},
    "process": {"type": "edm"},
}
OBSERVATION = {"observation.state": torch.zeros(3, 2, 3)}


@pytest.fixture
def teacher_run(make_config):
    """A short training of a small denoising policy; its sampler is the run's."""
    sampler = {"type": "ddim", "steps": 2}
    return train(make_config("teacher", steps=10, top={"policy": TEACHER, "sampler": sampler}))


def student_config(make_config, teacher_run, output="student", *, options=None, **trainer):
    policy = {"type": "consistency", "teacher": str(teacher_run), "levels": 4, **(options or {})}
    return make_config(output, top={"policy": policy, "sampler": {"type": "ddim"}}, **trainer)


def test_a_student_is_loaded_without_its_teacher(make_config, teacher_run):
    """Its checkpoint holds the architecture; the teacher's folder may be gone."""
    run = train(student_config(make_config, teacher_run))
    shutil.rmtree(teacher_run)
    loaded = load_policy(run)
    assert loaded.config["policy"]["student"]["network"] == TEACHER["network"]
    chunk = loaded.policy.predict_chunk(OBSERVATION)
    assert chunk.actions.shape == (3, 8, 2)
    assert chunk.n_network_calls == 1


def test_distillation_continues_like_any_run(make_config, teacher_run, monkeypatch):
    """Interrupted between checkpoints and continued: the same bits, target included."""
    whole = train(student_config(make_config, teacher_run, "whole", checkpoint_every=5))
    real, calls = train_module.train_step, iter(range(100))

    def stop_at_thirteen(*arguments):
        if next(calls) == 13:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train_step", stop_at_thirteen)
        with pytest.raises(KeyboardInterrupt):
            train(student_config(make_config, teacher_run, "parts", checkpoint_every=5))
    parts = train(student_config(make_config, teacher_run, "parts", checkpoint_every=5))
    names = ("policy.safetensors", "trainer/state.safetensors")
    a, b = ([(run / "checkpoints" / "last" / n).read_bytes() for n in names] for run in (whole, parts))
    assert a == b


def test_a_missing_teacher_is_named(make_config, tmp_path):
    """Before anything is written."""
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        train(student_config(make_config, tmp_path / "nowhere"))
    assert not (tmp_path / "student").exists()


def test_a_teacher_of_another_window_is_refused(make_config, teacher_run):
    """The student has the teacher's horizons."""
    config = student_config(make_config, teacher_run)
    config["window"] = {"n_obs_steps": 2, "horizon": 12, "n_action_steps": 4}
    with pytest.raises(ConfigError, match="was trained with another horizon"):
        train(config)


def test_a_teacher_must_be_given(make_config):
    """Without a path there is nothing to distil."""
    with pytest.raises(ConfigError, match=r"policy\.teacher is None"):
        train(make_config(top={"policy": {"type": "consistency"}}))
