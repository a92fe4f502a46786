"""Tensors have Isaac Gym's layout and MuJoCo's numbers; setters touch what they are given and nothing else."""

import numpy as np
import pytest
import torch

from robot_sim.engine import mujoco
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.gym_tensors import GymTensor, unwrap_tensor, wrap_tensor
from robot_sim.isaac.parameters import CoordinateSpace, DofDriveMode

N, ACTORS, BODIES, DOFS = 3, 3, 8, 4  # per environment: torso, leg, foot | base, a_link, z_link, tip | box


def _tumble(world) -> None:
    """Bring every environment into another general state."""
    root = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim))
    dof = wrap_tensor(world.gym.acquire_dof_state_tensor(world.sim))
    random = torch.Generator().manual_seed(0)
    root.view(N, ACTORS, 13)[:, 0, 3:7] = torch.nn.functional.normalize(
        torch.randn(N, 4, generator=random), dim=-1
    )
    root.view(N, ACTORS, 13)[:, 0, 7:] = torch.randn(N, 6, generator=random)
    dof[:] = 0.1 + 0.05 * torch.randn(N * DOFS, 2, generator=random)
    world.gym.set_actor_root_state_tensor(world.sim, unwrap_tensor(root))
    world.gym.set_dof_state_tensor(world.sim, unwrap_tensor(dof))


def _data(world, row: int):
    """Return MuJoCo's own data for an environment's state."""
    model = world.sim.physics.models[row]
    data = mujoco.MjData(model)
    world.sim.physics.write_to(model, data, row)
    mujoco.mj_forward(model, data)
    return model, data


def _velocity(model, data, body: int) -> np.ndarray:
    """Return linear and angular velocity of a body's frame, world axes."""
    angular_first = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, angular_first, 0)
    return np.concatenate([angular_first[3:], angular_first[:3]])


def test_rigid_body_states_are_mujocos(make_world):
    """Position, quaternion xyzw, linear and angular velocity of every body, in the order of actors and trees."""
    world = make_world()
    _tumble(world)
    state = wrap_tensor(world.gym.acquire_rigid_body_state_tensor(world.sim))
    assert state.shape == (N * BODIES, 13)
    for row in range(N):
        model, data = _data(world, row)
        for body in range(1, model.nbody):
            w, x, y, z = data.xquat[body]
            expected = [*data.xpos[body], x, y, z, w, *_velocity(model, data, body)]
            np.testing.assert_allclose(state.view(N, BODIES, 13)[row, body - 1], expected, atol=2e-5)


def test_root_velocities_are_in_the_worlds_frame(make_world):
    """What is set as angular velocity turns the body about that axis of the world, though MuJoCo's joint is local."""
    world = make_world()
    _tumble(world)
    root = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim)).view(N, ACTORS, 13)
    for row in range(N):
        model, data = _data(world, row)
        np.testing.assert_allclose(root[row, 0, 7:], _velocity(model, data, 1), atol=1e-5)
    bodies = wrap_tensor(world.gym.acquire_rigid_body_state_tensor(world.sim)).view(N, BODIES, 13)
    torch.testing.assert_close(root[:, 0], bodies[:, 0], atol=1e-5, rtol=1e-5)


def test_jacobian_of_a_fixed_actor(make_world):
    """A row per moving or fixed link, the root's left out, found by the joint's name; columns are the joints."""
    world = make_world()
    _tumble(world)
    jacobian = wrap_tensor(world.gym.acquire_jacobian_tensor(world.sim, "arm"))
    assert jacobian.shape == (N, 3, 6, 2)
    link = world.gym.get_actor_joint_dict(world.envs[0], 1)["tip_joint"]
    for row in range(N):
        model, data = _data(world, row)
        body = model.body("1/tip").id
        reference = np.zeros((6, model.nv))
        mujoco.mj_jacBody(model, data, reference[:3], reference[3:], body)
        dofs = [model.joint(f"1/{name}").dofadr[0] for name in ("a_joint", "z_joint")]
        np.testing.assert_allclose(jacobian[row, link], reference[:, dofs], atol=1e-6)


def test_jacobian_and_inertia_of_a_floating_actor_use_world_velocities(make_world):
    """Six root columns come first; J v is the body's velocity and v M v / 2 the energy, v from the root's state."""
    world = make_world()
    _tumble(world)
    jacobian = wrap_tensor(world.gym.acquire_jacobian_tensor(world.sim, "robot")).double()
    inertia = wrap_tensor(world.gym.acquire_mass_matrix_tensor(world.sim, "robot")).double()
    assert jacobian.shape == (N, 3, 6, 8)
    assert inertia.shape == (N, 8, 8)
    root = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim)).view(N, ACTORS, 13)
    dof = wrap_tensor(world.gym.acquire_dof_state_tensor(world.sim)).view(N, DOFS, 2)
    for row in range(N):
        model, data = _data(world, row)
        speeds = torch.cat([root[row, 0, 7:], dof[row, :2, 1]]).double()
        for link in range(3):
            np.testing.assert_allclose(
                jacobian[row, link] @ speeds, _velocity(model, data, link + 1), atol=1e-4
            )
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, full, data.qM)
        local = data.qvel[:8]
        np.testing.assert_allclose(
            float(speeds @ inertia[row] @ speeds), local @ full[:8, :8] @ local, rtol=1e-4
        )


def test_contact_forces_carry_the_weight(make_world):
    """A box at rest is pushed up by its weight, and a sensor-less body in the air by nothing."""
    world = make_world()
    force = wrap_tensor(world.gym.acquire_net_contact_force_tensor(world.sim))
    assert force.shape == (N * BODIES, 3)
    for _ in range(30):
        world.gym.simulate(world.sim)
    world.gym.refresh_net_contact_force_tensor(world.sim)
    box = force.view(N, BODIES, 3)[:, -1]
    np.testing.assert_allclose(box[:, 2], 0.1**3 * 1000 * 9.81, rtol=1e-2)
    np.testing.assert_allclose(box[:, :2], 0.0, atol=1e-2)


def test_views_share_memory_and_only_refresh_writes_them(make_world):
    """A view taken once shows a new state after refresh, not after simulate."""
    world = make_world()
    handle = world.gym.acquire_dof_state_tensor(world.sim)
    position = wrap_tensor(handle).view(N, DOFS, 2)[..., 0]
    assert wrap_tensor(world.gym.acquire_dof_state_tensor(world.sim)).data_ptr() == position.data_ptr()
    before = position.clone()
    world.gym.set_dof_position_target_tensor(world.sim, unwrap_tensor(torch.full((N * DOFS,), 0.5)))
    for _ in range(5):
        world.gym.simulate(world.sim)
    assert torch.equal(position, before)
    world.gym.refresh_dof_state_tensor(world.sim)
    assert not torch.equal(position, before)


def test_indexed_setters_take_the_rows_of_their_actors(make_world, indices):
    """Setting one actor's joints or root leaves all others as they were, to the last bit."""
    world = make_world()
    _tumble(world)
    before = world.sim.physics.qpos.copy(), world.sim.physics.qvel.copy()
    dof = torch.full((N * DOFS, 2), 0.05)
    arm = indices(ACTORS + 1)  # the arm of environment 1
    world.gym.set_dof_state_tensor_indexed(world.sim, unwrap_tensor(dof), unwrap_tensor(arm), 1)
    changed = world.sim.physics.qpos != before[0]
    expected = np.zeros_like(changed)
    expected[1, world.sim.layout.dof_qpos[2:]] = True
    assert (changed == expected).all()
    root = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim)).clone()
    root[:, :3] += 1.0
    boxes = indices(2 * ACTORS + 2)
    world.gym.set_actor_root_state_tensor_indexed(world.sim, unwrap_tensor(root), unwrap_tensor(boxes), 1)
    world.gym.refresh_actor_root_state_tensor(world.sim)
    now = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim))
    moved = (now[:, :3] - root[:, :3]).abs().amax(dim=1) < 1e-6
    assert moved.nonzero().flatten().tolist() == [2 * ACTORS + 2]


def test_a_fixed_root_can_be_put_elsewhere(make_world, indices):
    """Setting a fixed actor's root moves all its links, in that environment alone."""
    world = make_world()
    bodies = wrap_tensor(world.gym.acquire_rigid_body_state_tensor(world.sim)).view(N, BODIES, 13)
    before = bodies.clone()
    root = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim)).clone()
    root[:, 0] += 0.25
    world.gym.set_actor_root_state_tensor_indexed(
        world.sim, unwrap_tensor(root), unwrap_tensor(indices(1)), 1
    )
    world.gym.refresh_rigid_body_state_tensor(world.sim)
    shift = (bodies - before)[..., 0]
    torch.testing.assert_close(shift[0, 3:7], torch.full((4,), 0.25))
    assert shift[1:].abs().max() == 0
    assert shift[0, :3].abs().max() == 0


def test_position_drives_are_stable_at_any_gain(make_world):
    """Gains of FrankaCabinet's fingers, at which an explicit spring explodes, reach their target and stay."""
    world = make_world(gains=(1e6, 1e2), limited=False)
    target = torch.zeros(N, DOFS)
    target[:, 2:] = torch.tensor([0.05, 1.0])
    world.gym.set_dof_position_target_tensor(world.sim, unwrap_tensor(target))
    for _ in range(120):
        world.gym.simulate(world.sim)
    dof = wrap_tensor(world.gym.acquire_dof_state_tensor(world.sim)).view(N, DOFS, 2)
    torch.testing.assert_close(dof[:, 2:, 0], target[:, 2:], atol=2e-3, rtol=0)
    assert dof[:, 2:, 1].abs().max() < 1e-2


def test_drive_forces_obey_the_effort_limit(make_world):
    """A drive pulls with its effort at most, however far the target is."""
    world = make_world(gains=(1e6, 1e2))
    world.gym.set_dof_position_target_tensor(world.sim, unwrap_tensor(torch.full((N, DOFS), 1.5)))
    world.gym.simulate(world.sim)
    force = wrap_tensor(world.gym.acquire_dof_force_tensor(world.sim)).view(N, DOFS)
    torch.testing.assert_close(force[:, 3], torch.full((N,), 20.0), atol=1e-3, rtol=0)


def test_efforts_act_in_effort_mode_alone(make_world):
    """An effort accelerates a joint in effort mode and is ignored by one in position mode."""
    efforts = torch.zeros(N, DOFS)
    efforts[:, 2] = 5.0
    forces = {}
    for mode in (DofDriveMode.DOF_MODE_EFFORT, DofDriveMode.DOF_MODE_NONE):
        world = make_world(arm_mode=mode, gains=(0.0, 0.0))
        world.gym.set_dof_actuation_force_tensor(world.sim, unwrap_tensor(efforts))
        forces[mode] = wrap_tensor(world.gym.acquire_dof_force_tensor(world.sim)).view(N, DOFS)[:, 2]
        world.gym.simulate(world.sim)
        world.gym.refresh_dof_force_tensor(world.sim)
    assert (forces[DofDriveMode.DOF_MODE_EFFORT] == 5.0).all()
    assert (forces[DofDriveMode.DOF_MODE_NONE] == 0.0).all()


def test_body_forces_act_once(make_world):
    """A force on a free body changes its velocity by F dt / m in one simulate, and not in the next."""
    world = make_world()
    root = wrap_tensor(world.gym.acquire_actor_root_state_tensor(world.sim)).view(N, ACTORS, 13)
    root[:, 2, 2] = 3.0
    world.gym.set_actor_root_state_tensor(world.sim, unwrap_tensor(root.view(-1, 13)))
    force = torch.zeros(N, BODIES, 3)
    force[1, -1, 0] = 6.0
    world.gym.apply_rigid_body_force_tensors(world.sim, GymTensor(force), None, CoordinateSpace.ENV_SPACE)
    for _ in range(2):
        world.gym.simulate(world.sim)
        world.gym.refresh_actor_root_state_tensor(world.sim)
        torch.testing.assert_close(root[:, 2, 7], torch.tensor([0.0, 6.0 / 60, 0.0]), atol=1e-4, rtol=0)


def test_a_force_sensor_reports_contacts_in_its_frame(gym, files):
    """A sensor turned upside down under a standing box reads minus its weight, and no torque at its centre."""
    from robot_sim.isaac.parameters import PlaneParams, SimParams
    from robot_sim.isaac.transforms import Quat, Transform, Vec3

    params = SimParams()
    params.gravity = Vec3(0, 0, -9.81)
    sim = gym.create_sim(0, -1, 0, params)
    plane = PlaneParams()
    plane.normal = Vec3(0, 0, 1)
    gym.add_ground(sim, plane)
    box = gym.create_box(sim, 0.2, 0.2, 0.2)
    gym.create_asset_force_sensor(
        box, 0, Transform(Vec3(0.1, 0, 0), Quat.from_axis_angle(Vec3(1, 0, 0), np.pi))
    )
    gym.create_actor(gym.create_env(sim, Vec3(), Vec3(), 1), box, Transform(Vec3(0, 0, 0.1)), "box", 0, 0)
    for _ in range(30):
        gym.simulate(sim)
    reading = wrap_tensor(gym.acquire_force_sensor_tensor(sim))
    weight = 0.2**3 * 1000 * 9.81
    np.testing.assert_allclose(reading[0, 2], -weight, rtol=1e-2)
    # The weight pushes at the middle, 10 cm behind the sensor: about its own y axis, which points to -y.
    np.testing.assert_allclose(reading[0, 4], -weight * 0.1, rtol=2e-2)


@pytest.mark.parametrize("bad", ["shape", "nan", "range", "dtype"])
def test_wrong_tensors_are_refused_in_one_line(make_world, indices, bad):
    """Too few values, NaN, an unknown actor and int64 indices each say what is wrong."""
    world = make_world()
    dof = torch.zeros(N * DOFS, 2)
    actors = indices(0)
    if bad == "shape":
        dof = dof[:4]
    elif bad == "nan":
        dof[0] = float("nan")
    elif bad == "range":
        actors = indices(N * ACTORS)
    elif bad == "dtype":
        actors = actors.long()
    with pytest.raises(IsaacError) as error:
        world.gym.set_dof_state_tensor_indexed(world.sim, GymTensor(dof), GymTensor(actors), 1)
    assert "\n" not in str(error.value)


def test_strided_memory_is_refused():
    """Isaac Gym reads rows one after the other, so a column's view would be misread."""
    with pytest.raises(IsaacError, match="contiguous"):
        unwrap_tensor(torch.zeros(4, 4)[:, :2])
