"""Tasks and experts are found by name, and what is missing is said in one line."""

from __future__ import annotations

import builtins
import subprocess
import sys

import pytest

from robot_sim.registry import (
    TaskEntry,
    TaskError,
    expert_names,
    make_expert,
    make_task,
    register_task,
    simulator_versions,
    task_defaults,
    task_names,
)


def test_the_built_in_tasks_are_listed() -> None:
    """Names are sorted; only some tasks have an expert."""
    assert {"lift", "pusht"} <= set(task_names())
    assert task_names() == sorted(task_names())
    assert "lift" in expert_names()
    assert "pusht" not in expert_names()


def test_an_unknown_task_is_refused_with_the_nearest_match() -> None:
    """A misspelt name suggests the right one."""
    with pytest.raises(TaskError, match="unknown task 'lfit'; did you mean 'lift'"):
        make_task("lfit")


def test_an_unknown_option_is_refused_with_the_nearest_match(walk_task: str) -> None:
    """A misspelt option of a task or an expert suggests the right one."""
    with pytest.raises(TaskError, match="task 'walk': unknown option 'image'; did you mean 'images'"):
        make_task(walk_task, image=True)
    with pytest.raises(TaskError, match="expert of task 'walk': unknown option 'noise'"):
        make_expert(walk_task, noise=0.1)


def test_a_task_without_an_expert_says_where_there_is_one() -> None:
    """The message names the tasks that have one."""
    with pytest.raises(TaskError, match=r"task 'pusht' has no scripted expert.*lift"):
        make_expert("pusht")


def test_a_missing_simulator_names_the_remedy(walk_task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without robosuite, making the task says how to install it."""
    real_import = builtins.__import__

    def without_robosuite(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("robosuite"):
            raise ModuleNotFoundError("No module named 'robosuite'", name="robosuite")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "robot_sim.tasks.lift", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_robosuite)
    with pytest.raises(TaskError, match=r"'lift' needs the package 'robosuite'.*make venv"):
        make_task("lift")


def test_defaults_and_versions_describe_a_task(walk_task: str) -> None:
    """What a store records about the task it was generated in."""
    import numpy

    assert task_defaults(walk_task) == {"images": False}
    assert simulator_versions(walk_task) == {"numpy": numpy.__version__}


def test_a_name_is_registered_once(walk_task: str) -> None:
    """Two tasks of one name would silently shadow each other."""
    with pytest.raises(ValueError, match="registered twice"):
        register_task(walk_task, TaskEntry(module="elsewhere"))


def test_the_registry_imports_no_simulator() -> None:
    """Listing tasks is cheap: simulators load with their task."""
    code = (
        "import sys, robot_sim.registry, robot_sim.generate; "
        "print(sorted({'mujoco', 'robosuite', 'pymunk', 'pygame', 'cv2', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
