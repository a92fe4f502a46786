"""Build an asset from an MJCF file: its first body tree, without floor, lights and cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.isaac.asset import Asset
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import (
    DOF_PROPERTIES,
    UNLIMITED,
    ActuatorProperties,
    AssetOptions,
    DofDriveMode,
)

#: Name of the body that is put under a first body with joints.
_ROOT_NAME = "base"


def load_mjcf(path: Path, options: AssetOptions) -> Asset:
    """Return the asset of an MJCF file.

    The file's actuators decide the drive modes (motor: effort, position, velocity), and their gears are the
    ``motor_effort``; the simulation then drives the joints itself. Passive stiffness and damping of joints are
    kept.

    Raises:
        IsaacError: The file is not valid, or has several bodies in its world.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise IsaacError(f"{path} is no valid MJCF: {' '.join(str(error).split())}") from error
    bodies = _children(spec.worldbody)
    if len(bodies) != 1:
        raise IsaacError(
            f"{path} has {len(bodies)} bodies in its world; an asset is one tree: put each into a file of its own"
        )
    root, actuators = bodies[0], _actuators(spec)
    _clear_world(spec)
    free = _remove_free_joint(spec, root)
    if not free and list(root.joints):
        spec = _wrapped(spec, root)
        root = spec.worldbody.first_body()
    for joint in spec.joints:
        if joint.type not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
            raise IsaacError(f"{path}: joint '{joint.name}' is neither hinge nor slide; split it into hinges")
    root.pos, root.quat = [0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]  # the actor's pose is the root's
    _name_everything(spec)
    joints = _joints(root)
    asset = Asset(
        name=path.name,
        spec=spec,
        fixed=options.fix_base_link or not free,
        options=options,
        dof_names=[joint.name for joint in joints],
        dof_properties=np.zeros(len(joints), DOF_PROPERTIES),
        joint_names=[_joint_name(body) for body in spec.bodies if body.name not in ("world", root.name)],
        actuators=[properties for properties, _ in actuators],
    )
    _set_properties(asset, actuators)
    if options.disable_gravity:
        for body in spec.bodies:
            body.gravcomp = 1.0
    return asset


def _children(body: Any) -> list[Any]:
    found, child = [], body.first_body()
    while child is not None:
        found.append(child)
        child = body.next_body(child)
    return found


def _actuators(spec: Any) -> list[tuple[ActuatorProperties, DofDriveMode]]:
    """Return the file's actuators and the drive modes they mean, and remove them."""
    found = []
    for actuator in list(spec.actuators):
        gear, control = float(actuator.gear[0]), actuator.ctrlrange
        properties = ActuatorProperties(
            name=actuator.name,
            joint_name=actuator.target,
            motor_effort=gear,
            type=0,
            lower_control_limit=float(control[0]),
            upper_control_limit=float(control[1]),
            kp=float(actuator.gainprm[0]),
            kv=float(-actuator.biasprm[2]),
            max_effort=float(actuator.forcerange[1]) or UNLIMITED,
        )
        mode = DofDriveMode.DOF_MODE_EFFORT
        if actuator.biasprm[1] != 0.0:
            mode = DofDriveMode.DOF_MODE_POS
        elif actuator.biasprm[2] != 0.0:
            mode = DofDriveMode.DOF_MODE_VEL
        found.append((properties, mode))
        spec.delete(actuator)
    return found


def _clear_world(spec: Any) -> None:
    for group in (spec.sensors, spec.keys):
        for element in list(group):
            spec.delete(element)
    for group in (spec.worldbody.geoms, spec.worldbody.lights, spec.worldbody.cameras, spec.worldbody.sites):
        for element in list(group):
            spec.delete(element)
    for light in list(spec.lights):
        spec.delete(light)


def _remove_free_joint(spec: Any, root: Any) -> bool:
    for joint in list(root.joints):
        if joint.type == mujoco.mjtJoint.mjJNT_FREE:
            spec.delete(joint)
            return True
    return not list(root.joints)


def _wrapped(spec: Any, root: Any) -> Any:
    """Return a spec in which a tree whose first body moves on joints hangs on a root that does not."""
    outer = mujoco.MjSpec()
    outer.worldbody.add_body(name=_ROOT_NAME).add_frame().attach_body(root, "", "")
    outer.compiler.degree = spec.compiler.degree
    return outer


def _name_everything(spec: Any) -> None:
    for geom in spec.geoms:
        geom.material = (
            ""  # nothing is drawn, and IsaacGymEnvs' humanoid names a material that its file lacks
        )
    for kind, elements in (("body", spec.bodies), ("joint", spec.joints)):
        for number, element in enumerate(elements):
            if not element.name:
                element.name = f"{kind}{number}"


def _joints(body: Any) -> list[Any]:
    found = list(body.joints)
    for child in _children(body):
        found += _joints(child)
    return found


def _joint_name(body: Any) -> str:
    joints = list(body.joints)
    return joints[0].name if joints else f"{body.name}_fixed"


def _set_properties(asset: Asset, actuators: list[tuple[ActuatorProperties, DofDriveMode]]) -> None:
    model = asset.model
    modes = {properties.joint_name: (properties, mode) for properties, mode in actuators}
    for index, name in enumerate(asset.dof_names):
        row = asset.dof_properties[index]
        limited = bool(model.jnt_limited[index])
        row["hasLimits"] = limited
        row["lower"], row["upper"] = model.jnt_range[index] if limited else (-UNLIMITED, UNLIMITED)
        row["driveMode"] = asset.options.default_dof_drive_mode
        row["velocity"] = row["effort"] = UNLIMITED
        row["stiffness"], row["damping"] = model.jnt_stiffness[index], model.dof_damping[index]
        row["friction"] = model.dof_frictionloss[index]
        row["armature"] = max(model.dof_armature[index], asset.options.armature)
        if name in modes:
            properties, mode = modes[name]
            row["driveMode"], row["effort"] = mode, properties.max_effort
            if mode != DofDriveMode.DOF_MODE_EFFORT:
                row["stiffness"], row["damping"] = properties.kp, properties.kv
