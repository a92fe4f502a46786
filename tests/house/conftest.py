"""The project's own source, parsed once for all guard tests."""

import ast
import gc
from dataclasses import dataclass
from pathlib import Path

import pytest

# Import package -> component folder that holds it, from the lowest floor to the highest.
COMPONENTS = {
    "robot_datasets": "datasets",
    "robot_sim": "sim",
    "robot_policies": "robot_policies",
    "robot_deploy": "deploy_ros/src",
    "robot_configs": "configs",
}


@dataclass(frozen=True)
class Source:
    """One Python file of a component: its import name, its path and its syntax tree."""

    module: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """The import package, e.g. ``robot_sim``."""
        return self.module.partition(".")[0]


def _read(root: Path, package: str, folder: str) -> list[Source]:
    base = root / folder
    sources = []
    for path in sorted((base / package).rglob("*.py")):
        module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        sources.append(Source(module, path, ast.parse(path.read_text(encoding="utf-8"))))
    return sources


@pytest.fixture(scope="session")
def components() -> dict[str, str]:
    """Import package -> component folder."""
    return COMPONENTS


@pytest.fixture(scope="session")
def sources(repository: Path) -> list[Source]:
    """Every Python file of the five import packages."""
    gc.disable()  # half a million nodes, none of them garbage: looking for it takes longer than parsing
    try:
        return [s for package, folder in COMPONENTS.items() for s in _read(repository, package, folder)]
    finally:
        gc.freeze()  # they stay for the session: no later collection has to walk them either
        gc.enable()


@pytest.fixture(scope="session")
def python_files(repository: Path) -> list[Path]:
    """Every Python file of the repository: packages, tests, benchmarks, ROS packaging."""
    folders = [
        *(repository / folder for folder in {*COMPONENTS.values(), "tests", "benchmarks", "deploy_ros"})
    ]
    return sorted({path for folder in folders if folder.is_dir() for path in folder.rglob("*.py")})
