"""The contract of an own MuJoCo task: written once over a batch, run as one environment or as thousands.

A task is one file with a subclass of `MujocoTask`. It holds configuration and looks things up in the compiled model;
it holds no running state. Everything that runs lives in a `robot_sim.mujoco_tasks.simulation.TaskSimulation`, which
the methods receive: ``sim.physics`` (`robot_sim.vector.physics.BatchedPhysics`) and ``sim.memory``, the values an
episode carries besides its physical state. Rows are environments; N may be 1.

``docs/simulation/tasks.md`` walks through an example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.features import IMAGE_PREFIX, Feature
from robot_sim.controllers.controller import Controller
from robot_sim.mujoco_tasks.randomization import add_random_textures
from robot_sim.registry import TaskError
from robot_sim.rendering_quality import FAST, RenderQuality, apply_to_spec
from robot_sim.task import Observation, TaskSpec
from robot_sim.vector.mujoco_names import ModelNames

if TYPE_CHECKING:
    from robot_sim.mujoco_tasks.simulation import TaskSimulation


@dataclass(frozen=True, kw_only=True)
class InitialState:
    """How one episode starts.

    Attributes:
        qpos: Joint positions (nq,).
        ctrl: Actuator inputs (nu,) before the controllers take over, e.g. how far the gripper is open.
        memory: Name -> value that the episode carries, such as a drawn goal; the same names, shapes and dtypes in
            every episode.
    """

    qpos: np.ndarray
    ctrl: np.ndarray
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)


class MujocoTask(ABC):
    """One task; see the module's docstring.

    A subclass sets the attributes in its constructor and implements the abstract methods. All of them are pure:
    they depend on their arguments and the configuration alone, so a task object can be shared by simulations.

    Attributes:
        spec: What the task offers; its `observation` holds the low-dimensional features, images come from `cameras`.
        timestep: Physics step [s]; 1 / (fps * timestep) must be a whole number.
        cameras: Cameras of the scene whose images are observed.
        image_size: Side of the images [px].
        view: Camera of the pictures for people.
        quality: What pictures are drawn with.
    """

    spec: TaskSpec
    timestep: float = 0.002
    cameras: tuple[str, ...] = ()
    image_size: int = 84
    view: str = "agentview"
    quality: RenderQuality = FAST

    @abstractmethod
    def build_scene(self, *, visual: bool) -> Any:
        """Return the scene as a new ``mujoco.MjSpec``.

        Args:
            visual: Whether what is only seen is wanted. Joints, bodies, sites, cameras, actuators and sensors must
                be the same either way, in the same order: states are simulated without and drawn with visuals.
        """

    @abstractmethod
    def make_controller(self, names: ModelNames, n_envs: int) -> Controller:
        """Return the controller whose actions are the task's."""

    @abstractmethod
    def sample(self, random: np.random.Generator) -> InitialState:
        """Draw the start of one episode; all randomness comes from `random`, which the seed determines."""

    @abstractmethod
    def observe(self, sim: TaskSimulation) -> Observation:
        """Return the low-dimensional features of all environments, (N, ...) each, as new arrays."""

    @abstractmethod
    def reward_terms(self, sim: TaskSimulation) -> dict[str, np.ndarray]:
        """Return the named terms of the reward, (N,) each."""

    @abstractmethod
    def success(self, sim: TaskSimulation) -> np.ndarray:
        """Return which environments have reached the goal now, (N,) bool."""

    def reward(self, terms: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the reward (N,) of these terms; their mean unless overridden."""
        return np.mean(list(terms.values()), axis=0)

    def after_step(self, sim: TaskSimulation) -> None:
        """Update ``sim.memory`` after a control step, e.g. which stage was reached; nothing unless overridden."""
        del sim

    def goal(self, sim: TaskSimulation) -> Observation:
        """Return what is to be reached, (N, ...), in the features that the spec's `goal` names."""
        del sim
        return {}

    # --- what follows from the above --------------------------------------------------------------------------

    @cached_property
    def model(self) -> Any:
        """The compiled scene without visuals, for simulation."""
        return self._compile(visual=False)

    @cached_property
    def visual_model(self) -> Any:
        """The compiled scene with visuals, for drawing; shares every state with `model`."""
        model = self._compile(visual=True)
        for size in ("nq", "nv", "nu", "na", "nbody", "nsite", "ncam", "nmocap"):
            if getattr(model, size) != getattr(self.model, size):
                raise TaskError(
                    f"task '{self.spec.name}': the scene with visuals has {size} = {getattr(model, size)}, without "
                    f"{getattr(self.model, size)}; build_scene may only leave out geoms and assets"
                )
        return model

    @cached_property
    def names(self) -> ModelNames:
        """Looks up ids and addresses in `model`."""
        return ModelNames(self.model)

    @property
    def n_substeps(self) -> int:
        """Physics steps per control step."""
        exact = 1.0 / (self.spec.fps * self.timestep)
        if abs(exact - round(exact)) > 1e-6 or round(exact) < 1:
            raise TaskError(
                f"task '{self.spec.name}': a control period of {1 / self.spec.fps:g} s is not a whole number of "
                f"physics steps of {self.timestep:g} s"
            )
        return round(exact)

    @property
    def full_spec(self) -> TaskSpec:
        """The spec with the images of `cameras` among the observations."""
        image = Feature(dtype="uint8", shape=(self.image_size, self.image_size, 3))
        images = {IMAGE_PREFIX + camera: image for camera in self.cameras}
        return TaskSpec(**{**self.spec.__dict__, "observation": {**self.spec.observation, **images}})

    def _compile(self, *, visual: bool) -> Any:
        spec = self.build_scene(visual=visual)
        spec.option.timestep = self.timestep
        if visual:
            add_random_textures(spec)
            apply_to_spec(spec, self.quality)
        try:
            return spec.compile()
        except ValueError as error:
            raise TaskError(f"task '{self.spec.name}': the scene does not compile: {error}") from error
