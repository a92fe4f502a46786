"""Importing is cheap: reading data needs no torch, and help appears at once."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

RUNS = 3


def _fastest(arguments: list[str], cwd: Path) -> float:
    """Seconds of the fastest of a few runs: a busy machine slows some of them, not all."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=cwd, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("package", ["robot_datasets", "robot_sim", "robot_policies", "robot_deploy"])
def test_importing_a_package_loads_nothing_heavy(package: str):
    """The bare package pulls in neither torch nor a simulator nor a plotting library."""
    heavy = ("torch", "mujoco", "robosuite", "matplotlib", "rclpy", "ray")
    code = f"import sys, {package}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_data_module_loads_torch():
    """Not only the package: every module of robot_datasets can be imported without torch."""
    code = """
import importlib, pkgutil, sys, robot_datasets
for info in pkgutil.walk_packages(robot_datasets.__path__, "robot_datasets."):
    if not info.name.startswith("robot_datasets.testing"):
        importlib.import_module(info.name)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_importing_the_data_package_is_fast(tmp_path: Path):
    """`import robot_datasets` takes less than half a second, interpreter included."""
    assert _fastest(["-c", "import robot_datasets"], tmp_path) < 0.5


def test_help_is_fast(tmp_path: Path):
    """`robot-policies --help` answers within a second and without torch."""
    assert _fastest(["-m", "robot_policies", "--help"], tmp_path) < 1.0
    code = "import sys; from robot_policies.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
