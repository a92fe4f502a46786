"""The wheel that users install: complete, and working outside the repository."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

SMOKE = """
import importlib, importlib.metadata, pathlib, sys
import robot_configs, robot_datasets, robot_deploy, robot_policies, robot_sim
from robot_policies.cli.main import main
for module in (robot_configs, robot_datasets, robot_deploy, robot_policies, robot_sim):
    assert pathlib.Path(module.__file__).is_relative_to(sys.prefix), module.__file__
assert importlib.metadata.version("robot-policies") == robot_policies.__version__
assert main(["--help"]) == 0
assert main(["train", "--help"]) == 0
"""


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without the network."""
    pytest.importorskip("hatchling", reason="building the wheel needs the extra 'dev'")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=repository,
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_wheel_is_complete(wheel: Path, repository: Path, components: dict[str, str]):
    """Every source, YAML and marker file is in the wheel, under its import name, and nothing else is."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(repository / folder).as_posix()
        for package, folder in components.items()
        for path in (repository / folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected


def test_wheel_carries_the_licence(wheel: Path):
    """The licence text and the console command are part of the wheel."""
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "robot-policies = robot_policies.cli.main:main" in archive.read(entry_points).decode()


def test_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path):
    """Installed into a fresh virtual environment, the packages come from there and the command works.

    Third-party packages are those of this environment, put last on the path: nothing is downloaded.
    """
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    (site,) = environment.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "third_party.pth").write_text("\n".join(here) + "\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", SMOKE], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: robot-policies train" in done.stdout
    command = [environment / "bin" / "robot-policies", "--version"]
    version = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("robot-policies ")
