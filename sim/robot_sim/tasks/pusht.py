"""PushT: push a T-shaped block onto its target with a disc; the public benchmark, through gym-pusht.

The physics, reward and rendering are gym-pusht's. Three things are the Diffusion Policy benchmark's
(Chi et al. 2023), so that scores and policies compare with it:

* **Initial states** come from the legacy generator ``np.random.RandomState(seed)``; gym-pusht since 0.1.6
  draws others. Held-out seeds start at 100000.
* **Keypoints** are the nine of the published demonstrations, not gym-pusht's eight corners.
* **Score** of an episode is its largest reward, ``clip(coverage / 0.95, 0, 1)``, within 300 steps.

Everything is in pixels of a 512 x 512 window, x right, y down; angles in radians, clockwise on screen.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pymunk
import shapely

from robot_datasets.features import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_datasets.schemas import load_schema
from robot_sim.actions import checked_action
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on standard output otherwise

from gym_pusht.envs.pusht import PushTEnv, pymunk_to_shapely

SUCCESS_COVERAGE = 0.95

#: The nine keypoints of the published demonstrations in the block's frame [px], as (x, y) rows. The
#: benchmark placed them by farthest-point sampling on the drawn block (whole pixels, below) and then
#: shifted each by a uniform number in [0, 1) from NumPy's PCG64 with seed 0, which makes them exact here.
_KEYPOINT_PIXELS = (
    (9, 90), (-61, -2), (60, -2), (-1, 25), (-15, 122), (39, 32), (-40, 32), (-17, 62), (23, -2)
)  # fmt: skip
_KEYPOINT_SHIFTS = (
    (0.2697867137638703, 0.04097352393619469),
    (0.016527635528529094, 0.8132702392002724),
    (0.9127555772777217, 0.6066357757671799),
    (0.7294965609839984, 0.5436249914654229),
    (0.9350724237877682, 0.8158535541215322),
    (0.0027385001701482566, 0.8574042765875693),
    (0.033585575305464355, 0.7296554464299441),
    (0.17565562060255901, 0.8631789223498867),
    (0.5414612202490917, 0.29971189053738483),
)
BLOCK_KEYPOINTS = np.array(_KEYPOINT_PIXELS) + np.array(_KEYPOINT_SHIFTS)

SCHEMA = load_schema("pusht")
#: The same features as the published demonstrations have after conversion.
FEATURES: Mapping[str, Feature] = {name: SCHEMA.feature(name) for name in (STATE, ENVIRONMENT_STATE)}
ACTION_FEATURE = SCHEMA.action()
IMAGE = IMAGE_PREFIX + "top"
FPS = 10.0
IMAGE_FEATURE = Feature(dtype="uint8", shape=(96, 96, 3))


def make_env(*, images: bool = False, render_size: int = 256) -> PushT:
    """Build the task; see `PushT`."""
    return PushT(images=images, render_size=render_size)


def legacy_initial_state(seed: int) -> np.ndarray:
    """Return the benchmark's initial state of `seed`: agent xy, block xy [px], block angle [rad].

    The block's pose is the *requested* one: the benchmark sets position before angle, and because the
    block turns about its centre of mass, not its origin, it then starts elsewhere (kept, see `PushT.reset`).
    """
    random = np.random.RandomState(seed)
    agent = [random.randint(50, 450), random.randint(50, 450)]
    block = [random.randint(100, 400), random.randint(100, 400)]
    return np.array([*agent, *block, random.randn() * 2 * np.pi - np.pi], dtype=np.float64)


def block_keypoints(x: float, y: float, angle: float) -> np.ndarray:
    """Return the nine keypoints (9, 2) [px] of a block at (`x`, `y`) [px], turned by `angle` [rad]."""
    c, s = math.cos(angle), math.sin(angle)
    return BLOCK_KEYPOINTS @ np.array([[c, s], [-s, c]]) + (x, y)


class _Benchmark(PushTEnv):
    """gym-pusht's environment with the same numbers, computed without its per-step waste."""

    def __init__(self, render_size: int) -> None:
        super().__init__(
            obs_type="state",
            observation_width=IMAGE_FEATURE.shape[1],
            observation_height=IMAGE_FEATURE.shape[0],
            visualization_width=render_size,
            visualization_height=render_size,
        )

    def start(self, state: np.ndarray, *, exact: bool) -> None:
        """Set agent xy, block xy, angle; `exact` means where asked, not where the benchmark puts it."""
        self._setup()
        self._last_action = None
        goal = self.get_goal_pose_body(self.goal_pose)
        self._goal_geometry = pymunk_to_shapely(goal, self._block_shapes)
        self._goal_area = self._goal_geometry.area
        self._block_corners = [shape.get_vertices() for shape in self._block_shapes]  # four of each
        self._covered_at: tuple[float, ...] = ()
        values = [float(v) for v in state]
        if exact:
            self.agent.position = tuple(values[:2])
            self.block.angle = values[4]
            self.block.position = tuple(values[2:4])
            self.space.reindex_shapes_for_body(self.block)
            self.space.reindex_shapes_for_body(self.agent)
        else:
            self._set_state(values)

    def drive(self, action: np.ndarray) -> None:
        """Pull the agent towards `action` [px] for 0.1 s: gym-pusht's inner loop on plain floats."""
        agent, space, dt = self.agent, self.space, self.dt
        gain, damping = self.k_p, self.k_v
        target_x, target_y = float(action[0]), float(action[1])
        self._last_action = action
        for _ in range(int(1 / (dt * self.control_hz))):
            x, y = agent.position
            vx, vy = agent.velocity
            agent.velocity = (
                vx + (gain * (target_x - x) + damping * (0 - vx)) * dt,
                vy + (gain * (target_y - y) + damping * (0 - vy)) * dt,
            )
            space.step(dt)

    def coverage(self) -> float:
        """Share of the goal's area that the block covers, in [0, 1]."""
        pose = (*self.block.position, self.block.angle)
        if pose != self._covered_at:  # the block rests for most of an episode
            # gym-pusht goes through ``block.shapes``, a set whose order, and so the last bit of the area, varies.
            corners = [
                [self.block.local_to_world(corner) for corner in shape] for shape in self._block_corners
            ]
            boxes: Any = shapely.polygons(np.array(corners))
            block = shapely.multipolygons(boxes)
            self._covered_at, self._covered = (
                pose,
                self._goal_geometry.intersection(block).area / self._goal_area,
            )
        return self._covered

    def image(self) -> np.ndarray:
        """The (96, 96, 3) observation, without the marker of the action."""
        return np.asarray(self._render(visualize=False))

    def frame(self) -> np.ndarray:
        """The picture for people, with a cross at the last action."""
        return np.asarray(self._render(visualize=True))

    def _handle_collision(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: Any) -> None:
        # gym-pusht counts contact points for its info; nobody here reads the count.
        del arbiter, space, data


class PushT(TaskEnv):
    """The PushT benchmark.

    Observations: ``observation.state`` = agent xy (2,), ``observation.environment_state`` = nine keypoints
    of the block, flattened (18,); with `images` also ``observation.images.top`` (96, 96, 3). The action is
    the position the agent is pulled to. The episode ends when coverage exceeds 0.95.

    Args:
        images: Add the camera image to the observations.
        render_size: Side of the frames that `render` returns [px].
    """

    def __init__(self, *, images: bool = False, render_size: int = 256) -> None:
        features = {**FEATURES, **({IMAGE: IMAGE_FEATURE} if images else {})}
        self.task_spec = TaskSpec(
            name="pusht",
            observation=features,
            action=ACTION_FEATURE,
            fps=FPS,
            max_steps=300,
            score="max_reward",
            seed_start=100_000,
            embodiment=SCHEMA.robot,
            instruction=SCHEMA.task,
            goal=(ENVIRONMENT_STATE,),
        )
        self.observation_space = observation_space(features)
        self.action_space = gymnasium.spaces.Box(0.0, 512.0, (2,), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        self.render_mode = "rgb_array"
        self._benchmark = _Benchmark(render_size)
        self._images = images
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Names the benchmark's initial state, in [0, 2**32); None draws one.
            options: ``{"state": (5,)}`` starts from agent xy, block xy [px], block angle [rad] instead, as
                recorded in the published data.
        """
        super().reset(seed=seed)
        state = None if options is None else options.get("state")
        if state is not None:
            self._benchmark.start(np.asarray(state, dtype=np.float64), exact=True)
        else:
            episode = int(self.np_random.integers(2**32)) if seed is None else seed
            self._benchmark.start(legacy_initial_state(episode), exact=False)
        self._steps = 0
        return self._observe(), self._info(self._benchmark.coverage())

    def goal(self) -> Observation:
        """The block's keypoints on the target; where the agent is does not matter."""
        x, y, angle = self._benchmark.goal_pose
        return {ENVIRONMENT_STATE: block_keypoints(x, y, angle).reshape(-1).astype(np.float32)}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Pull the agent towards `action` (2,) [px] for 0.1 s."""
        self._benchmark.drive(checked_action(action, ACTION_FEATURE, task="pusht"))
        self._steps += 1
        coverage = self._benchmark.coverage()
        info = self._info(coverage)
        truncated = self._steps >= self.task_spec.max_steps
        return (
            self._observe(),
            info["reward_terms"]["coverage"],
            info["is_success"],
            truncated,
            info,
        )

    def render(self) -> np.ndarray:
        """Return the scene (render_size, render_size, 3) uint8 with a cross at the last action."""
        return self._benchmark.frame()

    def close(self) -> None:
        """Release the window library."""
        self._benchmark.close()

    def _observe(self) -> Observation:
        block = self._benchmark.block
        keypoints = block_keypoints(block.position.x, block.position.y, block.angle)
        observation = {
            STATE: np.array(self._benchmark.agent.position, dtype=np.float32),
            ENVIRONMENT_STATE: keypoints.reshape(-1).astype(np.float32),
        }
        if self._images:
            observation[IMAGE] = self._benchmark.image()
        return observation

    def _info(self, coverage: float) -> dict[str, Any]:
        return {
            "is_success": bool(coverage > SUCCESS_COVERAGE),
            "coverage": coverage,
            "reward_terms": {"coverage": min(max(coverage / SUCCESS_COVERAGE, 0.0), 1.0)},
        }
