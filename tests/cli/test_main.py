"""The dispatcher: its table, exit codes and one-line errors."""

import importlib
import sys
import types

import pytest

from robot_datasets.errors import DatasetError
from robot_policies import __version__
from robot_policies.cli import main as cli


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch):
    """Register a subcommand ``fake`` that runs the given function."""

    def register(function):
        module = types.ModuleType("robot_policies.cli.fake")
        module.run = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "robot_policies.cli.fake", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", cli.Command("a test", "fake"))

    return register


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    """--help shows one line per subcommand and examples, and succeeds."""
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    assert "examples:" in out


def test_no_arguments_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    """Without a subcommand the help is shown and the status says that nothing was done."""
    assert cli.main([]) == cli.USAGE_ERROR
    assert "usage:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]):
    """--version prints the version of the distribution."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"robot-policies {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("evl", "eval"), ("--versoin", "--version")]
)
def test_unknown_command_names_the_nearest(typed: str, meant: str, capsys: pytest.CaptureFixture[str]):
    """A misspelt subcommand or option is answered with the nearest one, in one line."""
    assert cli.main([typed]) == cli.USAGE_ERROR
    err = capsys.readouterr().err
    assert f"did you mean '{meant}'?" in err
    assert err.count("\n") == 1


def test_user_error_is_one_line(fake_command, capsys: pytest.CaptureFixture[str]):
    """A UserError becomes one line on stderr and status 2, even if its message has several lines."""

    def fail(argv):
        raise DatasetError("found nothing\n   in 'x'; expected a store")

    fake_command(fail)
    assert cli.main(["fake"]) == cli.USAGE_ERROR
    captured = capsys.readouterr()
    assert captured.err == "robot-policies: error: found nothing in 'x'; expected a store\n"
    assert captured.out == ""


def test_debug_keeps_the_traceback(fake_command):
    """With --debug the error itself comes out, wherever the option stands."""

    def fail(argv):
        assert "--debug" not in argv
        raise DatasetError("broken")

    fake_command(fail)
    with pytest.raises(DatasetError):
        cli.main(["fake", "a", "--debug"])


def test_missing_file_is_one_line(fake_command, tmp_path, capsys: pytest.CaptureFixture[str]):
    """An operating-system error names the file instead of showing a traceback."""
    fake_command(lambda argv: (tmp_path / "absent").read_bytes())
    assert cli.main(["fake"]) == cli.USAGE_ERROR
    assert "absent" in capsys.readouterr().err


def test_missing_extra_names_the_remedy(fake_command, capsys: pytest.CaptureFixture[str]):
    """A module of an extra that is not installed is answered with how to install it."""

    def fail(argv):
        raise ModuleNotFoundError("No module named 'ray'", name="ray")

    fake_command(fail)
    assert cli.main(["fake"]) == cli.USAGE_ERROR
    assert "[distributed]" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(fake_command):
    """Anything that is not the user's doing is not hidden."""

    def fail(argv):
        raise ModuleNotFoundError("No module named 'robot_polices'", name="robot_polices")

    fake_command(fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["fake"])


def test_interrupt(fake_command, capsys: pytest.CaptureFixture[str]):
    """Ctrl-C ends with the status that shells expect and without a traceback."""

    def interrupt(argv):
        raise KeyboardInterrupt

    fake_command(interrupt)
    assert cli.main(["fake"]) == cli.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_status_is_passed_on(fake_command):
    """The subcommand's status is the command's; argparse's SystemExit counts as one."""
    fake_command(lambda argv: len(argv))
    assert cli.main(["fake", "a", "b", "c"]) == 3

    def leave(argv):
        raise SystemExit(0)

    fake_command(leave)
    assert cli.main(["fake"]) == 0


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_exists(name: str):
    """Every row of the table leads to a function."""
    command = cli.COMMANDS[name]
    module = importlib.import_module(f"robot_policies.cli.{command.module}")
    assert callable(getattr(module, command.function))
