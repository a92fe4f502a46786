"""A block of two boxes over an empty table, from three sides."""

from types import SimpleNamespace

import numpy as np
import pytest

from robot_sim.engine import mujoco
from robot_sim.twin.gaussians.camera import Pinhole, looking_at
from robot_sim.twin.gaussians.model_view import CellRenderer, movable_and_arm, without_bodies
from robot_sim.twin.gaussians.sampling import body_from_model

SCENE = """<mujoco>
  <visual>
    <headlight ambient="0.6 0.6 0.6" diffuse="0.3 0.3 0.3" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="0"/>
  </visual>
  <worldbody>
    <geom name="table" type="box" size="0.3 0.3 0.02" pos="0 0 -0.02" rgba="0.85 0.8 0.7 1"/>
    <geom name="mark" type="box" size="0.02 0.05 0.0005" pos="0.02 0 0" rgba="0.4 0.75 0.4 1"/>
    <body name="block" pos="0.01 -0.02 0.02" quat="0.95 0 0 0.312">
      <freejoint/>
      <geom type="box" size="0.05 0.015 0.02" rgba="0.2 0.3 0.75 1"/>
      <geom type="box" size="0.015 0.03 0.02" pos="0 0.045 0" rgba="0.8 0.25 0.2 1"/>
    </body>
  </worldbody>
</mujoco>"""


@pytest.fixture(scope="session")
def block_scene():
    """Model, cameras, pictures with and without the block, its segmentation and its Gaussians."""
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    cameras = {
        f"camera{i}": looking_at(eye, (0, 0, 0.01), fov=28, width=72, height=64)
        for i, eye in enumerate([(0.45, 0.1, 0.4), (-0.2, 0.45, 0.4), (-0.2, -0.4, 0.45)])
    }
    renderer = CellRenderer(model, cameras)
    block = model.body("block").id
    scene = SimpleNamespace(
        model=model,
        data=data,
        cameras=cameras,
        pinholes={name: Pinhole.from_cell(camera) for name, camera in cameras.items()},
        pictures={name: renderer.picture(data, name) for name in cameras},
        empty={name: without_bodies(model, data, renderer, name, movable_and_arm(model)) for name in cameras},
        masks={name: renderer.bodies(data, name) == block for name in cameras},
        body=body_from_model(model, "block", spacing=0.008),
        position=data.xpos[block].copy(),
        quaternion=data.xquat[block].copy(),
        rotation=data.xmat[block].reshape(3, 3).copy(),
        renderer=renderer,
    )
    yield scene
    renderer.close()


@pytest.fixture
def random():
    """Seeded randomness."""
    return np.random.default_rng(0)
