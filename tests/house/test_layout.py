"""The packaging rules of the house: one import package per component folder, no generic import names."""

import subprocess
import sys
from pathlib import Path

import pytest

# A name that an installed checkout must not make importable; Hugging Face's `datasets`, ROS's `launch` and
# distutils-era `setup` modules may exist elsewhere, but never inside the repository.
GENERIC_NAMES = (
    "sim",
    "datasets",
    "configs",
    "tests",
    "deploy_ros",
    "benchmarks",
    "setup",
    "launch",
    "resource",
    "src",
    "cli",
    "policies",
    "tasks",
)

PROBE = """
import importlib.util, sys
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    if spec is not None:
        print(name, spec.origin or ",".join(spec.submodule_search_locations or []))
"""


def test_component_folders_are_not_packages(repository: Path, components: dict[str, str]):
    """No component folder has an __init__.py: `datasets` would shadow Hugging Face's package."""
    for folder in [*components.values(), "deploy_ros", "tests"]:
        assert not (repository / folder / "__init__.py").exists(), folder


def test_component_folders_hold_one_package_each(repository: Path, components: dict[str, str]):
    """Nothing importable lies beside the one package: any folder or module there would be importable, too."""
    for package, folder in components.items():
        beside = {
            path.name
            for path in (repository / folder).iterdir()
            if path.suffix == ".py"
            or (path.is_dir() and path.name.isidentifier() and path.name != "__pycache__")
        }
        assert beside == {package}


def test_packages_are_typed(repository: Path, components: dict[str, str]):
    """Every package with code tells type checkers that it is annotated."""
    for package, folder in components.items():
        if package != "robot_configs":
            assert (repository / folder / package / "py.typed").is_file(), package


def test_no_ros_packaging_at_the_root(repository: Path):
    """A setup.py, setup.cfg or package.xml at the root hides deploy_ros from colcon; a pyproject there breaks it."""
    assert not [n for n in ("setup.py", "setup.cfg", "package.xml") if (repository / n).exists()]
    assert not (repository / "deploy_ros" / "pyproject.toml").exists()


def test_ros_package_is_complete(repository: Path):
    """The ament index marker exists; without it ROS does not find the installed package."""
    assert (repository / "deploy_ros" / "resource" / "robot_deploy").is_file()
    assert "<build_type>ament_python</build_type>" in (repository / "deploy_ros" / "package.xml").read_text()


@pytest.mark.parametrize("how", ["installed", "on the path"])
def test_generic_names_do_not_leak(how: str, repository: Path, components: dict[str, str], tmp_path: Path):
    """From another folder, none of the generic names leads into the repository."""
    path = [str(repository / folder) for folder in components.values()] if how == "on the path" else []
    setup = f"import sys; sys.path[:0] = {path!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + PROBE, *GENERIC_NAMES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    leaks = [line for line in done.stdout.splitlines() if str(repository) in line.replace(sys.prefix, "")]
    assert leaks == []
