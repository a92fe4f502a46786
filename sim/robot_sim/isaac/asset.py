"""An asset: one robot or object, read once, placed in every environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_sim.engine import mujoco
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import (
    DOF_PROPERTIES,
    ActuatorProperties,
    AssetOptions,
    DofType,
    ForceSensorProperties,
)
from robot_sim.isaac.transforms import Transform

_BOXED = {"box": "mjGEOM_BOX", "sphere": "mjGEOM_SPHERE", "capsule": "mjGEOM_CAPSULE"}


@dataclass
class ForceSensor:
    """Where a force sensor sits: a body of the asset and a pose in its frame."""

    body: int
    pose: Transform
    properties: ForceSensorProperties


@dataclass
class Asset:
    """A tree of rigid bodies with one root.

    Attributes:
        name: For messages.
        spec: ``mujoco.MjSpec`` whose world holds the root and nothing else; no actuators, and no root joint.
        fixed: Whether the root stays where the actor is put; it floats otherwise.
        options: What it was loaded with.
        dof_names: Names of the degrees of freedom, in their order.
        dof_properties: (ndof,) of dtype `parameters.DOF_PROPERTIES`.
        joint_names: Name of the joint, fixed ones included, that connects body i + 1 to its parent.
        actuators: Actuators of the file.
        force_sensors: Sensors that actors of this asset carry.
        shape_defaults: Shape properties that were set for the asset: attribute -> one value per shape.
    """

    name: str
    spec: Any
    fixed: bool
    options: AssetOptions
    dof_names: list[str]
    dof_properties: np.ndarray
    joint_names: list[str]
    actuators: list[ActuatorProperties] = field(default_factory=list)
    force_sensors: list[ForceSensor] = field(default_factory=list)
    shape_defaults: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def model(self) -> Any:
        """The asset alone, compiled, with its root fixed in the world."""
        try:
            return self.spec.compile()
        except ValueError as error:
            raise IsaacError(
                f"asset '{self.name}' does not compile: {' '.join(str(error).split())}"
            ) from error

    @cached_property
    def body_names(self) -> list[str]:
        """Names of the rigid bodies, root first, depth first."""
        return [self.model.body(i).name for i in range(1, self.model.nbody)]

    @property
    def root(self) -> Any:
        """The root's ``mjsBody``."""
        return self.spec.worldbody.first_body()

    @property
    def n_shapes(self) -> int:
        """Number of collision shapes."""
        return int(self.model.ngeom)

    @property
    def n_bodies(self) -> int:
        """Number of rigid bodies."""
        return int(self.model.nbody) - 1

    @property
    def n_dofs(self) -> int:
        """Number of degrees of freedom, a floating root's not counted."""
        return len(self.dof_names)

    def body_index(self, name: str) -> int:
        """Return the index of a rigid body, -1 if there is none, as Isaac Gym does."""
        return self.body_names.index(name) if name in self.body_names else -1

    def dof_index(self, name: str) -> int:
        """Return the index of a degree of freedom.

        Raises:
            IsaacError: There is none of this name.
        """
        if name not in self.dof_names:
            raise IsaacError(unknown_name(f"degree of freedom of asset '{self.name}'", name, self.dof_names))
        return self.dof_names.index(name)

    def dof_type(self, index: int) -> DofType:
        """Return whether a degree of freedom turns or slides."""
        slides = self.model.jnt_type[index] == mujoco.mjtJoint.mjJNT_SLIDE
        return DofType.DOF_TRANSLATION if slides else DofType.DOF_ROTATION

    @cached_property
    def body_poses(self) -> list[Transform]:
        """Poses of the bodies in the root's frame with every degree of freedom at 0."""
        data = mujoco.MjData(self.model)
        data.qpos[:] = 0.0
        mujoco.mj_kinematics(self.model, data)
        back = Transform.from_arrays(data.xpos[1], data.xquat[1]).inverse()
        return [back * Transform.from_arrays(data.xpos[i], data.xquat[i]) for i in range(1, self.model.nbody)]


def primitive(kind: str, size: list[float], options: AssetOptions) -> Asset:
    """Return an asset of one body, named after its kind like Isaac Gym's.

    Args:
        kind: ``"box"``, ``"sphere"`` or ``"capsule"``.
        size: MuJoCo's sizes: half extents, radius, or radius and half length [m].
        options: Density and whether it is fixed.
    """
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name=kind)
    body.add_geom(
        type=getattr(mujoco.mjtGeom, _BOXED[kind]),
        size=[*size, 0.0, 0.0][:3],
        density=options.density,
        quat=[0.5**0.5, 0.0, 0.5**0.5, 0.0]
        if kind == "capsule"
        else [1.0, 0.0, 0.0, 0.0],  # Isaac's lie along x
    )
    if options.disable_gravity:
        body.gravcomp = 1.0
    return Asset(kind, spec, options.fix_base_link, options, [], np.zeros(0, DOF_PROPERTIES), [])
