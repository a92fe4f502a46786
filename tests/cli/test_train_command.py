"""``robot-policies train`` as typed: exit status and messages."""

import logging
import subprocess
import sys

import pytest

from robot_policies.cli.main import main


@pytest.fixture(autouse=True)
def _keep_logging():
    """The command configures logging for its process; give it back."""
    root, ours = logging.getLogger(), logging.getLogger("robot_policies")
    handlers, level = root.handlers[:], ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset.path=nowhere.zarr"], "nowhere.zarr does not exist"),
        (["dataset.path=x", "trainer.stepz=3"], "did you mean 'trainer.steps'"),
        (["dataset.path=x", "trainer.steps=0"], "trainer.steps: expected > 0, got 0"),
        (["dataset.path=x", "device=cuda:99"], "'cuda:99' is not there"),
        ([], "no value for dataset.path"),
    ],
)
def test_mistakes_end_with_status_2_and_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    """Standard error names the mistake, standard output stays empty, and no folder is left."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_reports_its_signal(monkeypatch):
    """Scripts that chain commands see that training did not finish: 128 + SIGTERM."""
    from robot_policies.training import train as module
    from robot_policies.training.interrupts import TrainingInterrupted

    def interrupted(config):
        raise TrainingInterrupted("stopped", 15)

    monkeypatch.setattr(module, "train", interrupted)
    assert main(["train", "dataset.path=x"]) == 143


def test_help_does_not_wait_for_torch():
    """Help of the training command imports no torch."""
    code = (
        "import sys; from robot_policies.cli.main import main\n"
        "status = main(['train', '--help'])\n"
        "sys.exit(status or ('torch' in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "trainer.steps=2000" in result.stdout
