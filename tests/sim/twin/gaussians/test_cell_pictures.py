"""Pictures of the example cell, with the arm in the way: read as poses, and as forces."""

from dataclasses import replace

import numpy as np
import pytest

from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.twin.cell import load_cell
from robot_sim.twin.correction import TickContext, build_correction, correction_names
from robot_sim.twin.gaussians.camera import looking_at
from robot_sim.twin.gaussians.image_correction import ImageForceCorrection
from robot_sim.twin.gaussians.image_poses import ImageConfig, ImagePoses
from robot_sim.twin.gaussians.model_view import CellRenderer
from robot_sim.twin.gaussians.sampling import body_from_model
from robot_sim.twin.observed import ObservationError, ObservedJoints, ObservedState
from robot_sim.twin.scene import cell_task
from robot_sim.twin.twin import Twin

EYES = {"left": (0.3, 0.65, 0.6), "right": (0.3, -0.65, 0.6)}


@pytest.fixture(scope="module")
def cell():
    """The example cell with two small cameras."""
    cameras = {n: looking_at(eye, (0, 0, 0), fov=34, width=96, height=72) for n, eye in EYES.items()}
    return replace(load_cell("tabletop_push_t"), cameras=cameras)


@pytest.fixture(scope="module")
def bodies(cell):
    """The block's Gaussians."""
    return {"block": body_from_model(cell_task(cell).visual_model, "block", spacing=0.014)}


@pytest.fixture
def twin(cell):
    """A twin at the start of an episode."""
    twin = Twin(cell)
    twin.world.start(3)
    return twin


def pictures_of(cell, world, shift=(0.0, 0.0), darker=1.0):
    """A message with pictures of the cell as the world has it, the block moved by some metres, and its joints."""
    model = cell_task(cell).visual_model
    data = mujoco.MjData(model)
    data.qpos[:] = world.data.qpos
    start = int(model.jnt_qposadr[model.joint("block_joint").id])
    data.qpos[start : start + 2] += shift
    mujoco.mj_forward(model, data)
    renderer = CellRenderer(model, cell.cameras)
    images = {n: np.round(renderer.picture(data, n) * darker).astype(np.uint8) for n in cell.cameras}
    renderer.close()
    q, v = world.joints
    return ObservedState(stamp_ns=0, joints=ObservedJoints(positions=q, velocities=v), images=images)


def test_pictures_become_poses(cell, bodies, twin):
    """A darker picture of a block 9 mm away gives its pose to 2 mm, with a covariance; the pictures are used up."""
    reader = ImagePoses(cell, bodies)
    try:
        (read,) = reader.read([pictures_of(cell, twin.world, (0.007, -0.005), darker=0.8)], twin)
    finally:
        reader.close()
    pose = read.objects["block"]
    assert np.linalg.norm(pose.position - twin.world.pose("block")[0] - [0.007, -0.005, 0]) < 0.002
    assert 0.0004 < np.sqrt(pose.covariance[0, 0]) < 0.01
    assert read.images == {}
    assert read.joints is not None


def test_a_block_that_is_gone_gives_no_pose(cell, bodies, twin):
    """With the block off the table there is no pose, and the failure is counted."""
    reader = ImagePoses(cell, bodies)
    try:
        (read,) = reader.read([pictures_of(cell, twin.world, (5.0, 0.0))], twin)
    finally:
        reader.close()
    assert "block" not in read.objects
    assert (reader.fits["block"], reader.failures["block"]) == (None, 1)


def test_gaussian_forces_pull_towards_the_picture(cell, twin):
    """The force points to where the block is seen, is clipped, and ends when no picture comes."""
    assert "images" in correction_names()
    values = {"type": "images", "spacing": 0.014, "hold": 0.1, "max_acceleration": 2.0, "stiffness": 40.0}
    correction = build_correction(values)
    assert isinstance(correction, ImageForceCorrection)
    message = pictures_of(cell, twin.world, (0.0, 0.012))
    try:
        for now_ns, observed in ((0, [message]), (90_000_000, []), (110_000_000, [])):
            context = TickContext(
                now_ns=now_ns, period=1 / 60, observed=observed, goals={}, fresh=frozenset()
            )
            correction.begin(twin.world, context)
            wrenches = correction.wrenches(twin.world, 0)
            if now_ns < 100_000_000:
                force = wrenches["block"].force
                assert force[1] > 3 * abs(force[0])
                assert force[2] == 0
                assert np.linalg.norm(force) <= 2.0 * twin.world.mass("block") + 1e-9
            else:
                assert wrenches == {}
    finally:
        correction.close()


def test_bad_pictures_and_configurations_are_refused(cell, bodies, twin):
    """Unknown objects and cameras, cells without cameras, and pictures of another size are told in one line."""
    with pytest.raises(ConfigError, match="did you mean 'block'"):
        ImagePoses(cell, {"blok": bodies["block"]})
    with pytest.raises(ConfigError, match="no"):
        ImagePoses(replace(cell, cameras={}), bodies)
    with pytest.raises(ConfigError, match="reduce 0"):
        ImageConfig(reduce=0)
    with pytest.raises(ConfigError, match="empty pictures: none of camera left, right"):
        ImagePoses(cell, bodies, empty={})
    reader = ImagePoses(cell, bodies)
    try:
        for images, message in (
            ({"left": np.zeros((10, 10, 3), np.uint8)}, "expected"),
            ({"lift": np.zeros((72, 96, 3), np.uint8)}, "did you mean 'left'"),
        ):
            with pytest.raises(ObservationError, match=message):
                reader.read([ObservedState(stamp_ns=0, images=images)], twin)
    finally:
        reader.close()
