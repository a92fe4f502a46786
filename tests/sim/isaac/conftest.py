"""A small world for Isaac Gym's interface: floating robot, fixed arm, box and ground, in three environments."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from robot_sim.isaac.gym import Gym
from robot_sim.isaac.gym_actors import EnvHandle
from robot_sim.isaac.parameters import UNLIMITED, AssetOptions, DofDriveMode, PlaneParams, SimParams, SimType
from robot_sim.isaac.simulation import Simulation
from robot_sim.isaac.transforms import Quat, Transform, Vec3

ROBOT = """<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <light pos="0 0 3"/><geom name="floor" type="plane" size="1 1 1"/>
    <body name="torso" pos="0 0 5">
      <freejoint/><geom type="box" size="0.2 0.1 0.05" mass="2"/>
      <body name="leg" pos="0.2 0 0"><joint name="hip" axis="0 1 0" range="-1 1" limited="true" damping="0.3"/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.04" mass="0.5"/>
        <body name="foot" pos="0.3 0 0"><joint name="ankle" axis="0 0 1"/>
          <geom type="sphere" size="0.06" mass="0.2"/></body></body></body>
  </worldbody>
  <actuator><motor joint="hip" gear="15"/></actuator>
</mujoco>"""

# The joint to `a_link` comes second in the file and first in Isaac Gym's order; two links lack their inertia.
ARM = """<robot name="arm">
  <link name="base"><collision><geometry><box size="0.2 0.2 0.2"/></geometry></collision></link>
  <link name="z_link"><inertial><origin xyz="0 0 0.2"/><mass value="1.5"/></inertial>
    <collision><origin xyz="0 0 0.2"/><geometry><cylinder radius="0.03" length="0.4"/></geometry></collision></link>
  <link name="tip"><inertial><mass value="0.1"/><inertia ixx="1e-4" iyy="1e-4" izz="1e-4"/></inertial></link>
  <link name="a_link"><collision><geometry><sphere radius="0.05"/></geometry></collision></link>
  <joint name="z_joint" type="revolute"><parent link="base"/><child link="z_link"/><origin xyz="0 0 0.15"/>
    <axis xyz="0 1 0"/><limit lower="0.1" upper="2" effort="20" velocity="3"/></joint>
  <joint name="tip_joint" type="fixed"><parent link="z_link"/><child link="tip"/><origin xyz="0 0 0.4"/></joint>
  <joint name="a_joint" type="prismatic"><parent link="base"/><child link="a_link"/><origin xyz="0.3 0 0"/>
    <axis xyz="1 0 0"/><limit lower="-0.1" upper="0.1" effort="50" velocity="1"/></joint>
</robot>"""


@dataclass
class World:
    """A prepared simulation."""

    gym: Gym
    sim: Simulation
    envs: list[EnvHandle]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the robot and the arm."""
    (tmp_path / "robot.xml").write_text(ROBOT, encoding="utf-8")
    (tmp_path / "arm.urdf").write_text(ARM, encoding="utf-8")
    return tmp_path


@pytest.fixture
def gym() -> Gym:
    """A gym object of the test's own."""
    return Gym()


@pytest.fixture
def make_world(files: Path, gym: Gym) -> Callable[..., World]:
    """Return a function that builds three environments of robot, arm and box."""

    def build(
        arm_mode: DofDriveMode = DofDriveMode.DOF_MODE_POS,
        gains: tuple[float, float] = (400.0, 40.0),
        limited: bool = True,
    ) -> World:
        params = SimParams()
        params.dt, params.substeps, params.gravity = 1 / 60, 2, Vec3(0, 0, -9.81)
        sim = gym.create_sim(0, -1, SimType.SIM_PHYSX, params)
        plane = PlaneParams()
        plane.normal = Vec3(0, 0, 1)
        gym.add_ground(sim, plane)
        robot = gym.load_asset(sim, str(files), "robot.xml")
        fixed = AssetOptions()
        fixed.fix_base_link = True
        arm = gym.load_asset(sim, str(files), "arm.urdf", fixed)
        box = gym.create_box(sim, 0.1, 0.1, 0.1)
        envs = []
        for k in range(3):
            env = gym.create_env(sim, Vec3(-1, -1, 0), Vec3(1, 1, 1), 2)
            turn = Quat.from_axis_angle(Vec3(0, 0, 1), 0.5)
            gym.create_actor(env, robot, Transform(Vec3(0, 0, 1 + 0.1 * k), turn), "robot", k, 1)
            handle = gym.create_actor(env, arm, Transform(Vec3(2, 0.1 * k, 0.5)), "arm", k, 0)
            properties = gym.get_actor_dof_properties(env, handle)
            properties["driveMode"], properties["stiffness"], properties["damping"] = arm_mode, *gains
            if not limited:
                properties["effort"] = UNLIMITED
            gym.set_actor_dof_properties(env, handle, properties)
            gym.create_actor(env, box, Transform(Vec3(-2, 0, 0.05)), "box", k, 0)
            envs.append(env)
        gym.prepare_sim(sim)
        return World(gym, sim, envs)

    return build


@pytest.fixture
def indices() -> Callable[..., torch.Tensor]:
    """Return a function that makes actor indices."""
    return lambda *numbers: torch.tensor(numbers, dtype=torch.int32)
