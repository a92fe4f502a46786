"""Pictures of many environments: kinds, worker processes, randomised looks."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("robosuite") is None:
    pytest.skip("the sim extra is not installed", allow_module_level=True)

from robot_sim.mujoco_tasks.randomization import Randomization
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.rendering import RenderingError
from robot_sim.tasks.tabletop_lift import make_task
from robot_sim.vector.cameras import InProcessCameras
from robot_sim.vector.render_workers import TaskFactory, WorkerCameras

ROWS = np.arange(3)
SIZE = 48


@pytest.fixture(scope="module")
def task() -> MujocoTask:
    """One task; skips where nothing can be drawn."""
    made = make_task()
    simulation = TaskSimulation(made, 1, threads=0)
    simulation.reset([0], [0])
    cameras = InProcessCameras(made)
    try:
        cameras.draw(simulation, np.array([0]), "agentview", 8)
    except RenderingError as error:
        pytest.skip(str(error))
    finally:
        cameras.close()
    return made


@pytest.fixture(scope="module")
def cameras(task: MujocoTask) -> Iterator[InProcessCameras]:
    """Drawn in this process."""
    made = InProcessCameras(task)
    yield made
    made.close()


def _simulation(task: MujocoTask, randomization: Randomization | None = None) -> TaskSimulation:
    simulation = TaskSimulation(task, len(ROWS), threads=0, randomization=randomization)
    simulation.reset(ROWS, [3, 4, 5])
    return simulation


def test_every_camera_shows_the_scene(task: MujocoTask, cameras: InProcessCameras) -> None:
    """All cameras, the one on the hand included, give different, non-empty pictures of each environment."""
    simulation = _simulation(task)
    for camera in ("agentview", "frontview", "sideview", "topview", "robot_eye_in_hand"):
        pictures = cameras.draw(simulation, ROWS, camera, SIZE)
        assert pictures.shape == (3, SIZE, SIZE, 3)
        assert pictures.std() > 5
        assert (pictures[0] != pictures[1]).any()


def test_depth_and_segmentation_agree_with_the_scene(task: MujocoTask, cameras: InProcessCameras) -> None:
    """Seen from above, the table's pixels lie at the camera's height, the cube's two half edges closer."""
    simulation = _simulation(task)
    depth = cameras.draw(simulation, ROWS, "topview", 128, "depth")
    geoms = cameras.draw(simulation, ROWS, "topview", 128, "segmentation")
    names = type(task.names)(task.visual_model)
    assert np.median(depth[geoms == names.geom("table")]) == pytest.approx(1.1, abs=2e-3)
    cube = geoms == names.geom("cube")
    assert cube.any()
    assert np.median(depth[cube]) == pytest.approx(1.1 - 0.04, abs=3e-3)


def test_workers_draw_the_same_pictures(task: MujocoTask, cameras: InProcessCameras) -> None:
    """Two processes give, bit for bit, what this process gives, in the order of the rows."""
    varied = Randomization(light=0.5, colour=0.2, camera_position=0.05)
    simulation = _simulation(task, varied)
    with WorkerCameras(TaskFactory(build=make_task), workers=2) as workers:
        theirs = workers.draw(simulation, ROWS, "agentview", SIZE)
    np.testing.assert_array_equal(theirs, cameras.draw(simulation, ROWS, "agentview", SIZE))


def test_a_worker_that_fails_says_why(task: MujocoTask) -> None:
    """An unknown camera comes back as one line and ends the workers."""
    workers = WorkerCameras(TaskFactory(build=make_task), workers=1)
    with pytest.raises(RenderingError, match="drawing in a worker failed"):
        workers.draw(_simulation(task), ROWS, "nowhere", SIZE)


@pytest.mark.parametrize(
    "randomization",
    [
        Randomization(light=0.6),
        Randomization(colour=0.3),
        Randomization(texture=1.0),
        Randomization(camera_position=0.1),
        Randomization(camera_angle=0.1),
    ],
)
def test_looks_vary_by_seed(
    task: MujocoTask, cameras: InProcessCameras, randomization: Randomization
) -> None:
    """Each option changes the picture of the same physical state, the same way whenever the seed is the same."""
    plain, varied = _simulation(task), _simulation(task, randomization)
    np.testing.assert_array_equal(plain.physics.qpos, varied.physics.qpos)
    first = cameras.draw(varied, ROWS, "agentview", SIZE)
    again = cameras.draw(_simulation(task, randomization), ROWS, "agentview", SIZE)
    np.testing.assert_array_equal(first, again)
    for row in ROWS:
        assert (first[row] != cameras.draw(plain, ROWS, "agentview", SIZE)[row]).any()
