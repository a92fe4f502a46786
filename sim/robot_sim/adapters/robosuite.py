"""robosuite's own tasks, robots and controllers: ``robosuite/<environment>``, e.g. ``robosuite/PickPlaceCan``.

Nothing of the physics, the controllers, the reward or the success predicate is ours: a step is robosuite's
``env.step``. Options keep robosuite's names. Three things are added:

* A seed fixes the episode. robosuite draws from NumPy's global generator, and which object there is from Python's;
  both are seeded for the length of a reset and put back afterwards. With ``hard_reset=false`` (the default here) the
  objects of an instance are always those of seed 0.
* The observables become features: ``observation.state`` holds hand position, hand orientation and gripper
  joints of every robot (robomimic's choice), ``observation.environment_state`` is robosuite's ``object-state``.
* Images are drawn by MuJoCo directly, without shadows, multisampling and reflections.

robomimic's short names ``Can``, ``Square`` and ``Transport`` are understood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_sim.actions import checked_action
from robot_sim.adapters.robosuite_experts import EXPERTS, RobosuiteExpert
from robot_sim.adapters.robosuite_features import (
    action_feature,
    describe_arms,
    environment_features,
    read_environment,
    read_state,
    state_feature,
)
from robot_sim.adapters.robosuite_import import refactor_composite_controller_config, robosuite
from robot_sim.adapters.robosuite_legacy import is_legacy, restore_control_law, slow_grippers
from robot_sim.adapters.seeding import seeded_globals
from robot_sim.experts.hand import DEFAULT_NOISE
from robot_sim.registry import TaskError
from robot_sim.rendering import FrameRenderer, cheap_rendering
from robot_sim.spaces import observation_space
from robot_sim.task import Expert, Observation, TaskEnv, TaskSpec

COLLISION_GROUP = 0
ALIASES = {"Can": "PickPlaceCan", "Square": "NutAssemblySquare", "Transport": "TwoArmTransport"}
INSTRUCTIONS = {
    "Door": "open the door",
    "Lift": "lift the cube",
    "NutAssembly": "fit both nuts onto their pegs",
    "NutAssemblyRound": "fit the round nut onto its peg",
    "NutAssemblySingle": "fit the nut onto its peg",
    "NutAssemblySquare": "fit the square nut onto its peg",
    "PickPlace": "put every object into its bin",
    "PickPlaceBread": "put the bread into its bin",
    "PickPlaceCan": "put the can into its bin",
    "PickPlaceCereal": "put the cereal box into its bin",
    "PickPlaceMilk": "put the milk carton into its bin",
    "PickPlaceSingle": "put the object into its bin",
    "Stack": "stack the red cube on the green one",
    "ToolHang": "assemble the frame and hang the tool on it",
    "TwoArmHandover": "hand the hammer over",
    "TwoArmLift": "lift the pot with both arms",
    "TwoArmPegInHole": "insert the peg into the hole",
    "TwoArmTransport": "bring the hammer to the other bin",
    "Wipe": "wipe the table clean",
}


def task_ids() -> list[str]:
    """Names of robosuite's environments, sorted, with robomimic's short ones."""
    registered = robosuite.environments.base.REGISTERED_ENVS
    return sorted({*ALIASES, *(name for name in registered if not name.startswith("_"))})


def knows(task: str) -> bool:
    """Whether there is an environment of this name."""
    return task in task_ids()


def make_env(
    task: str,
    *,
    robots: str | Sequence[str] = "Panda",
    env_configuration: str = "default",
    controller_configs: str | Mapping[str, Any] | None = None,
    gripper_types: str = "default",
    control_freq: float = 20,
    horizon: int = 400,
    reward_shaping: bool = False,
    hard_reset: bool = False,
    more: Mapping[str, Any] | None = None,
    images: bool = False,
    cameras: Sequence[str] = ("agentview",),
    image_size: int = 84,
    render_size: int = 256,
) -> RobosuiteTask:
    """Build one of robosuite's environments.

    Args:
        task: Name in robosuite, e.g. ``"Lift"``.
        robots: One robot, or one per arm of a two-arm task (a single name is used for both).
        env_configuration: Of two-arm tasks: ``"opposed"``, ``"parallel"`` or ``"single-robot"``.
        controller_configs: A composite controller's name (``"BASIC"``) or its configuration; a part
            controller's name (``"OSC_POSE"``, ``"JOINT_POSITION"``, ...) for the arms; None is the robot's default.
            An arm's configuration alone, as robosuite up to 1.4 described it, also brings back how it moved then.
        gripper_types: Gripper, or ``"default"``, which is the environment's or the robot's.
        control_freq: Control rate [Hz].
        horizon: Steps after which an episode is cut.
        reward_shaping: Dense reward.
        hard_reset: Compile the scene anew at every reset, as robosuite does by default; slow.
        more: Further arguments of the environment's class, e.g. ``{table_friction: [1.0, 0.005, 0.0001]}``.
        images: Add an image of every camera to the observations.
        cameras: robosuite's camera names, e.g. ``"agentview"``, ``"robot0_eye_in_hand"``.
        image_size: Side of the images [px].
        render_size: Side of the frames that `render` returns [px].

    Raises:
        TaskError: robosuite refuses the options.
    """
    name = ALIASES.get(task, task)
    names = _robot_names(name, robots, env_configuration)
    options = {
        "robots": names[0] if len(names) == 1 else names,
        "controller_configs": _controllers(controller_configs, names),
        **({} if gripper_types == "default" else {"gripper_types": gripper_types}),  # Wipe has one of its own
        "control_freq": control_freq,
        "horizon": horizon,
        "reward_shaping": reward_shaping,
        "hard_reset": hard_reset,
        **(more or {}),
    }
    if name.startswith("TwoArm"):
        options["env_configuration"] = env_configuration
    elif env_configuration != "default":
        raise TaskError(f"task 'robosuite/{task}' has one arm; leave env_configuration=default")
    return RobosuiteTask(
        task, name, options, cameras=tuple(cameras) if images else (), image_size=image_size,
        render_size=render_size, legacy=is_legacy(controller_configs),
    )  # fmt: skip


def _robot_names(name: str, robots: str | Sequence[str], configuration: str) -> list[str]:
    names = [robots] if isinstance(robots, str) else [str(robot) for robot in robots]
    known = robosuite.robots.REGISTERED_ROBOTS if hasattr(robosuite.robots, "REGISTERED_ROBOTS") else {}
    known = known or robosuite.models.robots.robot_model.REGISTERED_ROBOTS
    for robot in names:
        if robot not in known:
            raise TaskError(f"robots: {unknown_name('robot', robot, known)}")
    two = name.startswith("TwoArm") and configuration != "single-robot"
    return names * 2 if two and len(names) == 1 and names[0] not in ("Baxter", "Tiago", "GR1") else names


def _controllers(chosen: str | Mapping[str, Any] | None, robots: Sequence[str]) -> Any:
    """Return one configuration per robot; a part controller's name replaces that of the arms."""
    if chosen is None:
        return None
    if not isinstance(chosen, str):
        # robosuite up to 1.4 described the arm's controller alone, and recordings of that time still do.
        configurations = [
            refactor_composite_controller_config(dict(chosen), robot, ["right"]) for robot in robots
        ]
        return configurations[0] if len(robots) == 1 else configurations
    composite = robosuite.load_composite_controller_config
    try:
        parts = robosuite.load_part_controller_config(default_controller=chosen)
    except (AssertionError, FileNotFoundError):
        parts = None
    try:
        if parts is None:
            return [composite(controller=chosen, robot=robot) for robot in robots]
        configurations = [composite(robot=robot) for robot in robots]
    except (AssertionError, FileNotFoundError, ValueError) as error:
        raise TaskError(
            f"controller_configs: robosuite has no controller '{chosen}'; expected BASIC, WHOLE_BODY_IK, "
            "OSC_POSE, OSC_POSITION, IK_POSE, JOINT_POSITION, JOINT_VELOCITY or JOINT_TORQUE"
        ) from error
    for configuration in configurations:
        assert configuration is not None  # robosuite returns None for unknown files only
        for part, values in configuration["body_parts"].items():
            if part in ("right", "left") and values["type"] != chosen:
                configuration["body_parts"][part] = {
                    **parts,
                    "gripper": values.get("gripper", {"type": "GRIP"}),
                }
    return configurations


def expert_ids() -> list[str]:
    """Names of the environments that have a scripted expert, sorted, with robomimic's short ones."""
    return sorted(task for task in task_ids() if ALIASES.get(task, task) in EXPERTS)


def make_expert(task: str, *, noise: float = DEFAULT_NOISE) -> Expert:
    """Build the scripted demonstrator of one of `expert_ids`, for a Panda as robosuite sets it up by default.

    Args:
        task: Name in robosuite, or robomimic's.
        noise: Standard deviation of the disturbance of the three translation components, in action units.
    """
    return RobosuiteExpert(EXPERTS[ALIASES.get(task, task)](noise))


class RobosuiteTask(TaskEnv):
    """One of robosuite's environments; see the module's docstring and `make_env`."""

    def __init__(
        self,
        task: str,
        name: str,
        options: Mapping[str, Any],
        *,
        cameras: tuple[str, ...],
        image_size: int,
        render_size: int,
        legacy: bool = False,
    ) -> None:
        self._legacy = legacy
        try:
            with seeded_globals(0):  # sizes of objects are drawn when the scene is built
                self._env: Any = robosuite.make(
                    name, **options, ignore_done=True, has_renderer=False, has_offscreen_renderer=False,
                    use_camera_obs=False, use_object_obs=True, renderer="mujoco",
                )  # fmt: skip
                self._env.set_xml_processor(cheap_rendering)
                self._env._initialize_sim()
                if legacy:
                    slow_grippers(self._env)
                first = self._env.reset()
        except (AssertionError, ValueError, KeyError, TypeError) as error:
            raise TaskError(f"robosuite refuses these options of '{task}': {error!r}") from error
        self._prefix = f"robosuite/{task}"
        known = self._env.sim.model.camera_names
        for camera in cameras:
            if camera not in known:
                raise TaskError(f"task '{self._prefix}': {unknown_name('camera', camera, known)}")
        image = Feature(dtype="uint8", shape=(image_size, image_size, 3))
        features: dict[str, Feature] = {
            STATE: state_feature(self._env, first),
            ENVIRONMENT_STATE: environment_features(self._env, first),
            **{IMAGE_PREFIX + camera: image for camera in cameras},
        }
        robots = [type(robot.robot_model).__name__.lower() for robot in self._env.robots]
        self.task_spec = TaskSpec(
            name=self._prefix,
            observation=features,
            action=action_feature(self._env),
            fps=float(self._env.control_freq),
            max_steps=int(self._env.horizon),
            score="success",
            seed_start=100_000,
            embodiment="+".join(robots),
            instruction=INSTRUCTIONS.get(name, name),
        )
        low, high = self._env.action_spec
        self.action_space = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32))
        self.observation_space = observation_space(features)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": int(self._env.control_freq)}
        self.render_mode = "rgb_array"
        self._cameras, self._image_size, self._render_size = cameras, image_size, render_size
        self._renderer: FrameRenderer | None = None
        self._drawn: Any = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Names the episode, in [0, 2**32); None draws one.
            options: ``"state"``: MuJoCo's flattened state (1 + n_q + n_v,), time, positions and velocities, to begin
                with, as robosuite records it; the scene is that of the seed.

        Raises:
            TaskError: The state is of another scene.
        """
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        with seeded_globals(episode):
            observation = self._env.reset()
        if self._legacy:
            restore_control_law(self._env)
        state = (options or {}).get("state")
        if state is not None:
            observation = self._begin_at(np.asarray(state, dtype=np.float64))
        self._steps = 0
        return self._observe(observation), self._info(0.0)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one action (A,) of robosuite's controllers for 1/control_freq seconds."""
        action = checked_action(action, self.task_spec.action, task=self._prefix)
        observation, reward, _, _ = self._env.step(action)
        self._steps += 1
        info = self._info(float(reward))
        return (
            self._observe(observation),
            float(reward),
            info["is_success"],
            self._steps >= self.task_spec.max_steps,
            info,
        )

    def render(self) -> np.ndarray:
        """Return the scene from ``agentview`` (render_size, render_size, 3) uint8."""
        return self._draw("agentview", self._render_size)

    def close(self) -> None:
        """Free the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._env.close()

    def simulator_positions(self) -> np.ndarray:
        """Positions of all joints (n_q,): robot, gripper and objects [rad, m, quaternions w first]."""
        return np.array(self._env.sim.data.qpos)

    def body_position(self, name: str) -> np.ndarray:
        """Return where the body `name` of the scene is (3,), in the world [m].

        Raises:
            TaskError: The scene has no such body.
        """
        known = self._env.sim.model.body_names
        if name not in known:
            raise TaskError(f"task '{self._prefix}': {unknown_name('body', name, known)}")
        return np.array(self._env.sim.data.body_xpos[self._env.sim.model.body_name2id(name)])

    def arms(self) -> list[str]:
        """Every arm in words, e.g. ``"Panda with PandaGripper and delta OSC_POSE"``."""
        return describe_arms(self._env)

    def _begin_at(self, state: np.ndarray) -> Mapping[str, np.ndarray]:
        """Put the simulation into a recorded state as robosuite's recorder did when the episode began.

        It resets once more without noise: the controllers rest in the robot's nominal posture, not in the one the arm
        starts in, and the first action is relative to the hand's pose there.
        """
        expected = self._env.sim.get_state().flatten().shape
        if state.shape != expected:
            raise TaskError(
                f"task '{self._prefix}': the recorded state has {state.size} numbers, this scene has {expected[0]}; it "
                "was recorded in another scene or with another version of robosuite"
            )
        self._env.deterministic_reset = True
        try:
            self._env.reset()
        finally:
            self._env.deterministic_reset = False
        if self._legacy:
            restore_control_law(self._env)
        self._env.sim.reset()
        self._env.sim.set_state_from_flattened(state)
        self._env.sim.forward()
        return self._env._get_observations(force_update=True)

    def _observe(self, observation: Mapping[str, np.ndarray]) -> Observation:
        result: Observation = {
            STATE: read_state(self._env, observation),
            ENVIRONMENT_STATE: read_environment(observation),
        }
        for camera in self._cameras:
            result[IMAGE_PREFIX + camera] = self._draw(camera, self._image_size)
        return result

    def _info(self, reward: float) -> dict[str, Any]:
        return {"is_success": bool(self._env._check_success()), "reward_terms": {"reward": reward}}

    def _draw(self, camera: str, size: int) -> np.ndarray:
        model, data = self._env.sim.model._model, self._env.sim.data._data
        if self._drawn is not model and self._renderer is not None:  # a hard reset compiled another one
            self._renderer.close()
            self._renderer = None
        if self._renderer is None:
            self._renderer, self._drawn = FrameRenderer(model, hidden_groups=(COLLISION_GROUP,)), model
        return self._renderer.render(data, camera, width=size, height=size)
