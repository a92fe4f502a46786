"""Assets from URDF and MJCF: order, inertia, options, and what is refused."""

import numpy as np
import pytest

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import UNLIMITED, AssetOptions, DofDriveMode
from robot_sim.isaac.transforms import Quat, Transform, Vec3


def _options(**values) -> AssetOptions:
    options = AssetOptions()
    options.__dict__.update(values)
    return options


def test_urdf_branches_are_ordered_by_joint_name(gym, files):
    """As in Isaac Gym, and unlike the file: FrankaCabinet finds its drawer only so."""
    arm = gym.load_asset(None, str(files), "arm.urdf", _options(fix_base_link=True))
    assert gym.get_asset_dof_names(arm) == ["a_joint", "z_joint"]
    assert gym.get_asset_rigid_body_names(arm) == ["base", "a_link", "z_link", "tip"]
    assert gym.get_asset_joint_names(arm) == ["a_joint", "z_joint", "tip_joint"]


def test_links_without_inertia_get_that_of_their_shapes(gym, files):
    """A mass alone is spread over the shape; nothing at all means density times volume."""
    model = gym.load_asset(None, str(files), "arm.urdf", _options(fix_base_link=True, density=500.0)).model
    link = model.body("z_link")
    assert link.mass[0] == pytest.approx(1.5)
    np.testing.assert_allclose(link.ipos, [0, 0, 0.2], atol=1e-9)
    across, along = 1.5 * (3 * 0.03**2 + 0.4**2) / 12, 1.5 * 0.03**2 / 2
    np.testing.assert_allclose(sorted(link.inertia), [along, across, across], rtol=1e-6)
    assert model.body("a_link").mass[0] == pytest.approx(500 * 4 / 3 * np.pi * 0.05**3, rel=1e-6)


def test_collapsed_links_keep_mass_and_centre(gym, files):
    """collapse_fixed_joints removes a body and nothing of its inertia."""
    apart = gym.load_asset(None, str(files), "arm.urdf", _options(fix_base_link=True)).model
    asset = gym.load_asset(
        None, str(files), "arm.urdf", _options(fix_base_link=True, collapse_fixed_joints=True)
    )
    assert gym.get_asset_rigid_body_names(asset) == ["base", "a_link", "z_link"]
    link = asset.model.body("z_link")
    assert link.mass[0] == pytest.approx(1.6)
    np.testing.assert_allclose(link.ipos, [0, 0, (1.5 * 0.2 + 0.1 * 0.4) / 1.6], atol=1e-9)
    np.testing.assert_allclose(asset.model.body_subtreemass[1], apart.body_subtreemass[1])


def test_dof_properties_come_from_the_file(gym, files):
    """Limits, effort and velocity of a URDF; passive damping, gear and drive mode of an MJCF."""
    arm = gym.get_asset_dof_properties(gym.load_asset(None, str(files), "arm.urdf"))
    assert arm["upper"].tolist() == pytest.approx([0.1, 2.0])
    assert arm["effort"].tolist() == [50.0, 20.0]
    robot = gym.load_asset(None, str(files), "robot.xml")
    properties = gym.get_asset_dof_properties(robot)
    assert properties["driveMode"].tolist() == [DofDriveMode.DOF_MODE_EFFORT, DofDriveMode.DOF_MODE_NONE]
    assert properties["hasLimits"].tolist() == [True, False]
    assert properties["upper"][1] == np.float32(UNLIMITED)
    assert properties["damping"][0] == pytest.approx(0.3)
    assert [one.motor_effort for one in gym.get_asset_actuator_properties(robot)] == [15.0]


def test_a_first_body_with_joints_gets_a_fixed_root(gym, tmp_path):
    """An MJCF whose first body slides on a rail stands on a root that an actor's pose places."""
    (tmp_path / "cart.xml").write_text(
        '<mujoco><worldbody><body name="cart"><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1"/></body>'
        "</worldbody></mujoco>",
        encoding="utf-8",
    )
    asset = gym.load_asset(None, str(tmp_path), "cart.xml")
    assert asset.fixed
    assert gym.get_asset_rigid_body_names(asset) == ["base", "cart"]
    assert gym.get_asset_dof_names(asset) == ["x"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.urdf", "<robot><link", "well-formed"),
        ("b.urdf", "<sdf/>", "<robot>"),
        ("c.urdf", '<robot><link name="a"/><link name="b"/></robot>', "one root"),
        (
            "d.urdf",
            '<robot><link name="a"/><link name="b"/><joint name="j" type="floating"><parent link="a"/>'
            '<child link="b"/></joint></robot>',
            "floating",
        ),
        (
            "e.urdf",
            '<robot><link name="a"><collision><geometry><mesh filename="package://x/y.dae"/></geometry></collision>'
            "</link></robot>",
            "y.dae",
        ),
        (
            "number.urdf",
            '<robot><link name="a"><inertial><mass value="1kg"/></inertial></link></robot>',
            "1kg.*repair",
        ),
        ("f.xml", "<mujoco><worldbody><body/><body/></worldbody></mujoco>", "2 bodies"),
        ("g.xml", "<mujoco><worldbody><geom size='x'/></worldbody></mujoco>", "no valid MJCF"),
        ("h.usd", "", "URDF"),
    ],
)
def test_what_cannot_be_loaded_is_named(gym, tmp_path, name, text, expected):
    """A broken or foreign file raises one line that says what is wrong with it."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(IsaacError, match=r"(?i)" + expected) as error:
        gym.load_asset(None, str(tmp_path), name)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(gym, tmp_path):
    """The message holds the path that was looked at."""
    with pytest.raises(IsaacError, match=r"nothing\.urdf"):
        gym.load_asset(None, str(tmp_path), "nothing.urdf")


def test_transforms_compose_like_matrices():
    """Products and inverses of poses agree with their matrices, Euler angles with their quaternion."""
    a = Transform(Vec3(1, 2, 3), Quat.from_euler_zyx(0.3, -0.4, 1.2))
    b = Transform(Vec3(-1, 0.5, 2), Quat.from_axis_angle(Vec3(1, 1, 0), 0.7))
    point = Vec3(0.1, 0.2, 0.3)
    both = (a * b).transform_point(point)
    np.testing.assert_allclose(tuple(both), tuple(a.transform_point(b.transform_point(point))), atol=1e-12)
    np.testing.assert_allclose(tuple((a.inverse() * a).p), (0, 0, 0), atol=1e-12)
    np.testing.assert_allclose(a.r.to_euler_zyx(), (0.3, -0.4, 1.2), atol=1e-12)


def test_poses_are_known_before_the_simulation_is(gym, files, make_world):
    """get_rigid_transform answers while a scene is described, and the same as afterwards where joints start at 0."""
    world = make_world()
    env = world.envs[1]
    after = gym.get_rigid_transform(env, 4)  # a_link, whose joint starts at 0
    sim = gym.create_sim()
    arm = gym.load_asset(sim, str(files), "arm.urdf", _options(fix_base_link=True))
    early = gym.create_env(sim, Vec3(), Vec3(), 1)
    gym.create_actor(early, arm, Transform(Vec3(2, 0.1, 0.5)), "arm", 0, 0)
    np.testing.assert_allclose(tuple(gym.get_rigid_transform(early, 1).p), tuple(after.p), atol=1e-9)


@pytest.mark.parametrize(
    ("filters", "touch"), [((0, 0), True), ((1, 1), False), ((1, 2), True), ((3, 2), False)]
)
def test_filters_decide_what_collides(gym, filters, touch):
    """Two boxes in one place push each other apart unless their filters share a bit."""
    from robot_sim.isaac.parameters import SimParams

    params = SimParams()
    params.gravity = Vec3()
    sim = gym.create_sim(0, -1, 0, params)
    box = gym.create_box(sim, 0.1, 0.1, 0.1)
    env = gym.create_env(sim, Vec3(), Vec3(), 1)
    for number, one in enumerate(filters):
        gym.create_actor(env, box, Transform(Vec3(0.08 * number, 0, 0)), f"box{number}", 0, one)
    gym.prepare_sim(sim)
    assert bool(len(sim.physics.contacts()[0][0])) == touch


def test_environments_with_other_properties_get_models_of_their_own(gym, make_world):
    """A mass changed in one environment leaves the others on the shared model."""
    world = make_world()
    shared = world.sim.physics.models[0]
    properties = gym.get_actor_rigid_body_properties(world.envs[1], 2)
    properties[0].mass *= 2
    gym.set_actor_rigid_body_properties(world.envs[1], 2, properties)
    models = world.sim.physics.models
    assert models[0] is shared
    assert models[2] is shared
    assert models[1] is not shared
    assert models[1].body("2/box").mass[0] == pytest.approx(2 * shared.body("2/box").mass[0])


def test_environments_must_be_alike(gym, files):
    """Other assets in another environment are refused when the simulation is prepared."""
    sim = gym.create_sim()
    for size in (0.1, 0.2):
        env = gym.create_env(sim, Vec3(), Vec3(), 1)
        gym.create_actor(env, gym.create_box(sim, size, size, size), Transform(), "box", 0, 0)
    with pytest.raises(IsaacError, match="same assets"):
        gym.prepare_sim(sim)
