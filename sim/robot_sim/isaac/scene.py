"""One environment as a MuJoCo model: actors placed, joints driven, collisions filtered; and where everything is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.isaac.asset import Asset
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import UNLIMITED, DofDriveMode, PlaneParams, SimParams
from robot_sim.isaac.transforms import Quat, Transform, Vec3

_MAX_COLLISION_CLASSES = 31  # a geom's contype has 32 bits, and int32 a sign


@dataclass
class Actor:
    """One asset in one environment.

    Attributes:
        asset: What it is.
        name: Of the actor.
        pose: Of its root, in the environment's frame.
        group: Only actors of one group collide; -1 collides with all.
        filter: Actors whose filters share a bit do not collide; with 0 an actor collides with itself.
        dof_properties: (ndof,) of dtype `parameters.DOF_PROPERTIES`.
        shapes: Attribute of collision shapes -> (n_shapes,), what differs from the asset.
        bodies: Attribute of rigid bodies -> (n_bodies, ...), what differs from the asset.
    """

    asset: Asset
    name: str
    pose: Transform
    group: int
    filter: int
    dof_properties: np.ndarray
    shapes: dict[str, np.ndarray] = field(default_factory=dict)
    bodies: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Environment:
    """One environment: its number, actors and place in Isaac Gym's grid, which physics does not know."""

    index: int
    origin: Vec3
    actors: list[Actor] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """Where the parts of one environment are in its model.

    Attributes:
        n_actors: Actors in an environment.
        actor_bodies: First rigid body of each actor, and one past the last (n_actors + 1,).
        actor_dofs: First degree of freedom of each actor, and one past the last (n_actors + 1,).
        actor_geoms: Geom ids of each actor's shapes.
        dof_joint, dof_qpos, dof_qvel: Joint, and address in ``qpos`` and ``qvel``, of each degree of freedom (ndof,).
        free_qpos, free_qvel: Addresses of each actor's free joint, -1 for fixed ones (n_actors,).
        mocap: Mocap id of each fixed actor, -1 for floating ones (n_actors,).
        sensor_body: Body id of each force sensor (n_sensors,).
        sensor_pose: Poses of the force sensors in their bodies.
        sensor_world: Whether each sensor reports in the world's frame (n_sensors,).
    """

    n_actors: int
    actor_bodies: np.ndarray
    actor_dofs: np.ndarray
    actor_geoms: list[np.ndarray]
    dof_joint: np.ndarray
    dof_qpos: np.ndarray
    dof_qvel: np.ndarray
    free_qpos: np.ndarray
    free_qvel: np.ndarray
    mocap: np.ndarray
    sensor_body: np.ndarray
    sensor_pose: list[Transform]
    sensor_world: np.ndarray

    @property
    def n_bodies(self) -> int:
        """Rigid bodies in an environment; body i has MuJoCo's id i + 1."""
        return int(self.actor_bodies[-1])

    @property
    def n_dofs(self) -> int:
        """Degrees of freedom in an environment."""
        return int(self.actor_dofs[-1])

    def bodies_of(self, actor: int) -> slice:
        """Return the rigid bodies of an actor."""
        return slice(int(self.actor_bodies[actor]), int(self.actor_bodies[actor + 1]))

    def dofs_of(self, actor: int) -> slice:
        """Return the degrees of freedom of an actor."""
        return slice(int(self.actor_dofs[actor]), int(self.actor_dofs[actor + 1]))


def compile_environment(
    environment: Environment, planes: list[PlaneParams], params: SimParams, timestep: float
) -> tuple[Any, Layout]:
    """Return the compiled model of an environment and its layout.

    Args:
        environment: With at least one actor.
        planes: Ground planes.
        params: Gravity is taken from here.
        timestep: Physics step [s].

    Raises:
        IsaacError: The parts do not make a valid model together.
    """
    spec = mujoco.MjSpec()
    spec.copy_during_attach = True
    spec.compiler.balanceinertia = True
    # Implicit in velocities: PhysX's drives are implicit too, and tasks use gains that only such a step survives.
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.timestep = timestep
    spec.option.gravity = list(params.gravity)
    for number, plane in enumerate(planes):
        _add_plane(spec, plane, number)
    for number, actor in enumerate(environment.actors):
        _add_actor(spec, actor, number)
    try:
        model = spec.compile()
    except ValueError as error:
        raise IsaacError(f"the environment does not compile: {' '.join(str(error).split())}") from error
    layout = _layout(model, environment.actors)
    _filter_collisions(model, environment.actors, layout)
    return model, layout


def _add_plane(spec: Any, plane: PlaneParams, number: int) -> None:
    normal = np.array(tuple(plane.normal.normalize()))
    quaternion = np.zeros(4)
    mujoco.mju_quatZ2Vec(quaternion, normal)
    friction = float(plane.dynamic_friction)
    spec.worldbody.add_geom(
        name=f"ground{number}",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.0, 0.0, 1.0],
        pos=-normal * float(plane.distance),
        quat=quaternion,
        friction=[friction, 0.005, 0.0001],
    )


def _add_actor(spec: Any, actor: Actor, number: int) -> None:
    prefix, asset = f"{number}/", actor.asset
    frame = spec.worldbody.add_frame(pos=list(actor.pose.p), quat=actor.pose.r.normalize().wxyz())
    body = frame.attach_body(asset.root, prefix, "")
    if asset.fixed:
        body.mocap = True  # may be put elsewhere, in every environment, without another model
        _exclude_base_contacts(spec, asset, prefix)
    else:
        joint = body.add_freejoint()
        joint.name = f"{prefix}<free>"
    for name in asset.dof_names:
        actuator = spec.add_actuator(
            name=prefix + name, target=prefix + name, trntype=mujoco.mjtTrn.mjTRN_JOINT
        )
        actuator.gainprm[0] = 1.0
        actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE


def _exclude_base_contacts(spec: Any, asset: Asset, prefix: str) -> None:
    """Exclude what PhysX excludes between linked bodies, and MuJoCo does not when one of them is static."""
    model = asset.model
    weld = model.body_weldid
    has_shape = np.isin(np.arange(model.nbody), model.geom_bodyid)
    static = [b for b in range(1, model.nbody) if weld[b] == 0 and has_shape[b]]
    linked = [
        b
        for b in range(1, model.nbody)
        if weld[b] != 0 and has_shape[b] and weld[model.body_parentid[weld[b]]] == 0
    ]
    for first in static:
        for second in linked:
            spec.add_exclude(
                bodyname1=prefix + model.body(first).name, bodyname2=prefix + model.body(second).name
            )


def _layout(model: Any, actors: list[Actor]) -> Layout:
    n_bodies = [actor.asset.n_bodies for actor in actors]
    n_dofs = [actor.asset.n_dofs for actor in actors]
    actor_bodies = np.concatenate([[0], np.cumsum(n_bodies)]).astype(int)
    names = [f"{k}/{name}" for k, actor in enumerate(actors) for name in actor.asset.body_names]
    if names != [model.body(i).name for i in range(1, model.nbody)]:
        raise AssertionError("MuJoCo orders bodies otherwise than depth first")
    joints = np.array(
        [model.joint(f"{k}/{name}").id for k, actor in enumerate(actors) for name in actor.asset.dof_names],
        dtype=int,
    )
    roots = actor_bodies[:-1] + 1
    floating = np.array([not actor.asset.fixed for actor in actors], dtype=bool)
    first_joint = model.body_jntadr[roots]
    sensors = [
        (actor_bodies[k] + 1 + sensor.body, sensor)
        for k, actor in enumerate(actors)
        for sensor in actor.asset.force_sensors
    ]
    return Layout(
        n_actors=len(actors),
        actor_bodies=actor_bodies,
        actor_dofs=np.concatenate([[0], np.cumsum(n_dofs)]).astype(int),
        actor_geoms=[
            np.flatnonzero((model.geom_bodyid > actor_bodies[k]) & (model.geom_bodyid <= actor_bodies[k + 1]))
            for k in range(len(actors))
        ],
        dof_joint=joints,
        dof_qpos=model.jnt_qposadr[joints].astype(int),
        dof_qvel=model.jnt_dofadr[joints].astype(int),
        free_qpos=np.where(floating, model.jnt_qposadr[first_joint], -1)
        if model.njnt
        else np.full(len(actors), -1),
        free_qvel=np.where(floating, model.jnt_dofadr[first_joint], -1)
        if model.njnt
        else np.full(len(actors), -1),
        mocap=model.body_mocapid[roots].astype(int),
        sensor_body=np.array([body for body, _ in sensors], dtype=int),
        sensor_pose=[sensor.pose for _, sensor in sensors],
        sensor_world=np.array([sensor.properties.use_world_frame for _, sensor in sensors], dtype=bool),
    )


def _filter_collisions(model: Any, actors: list[Actor], layout: Layout) -> None:
    """Turn Isaac Gym's groups and filters into MuJoCo's contype and conaffinity.

    Every combination of group and filter gets a bit of its own, and an affinity to the bits it may collide with.
    Shapes that the file says collide with nothing stay so.
    """
    classes = [(-1, 0)]  # the ground
    of_geom = np.zeros(model.ngeom, dtype=int)
    for actor, geoms in zip(actors, layout.actor_geoms, strict=True):
        filters = actor.shapes.get("filter", actor.asset.shape_defaults.get("filter"))
        for k, geom in enumerate(geoms):
            key = (actor.group, int(filters[k]) if filters is not None else actor.filter)
            if key not in classes:
                classes.append(key)
            of_geom[geom] = classes.index(key)
    if len(classes) > _MAX_COLLISION_CLASSES:
        raise IsaacError(
            f"{len(classes)} different collision groups and filters in one environment; at most "
            f"{_MAX_COLLISION_CLASSES} fit MuJoCo's masks"
        )
    affinity = [sum(1 << j for j, other in enumerate(classes) if _collide(one, other)) for one in classes]
    silent = (model.geom_contype == 0) & (model.geom_conaffinity == 0)
    model.geom_contype[:] = np.where(silent, 0, [1 << c for c in of_geom])
    model.geom_conaffinity[:] = np.where(silent, 0, [affinity[c] for c in of_geom])


def _collide(one: tuple[int, int], other: tuple[int, int]) -> bool:
    same_group = one[0] == other[0] or -1 in (one[0], other[0])
    return same_group and not one[1] & other[1]


def apply_properties(model: Any, layout: Layout, environment: Environment, timestep: float) -> None:
    """Write an environment's properties of joints, bodies and shapes into its model."""
    for number, actor in enumerate(environment.actors):
        dofs = layout.dofs_of(number)
        for actuator, row in zip(range(dofs.start, dofs.stop), actor.dof_properties, strict=True):
            _apply_dof(model, layout, actuator, row, timestep)
        geoms = layout.actor_geoms[number]
        friction = actor.shapes.get("friction", actor.asset.shape_defaults.get("friction"))
        if friction is not None:
            model.geom_friction[geoms, 0] = friction
        _apply_bodies(model, layout.bodies_of(number), actor)


def _apply_bodies(model: Any, bodies: slice, actor: Actor) -> None:
    ids = np.arange(bodies.start, bodies.stop) + 1
    mass = actor.bodies.get("mass")
    if mass is not None:
        scale = np.where(model.body_mass[ids] > 0, mass / np.maximum(model.body_mass[ids], 1e-12), 0.0)
        model.body_mass[ids] = mass
        model.body_inertia[ids] *= scale[:, None]
    if "com" in actor.bodies:
        model.body_ipos[ids] = actor.bodies["com"]
    if mass is not None or "com" in actor.bodies:
        mujoco.mj_setConst(model, mujoco.MjData(model))


def _apply_dof(model: Any, layout: Layout, index: int, row: np.ndarray, timestep: float) -> None:
    """Write one joint's properties; its actuator's force is ``ctrl - kp q - kd q'``.

    The damping of a position drive contains what makes its spring implicit, kp (q + h q'), as PhysX's is: MuJoCo's
    implicitfast integrator solves for velocities, and this turns q at the end of the step into one.
    """
    joint, dof = layout.dof_joint[index], layout.dof_qvel[index]
    mode = int(row["driveMode"])
    stiffness, damping = float(row["stiffness"]), float(row["damping"])
    passive = mode in (DofDriveMode.DOF_MODE_NONE, DofDriveMode.DOF_MODE_EFFORT)
    model.jnt_stiffness[joint] = stiffness if passive else 0.0
    model.dof_damping[dof] = damping if passive else 0.0
    model.dof_armature[dof] = row["armature"]
    model.dof_frictionloss[dof] = row["friction"]
    model.jnt_limited[joint] = bool(row["hasLimits"])
    if row["hasLimits"]:
        model.jnt_range[joint] = row["lower"], row["upper"]
    spring = stiffness if mode == DofDriveMode.DOF_MODE_POS else 0.0
    damper = 0.0 if passive else damping + spring * timestep
    model.actuator_biasprm[index, :3] = 0.0, -spring, -damper
    limited = not passive and 0.0 < row["effort"] < UNLIMITED
    model.actuator_forcelimited[index] = limited
    model.actuator_forcerange[index] = (-row["effort"], row["effort"]) if limited else (0.0, 0.0)


def pose_arrays(pose: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Return position (3,) and quaternion (4,) in MuJoCo's order."""
    rotation: Quat = pose.r.normalize()
    return np.array(tuple(pose.p)), np.array(rotation.wxyz())
