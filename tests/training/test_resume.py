"""Interrupted runs: killed, stopped, resumed, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from robot_datasets.errors import UserError
from robot_policies.cli.hydra_app import compose_config
from robot_policies.cli.main import main
from robot_policies.configuration import ConfigError
from robot_policies.training import checkpoints as checkpoints_module
from robot_policies.training import train as train_module
from robot_policies.training.interrupts import TrainingInterrupted
from robot_policies.training.train import train


class Killed(BaseException):
    """Stands for a process that ends without a word."""


def final_weights(folder: Path) -> tuple[bytes, bytes]:
    """Learning (with the optimiser's moments) and averaged weights at the end of a run."""
    last = folder / "checkpoints" / "last"
    return (last / "trainer" / "state.safetensors").read_bytes(), (last / "policy.safetensors").read_bytes()


def metrics(folder: Path) -> list[dict]:
    """All lines but for what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in lines]


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the run die within a step, after its noise was drawn."""
    real = train_module.clip_gradients
    calls = []

    def clip(*args):
        calls.append(1)
        if len(calls) > step:
            raise Killed
        return real(*args)

    monkeypatch.setattr(train_module, "clip_gradients", clip)


def command(store: Path, output: Path, steps: int) -> list[str]:
    """The real command, on a small diffusion policy."""
    return [
        *(sys.executable, "-m", "robot_policies", "train", "dataset=state", f"dataset.path={store}"),
        *("dataset.val_ratio=0.25", "window={n_obs_steps: 2, horizon: 8, n_action_steps: 4}"),
        *("policy=diffusion_mlp", "policy.network.width=16", "device=cpu", f"output_dir={output}"),
        *(
            f"trainer.steps={steps}",
            "trainer.batch_size=8",
            "trainer.checkpoint_every=100",
            "trainer.val_every=200",
        ),
        *("trainer.val_windows=8", "trainer.log_every=10", "trainer.tensorboard=false"),
    ]


def test_a_killed_run_ends_in_the_same_bits(circle_store, tmp_path, caplog):
    """SIGKILL in the middle, the same command again: weights, moments, average and metrics are those of one run."""
    run, steps = tmp_path / "killed", 400
    process = subprocess.Popen(command(circle_store, run, steps), stderr=subprocess.DEVNULL)
    log = run / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 22):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = json.loads(log.read_text().splitlines()[-1])["step"]
    assert 150 <= reached < steps
    # In this process: all that the run goes on with, it reads from disk.
    with caplog.at_level("INFO", logger="robot_policies"):
        assert main(command(circle_store, run, steps)[3:]) == 0
    assert "continuing" in caplog.text
    whole = train(compose_config("train", command(circle_store, tmp_path / "whole", steps)[4:]))
    assert final_weights(run) == final_weights(whole)
    assert metrics(run) == metrics(whole)


@pytest.mark.parametrize("step", [0, 3, 10, 14, 19])
def test_death_at_any_step_changes_nothing(make_config, monkeypatch, step):
    """Before the first checkpoint, right after one, or between two: the end is the same."""
    whole = train(make_config("whole"))
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(make_config("killed"))
    killed = train(make_config("killed"))
    assert final_weights(killed) == final_weights(whole)
    assert metrics(killed) == metrics(whole)


@pytest.mark.parametrize("moment", ["save_policy", "_link"])
def test_death_while_saving_changes_nothing(make_config, monkeypatch, moment):
    """A checkpoint half written, or written but not linked, is removed and written again."""
    whole = train(make_config("whole"))
    real = getattr(checkpoints_module, moment)

    def die(*args, **kwargs):
        if moment == "save_policy":
            staging = args[0].with_name(f".{args[0].name}.1.tmp")
            staging.mkdir(parents=True)
            (staging / "policy.safetensors").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, moment, die)
        with pytest.raises(Killed):
            train(make_config("killed"))
    assert real is getattr(checkpoints_module, moment)
    killed = train(make_config("killed"))
    assert final_weights(killed) == final_weights(whole)
    assert sorted(p.name for p in (killed / "checkpoints").iterdir()) == sorted(
        p.name for p in (whole / "checkpoints").iterdir()
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_saves_and_the_run_goes_on_later(make_config, monkeypatch, signum):
    """The step under way is finished and saved; the rest of the run ends as if nothing had happened."""
    whole = train(make_config("whole"))
    real = train_module.train_step

    def stop(state, *args):
        if state.step == 12:
            os.kill(os.getpid(), signum)
        return real(state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train_step", stop)
        with pytest.raises(TrainingInterrupted, match="at step 13; saved in") as caught:
            train(make_config("stopped"))
    assert caught.value.signum == signum
    stopped = Path(make_config("stopped")["output_dir"])
    assert (stopped / "checkpoints" / "last").resolve().name == "step_0000013"
    assert final_weights(train(make_config("stopped"))) == final_weights(whole)
    assert metrics(stopped) == metrics(whole)


def test_a_second_signal_is_not_held_back(make_config, monkeypatch):
    """After the first request the usual handler is back, so that an impatient Ctrl-C works."""

    def stop(*args):
        # raise_signal runs the handler before it returns; two os.kill could merge into one signal.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_module, "train_step", stop)
    # A shell's background job starts with SIGINT ignored; the usual handler is Python's.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(make_config())
    finally:
        signal.signal(signal.SIGINT, before)


def test_training_in_a_thread_leaves_signals_alone(make_config):
    """Signal handlers belong to the main thread; elsewhere the run just runs."""
    finished = []
    thread = threading.Thread(target=lambda: finished.append(train(make_config(steps=2))))
    thread.start()
    thread.join()
    assert len(finished) == 1


def test_a_finished_run_is_not_trained_further(make_config):
    """The same command again does nothing."""
    folder = train(make_config())
    before = final_weights(folder), metrics(folder)
    assert train(make_config()) == folder
    assert (final_weights(folder), metrics(folder)) == before


def test_a_finished_run_can_be_extended(make_config):
    """More steps continue the run; the change of schedule is the user's to want."""
    train(make_config(steps=10))
    folder = train(make_config(steps=20))
    assert (folder / "checkpoints" / "last").resolve().name == "step_0000020"
    assert [line["step"] for line in metrics(folder) if line["kind"] == "train"] == [5, 10, 15, 20]


def test_another_configuration_is_not_mixed_in(make_config):
    """What is learned may not change in the middle of a run; the difference is named."""
    train(make_config())
    with pytest.raises(ConfigError, match=r"another configuration \(trainer.lr: 0.01 -> 0.02\)"):
        train(make_config(lr=0.02))


def test_other_data_are_not_mixed_in(make_config, store_writer, tmp_path):
    """A store of the same path but other content is recognised by its fingerprint."""
    path = store_writer(tmp_path / "store.zarr")
    dataset = {"path": str(path), "observation": ["observation.state"]}
    train(make_config(top={"dataset": dataset}))
    shutil.rmtree(path)
    store_writer(path, lengths=(20, 20))
    with pytest.raises(UserError, match="trained on data with fingerprint"):
        train(make_config(top={"dataset": dataset}))


@pytest.mark.parametrize(
    ("mode", "first", "message"), [("never", True, "holds a run"), ("must", False, "does not exist")]
)
def test_resume_can_be_forbidden_or_demanded(make_config, mode, first, message):
    """``never`` refuses to touch a run, ``must`` refuses to start one."""
    if first:
        train(make_config(steps=2))
    with pytest.raises(ConfigError, match=message):
        train(make_config(steps=2, resume=mode))


def test_a_damaged_trainer_state_names_the_file(make_config):
    """A truncated state file ends in one clear line."""
    folder = train(make_config(steps=10))
    path = (folder / "checkpoints" / "last").resolve() / "trainer" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"state\.safetensors has \d+ bytes, expected") as caught:
        train(make_config(steps=20))
    assert "\n" not in str(caught.value)
