"""The report of what is installed."""

import json

import pytest

from robot_policies.cli import doctor
from robot_policies.cli.extras import EXTRAS, extra_of


@pytest.fixture(autouse=True)
def _no_rendering(monkeypatch: pytest.MonkeyPatch):
    """Pretend that EGL draws; trying for real takes seconds and belongs to the simulator's tests."""
    found = {"libraries": ["egl"], "backends": ["egl"], "remedy": "install EGL"}
    monkeypatch.setattr(doctor, "_rendering", lambda: found)


def test_json_report(capsys: pytest.CaptureFixture[str]):
    """--json prints one object with versions, extras and rendering, and nothing else."""
    status = doctor.run(["--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["core"]["numpy"]
    assert set(report["extras"]) == set(EXTRAS)
    assert report["rendering"]["backends"] == ["egl"]
    assert status == (0 if report["ready"] else 1)


def test_missing_parts_come_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A missing extra and a machine that cannot draw are named, with the line to type; the status is 1."""
    monkeypatch.setattr(doctor, "_module_version", lambda module, dist: None)
    monkeypatch.setattr(
        doctor, "_rendering", lambda: {"libraries": [], "backends": [], "remedy": "install EGL"}
    )
    assert doctor.run([]) == 1
    out = capsys.readouterr().out
    assert "none works" in out
    assert "install EGL" in out
    assert "missing rerun-sdk" in out
    assert '-e ".[viz]"' in out


def test_unknown_option_is_a_usage_error():
    """An unknown option ends with argparse's status, before anything is examined."""
    with pytest.raises(SystemExit) as stop:
        doctor.run(["--jsno"])
    assert stop.value.code == 2


def test_modules_lead_to_their_extra():
    """A submodule counts as its package; the core's own modules belong to no extra."""
    assert extra_of("mujoco.egl") is EXTRAS["sim"]
    assert extra_of("torch") is None
