"""A composition as a task: ``compose/<name>``, or ``compose/<path of a YAML file>``.

All compositions have the same features, so that one policy may learn many of them: three slots of objects, in the
order of the file, each with position (3), orientation xyzw (4), vector from the tool (3), half sizes (3) and colour
(3), zeros where there is no object; then how far a drawer is open or a button pressed. Which task it is, only the
instruction says: one of several paraphrases, chosen by the seed.

World frame: x away from the robot, y to its left, z up; origin in the middle of the table's top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import ENVIRONMENT_STATE, STATE, Feature
from robot_sim.compositions.composition import (
    Composition,
    composition_names,
    find_composition,
    read_composition,
)
from robot_sim.compositions.conditions import evaluate
from robot_sim.compositions.objects import BODIES, KINDS, ObjectSpec, varied
from robot_sim.mujoco_tasks.arms import Mount
from robot_sim.mujoco_tasks.environment import MujocoTaskEnv
from robot_sim.mujoco_tasks.mounted_arm import MountedArm
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.registry import TaskError
from robot_sim.rotations import wxyz_to_xyzw
from robot_sim.skills.expert import DEFAULT_NOISE, SkillExpert, one_arm
from robot_sim.skills.follower import Waypoint
from robot_sim.skills.skill import Context, find_skill
from robot_sim.task import Observation
from robot_sim.tasks.tabletop import Options, TabletopTask, spread

SLOTS = 3
_SLOT = ("x", "y", "z", "qx", "qy", "qz", "qw", "dx", "dy", "dz", "half_x", "half_y", "half_z", "r", "g", "b")
_SLOT_UNITS = ("m", "m", "m", "1", "1", "1", "1", "m", "m", "m", "m", "m", "m", "1", "1", "1")
PRESSED = 0.008  # how far down a button counts as pressed [m]


def task_ids() -> list[str]:
    """Names of the compositions that come with the package, sorted."""
    return composition_names()


def knows(task: str) -> bool:
    """Whether there is a composition of this name, or a file of this path."""
    return find_composition(task) is not None


def make_env(
    task: str,
    *,
    arm: str = "panda",
    gripper: str = "",
    control: str = "osc_delta",
    variant: int = 0,
    images: bool = False,
    cameras: Sequence[str] = ("agentview",),
    image_size: int = 84,
    render_size: int = 256,
    joints: bool = False,
) -> ComposedEnv:
    """Build one environment of a composition.

    Args:
        task: Name or path.
        arm: Name out of `robot_sim.mujoco_tasks.arms.ARMS`.
        gripper: Name out of `robot_sim.mujoco_tasks.arms.GRIPPERS`; empty for the arm's usual one.
        control: Name out of `robot_sim.mujoco_tasks.mounted_arm.CONTROLS`.
        variant: Scene: 0 has the sizes and colours of the file, any other number draws its own.
        images: Add an image of every camera to the observations.
        cameras: Cameras of `robot_sim.mujoco_tasks.scene.tabletop`.
        image_size: Side of the images [px].
        render_size: Side of the frames that `render` returns [px].
        joints: See `robot_sim.tasks.tabletop.Options`.
    """
    options = Options.of(arm, control, images, cameras, image_size, joints)
    composed = ComposedTask(_composition(task), options, gripper=gripper, variant=variant)
    return ComposedEnv(composed, render_size=render_size)


def make_expert(task: str, *, noise: float = DEFAULT_NOISE, recovery: float = 0.0) -> SkillExpert:
    """Build the demonstrator of a composition; see `SkillExpert`."""
    composition = _composition(task)

    def demonstrate(context: Context) -> Iterator[Waypoint]:
        for step in composition.steps:
            options = dict(step.options)
            yield from find_skill(step.skill, options, where=task)(context, **options)

    return SkillExpert(one_arm(demonstrate), noise=noise, recovery=recovery)


def _composition(task: str) -> Composition:
    path = find_composition(task)
    if path is None:
        raise TaskError(unknown_name("composition", task, composition_names()))
    return read_composition(Path(path))


class ComposedTask(TabletopTask):
    """See the module's docstring.

    Args:
        composition: What is on the table and what is to be done.
        options: See `Options`.
        gripper: Of the arm; empty for its usual one.
        variant: See `make_env`.
    """

    def __init__(
        self, composition: Composition, options: Options, *, gripper: str = "", variant: int = 0
    ) -> None:
        if len(composition.objects) > SLOTS:
            raise TaskError(
                f"{composition.name}: {len(composition.objects)} objects, but compositions have {SLOTS} slots"
            )
        super().__init__(
            name=f"compose/{composition.name}",
            instruction=composition.instructions[0],
            options=options,
            tracked=(),
            max_steps=composition.max_steps,
        )
        self.composition = composition
        if gripper:
            self.arms = [MountedArm(Mount(arm=options.arm, gripper=gripper), control=options.control)]
            self.arm = self.arms[0]
        random = np.random.default_rng([variant, len(composition.name)]) if variant else None
        self._looks = {item.name: varied(item, random) for item in composition.objects}
        names = [f"object{i}_{part}" for i in range(SLOTS) for part in _SLOT]
        environment = Feature(
            dtype="float32",
            shape=(len(names) + 1,),
            names=(*names, "mechanism"),
            units=(*_SLOT_UNITS * SLOTS, "m"),
            frame="world",
            rotation="quat_xyzw",
        )
        embodiment = options.arm if not gripper else f"{options.arm}_{gripper}"
        observation = {**self.spec.observation, ENVIRONMENT_STATE: environment}
        self.spec = type(self.spec)(
            **{**self.spec.__dict__, "observation": observation, "embodiment": embodiment}
        )

    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the composition's objects."""
        del visual
        for item in self.composition.objects:
            half, rgba = self._looks[item.name]
            KINDS[item.kind].add(scene, item, half, rgba)

    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Draw where the objects lie; remember it, for conditions that compare with the start."""
        objects, layout = self.composition.objects, self.composition.layout
        scattered = [item for item in objects if not item.region and not item.inside]
        drawn = spread(
            random, max(1, len(scattered)), low=layout.low, high=layout.high, distance=layout.distance
        )
        places = {item.name: drawn[i] for i, item in enumerate(scattered)}
        start = np.zeros((SLOTS, 4))
        for item in objects:
            if item.region:
                places[item.name] = random.uniform(item.region[:2], item.region[2:])
        for i, item in enumerate(objects):
            yaw = float(np.radians(random.uniform(*item.yaw)))
            place = places[item.inside or item.name]
            height = self._rest_height(item)
            put = KINDS[item.kind].put
            if put is not None:
                put(self.names, qpos, item, place, yaw)
            else:
                turn = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
                if item.lying:  # first about y, then about z
                    c, s = np.cos(yaw / 2) * np.sqrt(0.5), np.sin(yaw / 2) * np.sqrt(0.5)
                    turn = [c, -s, c, s]
                qpos[self.names.qpos(f"{item.name}_joint")] = [*place, height, *turn]
            start[i] = [*place, height if put is None else 0.0, yaw]
        return {"start": start, "pressed": np.zeros((), dtype=np.int64)}

    def _rest_height(self, item: ObjectSpec) -> float:
        half = self._looks[item.name][0]
        own = half[0] if item.lying else half[2]
        return own + (0.006 if item.inside else 0.0)

    def body(self, name: str) -> str:
        """Return the name of an object's body."""
        return next((BODIES.get(o.kind, name) for o in self.composition.objects if o.name == name), name)

    def half(self, name: str) -> np.ndarray:
        """Return the half sizes (3,) of an object [m]; a mark's height is 0."""
        item = next(item for item in self.composition.objects if item.name == name)
        half = np.array(self._looks[name][0])
        return half * (1, 1, 0) if item.kind == "mark" else half

    def start(self, sim: TaskSimulation, name: str) -> np.ndarray:
        """Return where an object was at the start: position and angle about z (N, 4) [m, rad]."""
        index = [item.name for item in self.composition.objects].index(name)
        return sim.memory["start"][:, index]

    def observe(self, sim: TaskSimulation) -> Observation:
        """Return the two features of the module's docstring, and the joints if they are wanted."""
        physics, tool = sim.physics, self.arm.position(sim.physics)
        environment = np.zeros((sim.n_envs, SLOTS * len(_SLOT) + 1))
        for i, item in enumerate(self.composition.objects):
            body = self.names.body(self.body(item.name))
            position = physics.xpos[:, body]
            half, rgba = self._looks[item.name]
            fixed = np.tile(np.array([*half, *rgba[:3]]), (sim.n_envs, 1))
            slot = [position, wxyz_to_xyzw(physics.xquat[:, body]), position - tool, fixed]
            environment[:, i * len(_SLOT) : (i + 1) * len(_SLOT)] = np.concatenate(slot, axis=1)
        environment[:, -1] = self._mechanism(sim)
        return {STATE: self.arm.state(physics), ENVIRONMENT_STATE: environment, **self.observe_joints(sim)}

    def _mechanism(self, sim: TaskSimulation) -> np.ndarray:
        for item in self.composition.objects:
            if item.kind == "cabinet":
                return self.joint(sim, "drawer_joint")
            if item.kind == "button":
                return self.joint(sim, f"{item.name}_press")
        return np.zeros(sim.n_envs)

    def after_step(self, sim: TaskSimulation) -> None:
        """Remember that a button was pressed."""
        for item in self.composition.objects:
            if item.kind == "button":
                sim.memory["pressed"] |= (self.joint(sim, f"{item.name}_press") > PRESSED).astype(np.int64)

    def body_position(self, sim: TaskSimulation, name: str) -> np.ndarray:
        """Return an object's position (N, 3) [m]."""
        return super().body_position(sim, self.body(name))

    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return every condition of success as a term, 0 or 1."""
        return {
            f"{i}_{condition.name}": evaluate(condition.name, self, sim, dict(condition.options)).astype(
                float
            )
            for i, condition in enumerate(self.composition.success)
        }

    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return where all conditions hold."""
        return np.all(list(self.reward_terms(sim).values()), axis=0)


class ComposedEnv(MujocoTaskEnv):
    """One environment of a composition; its instruction is a paraphrase that the seed chooses."""

    def __init__(self, task: ComposedTask, *, render_size: int) -> None:
        super().__init__(task, render_size=render_size)
        self._instructions = task.composition.instructions
        self._instruction = self._instructions[0]

    @property
    def instruction(self) -> str:
        """This episode's task in words."""
        return self._instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode that `seed` names; None draws one."""
        chosen = int(np.random.default_rng([seed or 0, 7]).integers(len(self._instructions)))
        self._instruction = self._instructions[chosen]
        return super().reset(seed=seed, options=options)
