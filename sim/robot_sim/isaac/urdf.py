"""Build an asset from a URDF file, the way Isaac Gym does; see `robot_sim.isaac.urdf_file` for why not MuJoCo's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.isaac.asset import Asset
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import DOF_PROPERTIES, UNLIMITED, AssetOptions
from robot_sim.isaac.transforms import Transform
from robot_sim.isaac.urdf_file import Collision, Joint, Link, Urdf, read_urdf

logger = logging.getLogger(__name__)

#: Mass [kg] and radius [m] of a moving link about which the file says nothing, and radius of one with mass alone.
_NOTHING_MASS, _NOTHING_RADIUS = 1e-3, 0.05


@dataclass
class Inertia:
    """Mass [kg], centre of mass [m] and inertia about it [kg m²], in one frame."""

    mass: float
    com: np.ndarray
    tensor: np.ndarray

    def moved(self, pose: Transform) -> Inertia:
        """Return the same in the frame in which `pose` is given."""
        rotation = pose.r.matrix()
        return Inertia(
            self.mass, rotation @ self.com + np.array(tuple(pose.p)), rotation @ self.tensor @ rotation.T
        )


def combine(parts: list[Inertia]) -> Inertia:
    """Return the inertia of several bodies that move as one."""
    mass = sum(part.mass for part in parts)
    if mass <= 0.0:
        return Inertia(0.0, np.zeros(3), np.zeros((3, 3)))
    com = sum((part.mass * part.com for part in parts), np.zeros(3)) / mass
    tensor = np.zeros((3, 3))
    for part in parts:
        offset = part.com - com
        tensor += part.tensor + part.mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
    return Inertia(mass, com, tensor)


def load_urdf(path: Path, asset_root: Path, options: AssetOptions) -> Asset:
    """Return the asset of a URDF file.

    Links without ``<inertial>`` get mass and inertia from their collision shapes and ``options.density``; those with a
    mass alone get the inertia of their shapes at that mass. Visual shapes are left out.

    Raises:
        IsaacError: The file cannot be simulated; the message says why.
    """
    return _Builder(read_urdf(path, asset_root), options, path).asset()


class _Builder:
    def __init__(self, urdf: Urdf, options: AssetOptions, path: Path) -> None:
        self.urdf, self.options, self.path = urdf, options, path
        self.spec = mujoco.MjSpec()
        self.spec.compiler.balanceinertia = True
        self.spec.compiler.degree = False
        self.dofs: list[Joint] = []
        self.joint_names: list[str] = []
        self._meshes: dict[tuple[str, tuple[float, ...]], str] = {}

    def asset(self) -> Asset:
        self._body(self.spec.worldbody, self.urdf.root, None)
        return Asset(
            name=self.path.name,
            spec=self.spec,
            fixed=self.options.fix_base_link,
            options=self.options,
            dof_names=[joint.name for joint in self.dofs],
            dof_properties=self._properties(),
            joint_names=self.joint_names,
        )

    def _body(self, parent: Any, link: str, joint: Joint | None) -> None:
        body = parent.add_body(name=link)
        if self.options.disable_gravity:
            body.gravcomp = 1.0
        if joint is not None:
            body.pos, body.quat = list(joint.pose.p), joint.pose.r.wxyz()
            self.joint_names.append(joint.name)
            if joint.kind != "fixed":
                self._add_joint(body, joint)
        inertias: list[Inertia] = []
        branches: list[tuple[Joint, Transform]] = []
        self._collect(body, link, Transform(), inertias, branches)
        self._set_inertia(body, combine(inertias), moving=joint is None or joint.kind != "fixed")
        for branch, offset in branches:
            branch.pose = offset * branch.pose
            self._body(body, branch.child, branch)

    def _collect(
        self,
        body: Any,
        link: str,
        offset: Transform,
        inertias: list[Inertia],
        branches: list[tuple[Joint, Transform]],
    ) -> None:
        """Add a link's shapes to a body, and those of links that are melted into it."""
        data = self.urdf.links[link]
        for collision in data.collisions:
            self._add_geom(self.spec, body, collision, offset * collision.pose)
        inertias.append(self._inertia(data).moved(offset))
        for joint in self.urdf.children[link]:
            if joint.kind == "fixed" and self.options.collapse_fixed_joints and not joint.keep:
                self._collect(body, joint.child, offset * joint.pose, inertias, branches)
            else:
                branches.append((joint, offset))

    def _add_joint(self, body: Any, joint: Joint) -> None:
        kinds = mujoco.mjtJoint
        added = body.add_joint(
            name=joint.name,
            type=kinds.mjJNT_SLIDE if joint.kind == "prismatic" else kinds.mjJNT_HINGE,
            axis=joint.axis,
        )
        if joint.lower is not None and joint.upper is not None and joint.lower < joint.upper:
            added.limited, added.range = mujoco.mjtLimited.mjLIMITED_TRUE, [joint.lower, joint.upper]
        else:
            added.limited = mujoco.mjtLimited.mjLIMITED_FALSE
        if joint.mimics:
            logger.warning(
                "%s: joint %s moves freely, it does not mimic %s", self.path, joint.name, joint.mimics
            )
        self.dofs.append(joint)

    def _add_geom(self, spec: Any, body: Any, collision: Collision, pose: Transform) -> None:
        kinds, size, mesh = mujoco.mjtGeom, collision.size, {}
        kind = collision.kind
        if kind == "cylinder" and self.options.replace_cylinder_with_capsule:
            kind = "capsule"
        if kind == "mesh" and collision.mesh is not None:
            mesh = {"meshname": self._mesh(spec, collision.mesh, size)}
            mujoco_size = [0.0, 0.0, 0.0]
        elif kind == "box":
            mujoco_size = [value / 2 for value in size]
        else:
            mujoco_size = [size[0], size[1] / 2 if len(size) > 1 else 0.0, 0.0]
        body.add_geom(
            type=getattr(kinds, f"mjGEOM_{kind.upper()}"),
            size=mujoco_size,
            pos=list(pose.p),
            quat=pose.r.wxyz(),
            density=self.options.density,
            **mesh,
        )

    def _mesh(self, spec: Any, file: Path, scale: list[float]) -> str:
        own = spec is self.spec
        key = (str(file), tuple(scale))
        if own and key in self._meshes:
            return self._meshes[key]
        name = f"mesh{len(self._meshes)}" if own else f"probe{len(list(spec.meshes))}"
        # Hulls are what collides, and have a volume where the mesh itself may be open.
        spec.add_mesh(
            name=name, file=str(file), scale=scale, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
        )
        if own:
            self._meshes[key] = name
        return name

    def _inertia(self, link: Link) -> Inertia:
        com = np.array(tuple(link.com_pose.p))
        if link.mass is not None and link.inertia is not None and not self.options.override_inertia:
            rotation = link.com_pose.r.matrix()
            return Inertia(link.mass, com, rotation @ link.inertia @ rotation.T)
        if not link.collisions:
            mass = link.mass or 0.0
            return Inertia(mass, com, 0.4 * mass * _NOTHING_RADIUS**2 * np.eye(3))
        shapes = self._inertia_of_shapes(link)
        if link.mass is None:
            return shapes
        scale = link.mass / max(shapes.mass, 1e-12)
        return Inertia(link.mass, com, shapes.tensor * scale)

    def _inertia_of_shapes(self, link: Link) -> Inertia:
        spec = mujoco.MjSpec()
        body = spec.worldbody.add_body()
        for collision in link.collisions:
            self._add_geom(spec, body, collision, collision.pose)
        try:
            model = spec.compile()
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise IsaacError(
                f"{self.path}: the shapes of link '{link.name}' are rejected: {reason}"
            ) from error
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, model.body_iquat[1])
        rotation = rotation.reshape(3, 3)
        tensor = rotation @ np.diag(model.body_inertia[1]) @ rotation.T
        return Inertia(float(model.body_mass[1]), model.body_ipos[1].copy(), tensor)

    def _set_inertia(self, body: Any, inertia: Inertia, *, moving: bool) -> None:
        if inertia.mass <= 0.0:
            if not moving:
                return
            inertia = Inertia(
                _NOTHING_MASS, np.zeros(3), 0.4 * _NOTHING_MASS * _NOTHING_RADIUS**2 * np.eye(3)
            )
        moments, axes = np.linalg.eigh(inertia.tensor)
        if np.linalg.det(axes) < 0:
            axes[:, 0] = -axes[:, 0]
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, axes.ravel())
        body.explicitinertial = True
        body.mass, body.ipos, body.iquat = inertia.mass, inertia.com, quaternion
        body.inertia = np.maximum(moments, 1e-9)

    def _properties(self) -> np.ndarray:
        properties = np.zeros(len(self.dofs), DOF_PROPERTIES)
        for row, joint in zip(properties, self.dofs, strict=True):
            row["hasLimits"], row["lower"], row["upper"] = False, -UNLIMITED, UNLIMITED
            if joint.lower is not None and joint.upper is not None and joint.lower < joint.upper:
                row["hasLimits"], row["lower"], row["upper"] = True, joint.lower, joint.upper
            row["driveMode"] = self.options.default_dof_drive_mode
            row["velocity"] = joint.velocity or UNLIMITED
            row["effort"] = joint.effort or UNLIMITED
            row["damping"], row["friction"] = joint.damping, joint.friction
            row["armature"] = self.options.armature
        return properties
