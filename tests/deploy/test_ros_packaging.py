"""The ROS package: valid for colcon, launch files that fit the nodes, console scripts that exist."""

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).parents[2] / "deploy_ros"
LAUNCH_FILES = sorted((PACKAGE / "launch").glob("*.launch.py"))


def _scripts() -> dict[str, str]:
    text = (PACKAGE / "setup.py").read_text()
    return dict(re.findall(r'"(\w+) = ([\w.]+:\w+)"', text))


def test_package_xml_validates():
    """An invalid one is silently taken for a plain Python package, and `ros2 launch` does not find it."""
    package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    parsed = package.parse_package(str(PACKAGE / "package.xml"))
    assert parsed.name == "robot_deploy"
    assert parsed.get_build_type() == "ament_python"


def test_colcon_says_ament_python():
    """Colcon itself recognises the package."""
    colcon = shutil.which("colcon") or os.environ.get("COLCON")
    if colcon is None:
        pytest.skip(
            "colcon is not installed (pip install colcon-common-extensions, in an environment of its own)"
        )
    done = subprocess.run(
        [colcon, "--log-base", os.devnull, "list", "--base-paths", str(PACKAGE)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "(ros.ament_python)" in done.stdout


def test_console_scripts_exist():
    """Every executable names a function that can be imported."""
    pytest.importorskip("rclpy", reason="rclpy is not installed", exc_type=ImportError)
    scripts = _scripts()
    nodes = {path.stem for path in (PACKAGE / "src" / "robot_deploy" / "nodes").glob("*_node.py")}
    assert set(scripts) == nodes - {"drill_node"}  # a part of the fault drill, which starts it itself
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_fit_the_package(path: Path):
    """They define what `ros2 launch` calls, start executables that exist, and never start a node again."""
    tree = ast.parse(path.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in functions
    nodes = _calls(tree, "Node") + _calls(tree, "LifecycleNode")
    assert nodes
    for call in nodes:
        keywords = {k.arg: k.value for k in call.keywords}
        assert "respawn" not in keywords
        executable = keywords["executable"]
        assert isinstance(executable, ast.Constant)
        assert executable.value in _scripts(), executable.value


def _constants(launch: str) -> dict[str, ast.expr]:
    """Name -> value of what a launch file assigns at its top."""
    tree = ast.parse((PACKAGE / "launch" / f"{launch}.launch.py").read_text())
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _given_to(launch: str) -> dict[str, tuple[str, ...]]:
    """Node -> which arguments are its parameters."""
    constants = _constants(launch)
    if "GIVEN_TO" in constants:
        return ast.literal_eval(constants["GIVEN_TO"])
    node = {"policy": "policy_node", "record": "recorder_node"}[launch]
    return {node: tuple(ast.literal_eval(constants["ARGUMENTS"]))}


@pytest.mark.parametrize("launch", ["policy", "record", "twin"])
def test_launch_arguments_are_parameters(launch: str):
    """Every argument is a parameter of a node, of its type and within its range, so none is ignored."""
    pytest.importorskip("rclpy", reason="rclpy is not installed", exc_type=ImportError)
    constants, used = _constants(launch), set()
    arguments = ast.literal_eval(constants["ARGUMENTS"])
    given = constants.get("TYPES", ast.Dict(keys=[], values=[]))
    assert isinstance(given, ast.Dict)
    types = {
        ast.literal_eval(key): ast.unparse(value)
        for key, value in zip(given.keys, given.values, strict=True)
        if key is not None
    }
    for node, names in _given_to(launch).items():
        module = importlib.import_module(f"robot_deploy.nodes.{node}")
        assert set(names) <= set(module.PARAMETERS), node
        for name in names:
            assert types.get(name, "str") == type(module.PARAMETERS[name]).__name__, name
            if name in getattr(module, "RANGES", {}):
                low, high = module.RANGES[name]
                assert low <= float(arguments[name][0]) <= high
        used |= set(names)
    assert set(arguments) - used <= {"surrogate"}  # whether to start one


def test_launch_files_run():
    """Where launch_ros is installed, the descriptions can be built."""
    pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI; source a ROS 2 installation")
    for path in LAUNCH_FILES:
        spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.generate_launch_description().entities


def test_everything_is_installed():
    """setup.py installs launch files, configuration and presets."""
    text = (PACKAGE / "setup.py").read_text()
    for part in ("launch/*.launch.py", "config/", "presets/*/*.yaml", "package.xml"):
        assert part in text


def test_presets_are_plain_yaml():
    """Every preset begins with a comment that says what it is for."""
    for path in (PACKAGE / "src" / "robot_deploy" / "presets").rglob("*.yaml"):
        assert path.read_text().startswith("# "), path
        assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize(
    ("arguments", "reason"), [(["--seconds", "0"], "--seconds is 0"), (["--seconds", "nan"], "nan")]
)
def test_a_twin_demo_that_cannot_be_says_so(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
    """One line and status 2, before any process is started."""
    from robot_policies.cli.main import main

    assert main(["deploy", "twin", "nowhere", *arguments]) == 2
    assert reason in capsys.readouterr().err
