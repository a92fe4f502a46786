"""Tasks composed of skills in YAML: the library, the checks, reach, and many tasks in one store."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("robosuite") is None:  # its files hold the arms
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_datasets.features import ENVIRONMENT_STATE
from robot_datasets.store import EpisodeStore
from robot_sim.compositions.composition import composition_names, find_composition, read_composition
from robot_sim.generate_many import ManyPlan, generate_many
from robot_sim.registry import TaskError, family_task_names, make_expert, make_task
from robot_sim.skills.inverse_kinematics import InverseKinematics
from robot_sim.skills.skill import skill_names
from robot_sim.skills.view import UnreachableError

CUBE = "objects: [{name: cube, kind: box}]\n"
GOOD = (
    "instructions: [lift it]\n"
    + CUBE
    + "steps: [{grasp: {object: cube}}]\nsuccess: [{held: {object: cube}}]\n"
)


def _write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return f"compose/{path}"


def test_every_composition_reads_and_has_paraphrases() -> None:
    """The library is checked against skills, conditions and objects; each task is said in several ways."""
    names = composition_names()
    assert len(names) >= 10
    assert family_task_names("compose") == [f"compose/{name}" for name in names]
    used: set[str] = set()
    for name in names:
        path = find_composition(name)
        assert path is not None
        composition = read_composition(path)
        assert len(set(composition.instructions)) >= 3, name
        used |= {step.skill for step in composition.steps}
    assert used <= set(skill_names())
    assert {"grasp", "lift", "place", "push", "open", "close", "insert", "stack", "rotate", "press"} <= used


def test_all_compositions_share_their_features() -> None:
    """One policy may learn many: features agree, and absent objects are zeros."""
    one, two = make_task("compose/open_drawer"), make_task("compose/stack_red_on_green", arm="ur5e")
    assert one.task_spec.features == two.task_spec.features
    observation, _ = one.reset(seed=0)
    assert (observation[ENVIRONMENT_STATE][16:48] == 0).all()
    one.close()
    two.close()


def test_a_seed_chooses_the_paraphrase() -> None:
    """The same seed says the task the same way; over seeds every way is used."""
    env = make_task("compose/press_button")
    said = []
    for seed in range(12):
        env.reset(seed=seed)
        said.append(env.instruction)
    env.reset(seed=3)
    assert env.instruction == said[3]
    assert len(set(said)) == 3
    env.close()


def test_a_variant_is_another_scene() -> None:
    """Sizes and colours differ, and the same variant is the same scene."""
    plain, one, same = (make_task("compose/press_button", variant=v) for v in (0, 1, 1))
    looks: Any = [env.reset(seed=0)[0][ENVIRONMENT_STATE][10:16] for env in (plain, one, same)]
    assert (looks[0] != looks[1]).any()
    np.testing.assert_array_equal(looks[1], looks[2])
    for env in (plain, one, same):
        env.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("instructions: [a\n", "is not valid YAML"),
        ("just text", "expected a mapping"),
        (GOOD.replace("steps", "step"), "unknown key 'step'; did you mean 'steps'"),
        (GOOD.replace("grasp", "graps"), "unknown skill 'graps'; did you mean 'grasp'"),
        (GOOD.replace("{object: cube}}]\nsuccess", "{objekt: cube}}]\nsuccess"), "unknown option 'objekt'"),
        (GOOD.replace("grasp: {object: cube}", "grasp: {}"), "skill 'grasp' needs object"),
        (GOOD.replace("held", "hold"), "unknown condition 'hold'; did you mean 'held'"),
        (GOOD.replace("grasp: {object: cube}", "grasp: {object: cubs}"), "did you mean 'cube'"),
        (GOOD.replace("kind: box", "kind: bux"), "unknown kind 'bux'; did you mean 'box'"),
        (GOOD.replace("kind: box", "kind: box, half: [1, 2]"), "expected three positive sizes"),
        (GOOD.replace("kind: box", "kind: mjcf"), "has a file"),
    ],
)
def test_a_bad_composition_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    """Whatever is misspelt is named, with the nearest match."""
    with pytest.raises(TaskError, match=problem) as caught:
        make_task(_write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mjcf", "problem"),
    [
        ("<mujoco>\n<worldbody>\n<body>\n<geom size='1'/>\n</worldbody>\n</mujoco>", r"mug\.xml, line \d+: "),
        (
            "<mujoco>\n<worldbody>\n<body>\n<geom sise='1'/>\n</body></worldbody></mujoco>",
            r"mug\.xml, line 4: ",
        ),
        ("<mujoco><worldbody/></mujoco>", "holds no body"),
    ],
)
def test_a_broken_mjcf_names_file_and_line(tmp_path: Path, mjcf: str, problem: str) -> None:
    """An object from a file of the user's fails where the file is wrong, not somewhere in the scene."""
    (tmp_path / "mug.xml").write_text(mjcf, encoding="utf-8")
    text = GOOD.replace("kind: box", f"kind: mjcf, file: '{tmp_path / 'mug.xml'}'")
    with pytest.raises(TaskError, match=problem):
        make_task(_write(tmp_path, text))


def test_an_mjcf_object_lies_on_the_table(tmp_path: Path) -> None:
    """A good file becomes an object like the others."""
    (tmp_path / "brick.xml").write_text(
        "<mujoco><worldbody><body><geom type='box' size='.02 .02 .02'/></body></worldbody></mujoco>", "utf-8"
    )
    env = make_task(
        _write(tmp_path, GOOD.replace("kind: box", f"kind: mjcf, file: '{tmp_path / 'brick.xml'}'"))
    )
    observation, _ = env.reset(seed=0)
    assert observation[ENVIRONMENT_STATE][2] == pytest.approx(0.02)
    env.close()


def test_inverse_kinematics_reaches_what_the_arm_can_reach() -> None:
    """Solving for a pose the arm has taken gets back there; one metre further is an error with a number."""
    env: Any = make_task("compose/press_button")
    env.reset(seed=0)
    task, physics = env.simulation.task, env.simulation.physics
    mount, names = task.arm.mount, task.names
    kinematics = InverseKinematics(
        task.model, site=names.site("robot_tcp"), qpos=names.qpos(*mount.joints), qvel=names.qvel(*mount.joints),
        limits=np.tile([-3.2, 3.2], (7, 1)), rest=np.array(mount.arm_model.home),
    )  # fmt: skip
    position, rotation = task.arm.position(physics)[0], task.arm.rotation(physics)[0]
    found = kinematics.solve(position + np.array([0.1, -0.1, -0.1]), rotation, physics.qpos[0])
    assert found.position_error < 0.003
    assert found.rotation_error < 0.03
    far = kinematics.solve(position + np.array([1.0, 0.0, 0.0]), rotation, physics.qpos[0])
    assert far.position_error > 0.3
    env.close()


def test_an_episode_out_of_reach_is_set_aside_and_counted(tmp_path: Path) -> None:
    """The store holds the episodes that were possible, and says why others were not."""
    text = GOOD.replace("kind: box", "kind: box, region: [-0.1, -0.05, 0.75, 0.05]").replace(
        "success", "  - {lift: {height: 0.1}}\nsuccess"
    )
    text = text.replace("steps: [{grasp: {object: cube}}]", "steps:\n  - {grasp: {object: cube}}")
    task = _write(tmp_path, text)
    report = generate_many(
        ManyPlan(tasks=(task,), arms=("panda",), episodes=2), tmp_path / "s.zarr", workers=0
    )
    assert report.n_episodes == 2
    assert report.failed
    assert all("unreachable: the panda comes no closer than" in reason for reason in report.failed.values())
    env, expert = make_task(task), make_expert(task)
    seed = int(next(iter(report.failed)).rpartition("-")[2])
    env.reset(seed=seed)
    with pytest.raises(UnreachableError):
        expert.reset(env, seed)
    env.close()


class _StopError(Exception):
    """The user's patience ends."""


def test_many_tasks_and_arms_share_a_store_and_a_cut_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """Each cell gets its share; stopped after two episodes and started again, nothing differs."""
    tasks = ("compose/press_button", "compose/tip_block")
    plan = ManyPlan(tasks=tasks, arms=("panda", "ur5e"), episodes=5)
    whole = generate_many(plan, tmp_path / "whole.zarr", workers=0)

    def stop(now: Any) -> None:
        if now.done == 2:
            raise _StopError

    with pytest.raises(_StopError):
        generate_many(plan, tmp_path / "cut.zarr", workers=0, progress=stop)
    cut = generate_many(plan, tmp_path / "cut.zarr", workers=0)
    assert cut.n_resumed == 2
    assert cut.fingerprint == whole.fingerprint
    store = EpisodeStore.open(tmp_path / "whole.zarr")
    cells = [name.rpartition("/")[0] for name in store.episodes["source_id"]]
    assert sorted(cells) == sorted(
        ["compose/press_button/panda"] * 2
        + ["compose/press_button/ur5e", "compose/tip_block/panda", "compose/tip_block/ur5e"]
    )
    assert generate_many(plan, tmp_path / "whole.zarr", workers=0).unchanged


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tasks": ()}, "no tasks or no arms"),
        ({"arms": ("panda", "panda")}, "names something twice"),
        ({"episodes": 1}, "at least one for each of 2 tasks"),
        ({"tasks": ("compose/press_buton",)}, "did you mean 'compose/press_button'"),
        (
            {"arms": ("pnada",), "tasks": ("compose/press_button",)},
            "unknown arm 'pnada'; did you mean 'panda'",
        ),
    ],
)
def test_a_bad_plan_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    """One line, and an empty folder."""
    values: dict[str, Any] = {
        "tasks": ("compose/press_button", "compose/tip_block"),
        "arms": ("panda",),
        "episodes": 4,
    }
    with pytest.raises(TaskError, match=problem):
        generate_many(ManyPlan(**(values | changes)), tmp_path / "s.zarr", workers=0)
    assert list(tmp_path.iterdir()) == []
