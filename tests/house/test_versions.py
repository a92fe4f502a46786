"""One version, everywhere; the pins and extras agree with each other."""

import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from robot_policies import __version__
from robot_policies.cli.extras import EXTRAS

tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[._]", "-", match.group().lower())


def test_packages_share_one_version(components: dict[str, str]):
    """Every package with code carries the version of the distribution."""
    versions = {
        name: importlib.import_module(name).__version__ for name in components if name != "robot_configs"
    }
    assert set(versions.values()) == {__version__}


def test_pyproject_takes_the_version_from_the_package(repository: Path, project: dict):
    """The distribution's version is read from robot_policies, not written a second time."""
    assert "version" in project["dynamic"]
    hatch = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["hatch"]
    assert hatch["version"]["path"] == "robot_policies/robot_policies/__init__.py"


def test_ros_packaging_has_the_version(repository: Path):
    """package.xml and setup.py, which cannot import it, carry the same version."""
    manifest = ElementTree.parse(repository / "deploy_ros" / "package.xml")
    setup = (repository / "deploy_ros" / "setup.py").read_text()
    assert manifest.findtext("version") == __version__
    assert f'version="{__version__}"' in setup


def test_changelog_knows_the_version(repository: Path):
    """The current version has its entry in the changelog."""
    assert re.search(
        rf"^## \[?{re.escape(__version__)}\b", (repository / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_every_requirement_is_pinned(repository: Path, project: dict):
    """Every direct requirement, of every extra, has its line in constraints.txt."""
    lines = (repository / "constraints.txt").read_text().splitlines()
    pinned = {_name(line) for line in lines if line and not line.startswith("#")}
    wanted = [*project["dependencies"], *(r for rs in project["optional-dependencies"].values() for r in rs)]
    assert [r for r in wanted if _name(r) not in pinned] == []


def test_no_deps_requirements_are_exact(repository: Path):
    """What is installed without its dependencies is pinned exactly, because nothing else constrains it."""
    lines = (repository / "requirements" / "sim-no-deps.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert requirements
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in requirements)


def test_doctor_knows_the_extras(repository: Path, project: dict):
    """Every distribution that `doctor` looks for is required by its extra or by the no-deps list."""
    apart = {
        _name(line)
        for line in (repository / "requirements" / "sim-no-deps.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for extra in EXTRAS.values():
        required = {_name(r) for r in project["optional-dependencies"][extra.name]} | apart
        assert {_name(d) for d in extra.modules.values()} <= required, extra.name


def test_this_python_is_supported(project: dict):
    """The suite runs on a Python that the project says it supports."""
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    assert int(low) <= sys.version_info.minor < int(high)
