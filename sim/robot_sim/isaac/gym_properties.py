"""The calls of Isaac Gym's ``gym`` about properties of actors."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.gym_actors import EnvHandle
from robot_sim.isaac.parameters import RigidBodyProperties, RigidShapeProperties
from robot_sim.isaac.shapes import shape_arrays, shape_properties
from robot_sim.isaac.transforms import Vec3


class PropertyCalls:
    """Calls about properties of actors; names and arguments are Isaac Gym's.

    An environment whose properties differ from those of the first gets a model of its own.
    """

    def get_actor_dof_properties(self, env: EnvHandle, actor: int) -> np.ndarray:
        """Return a copy of the properties of an actor's degrees of freedom."""
        return env.actor(actor).dof_properties.copy()

    def set_actor_dof_properties(self, env: EnvHandle, actor: int, properties: np.ndarray) -> bool:
        """Set drive modes, gains, limits, friction and armature of an actor's degrees of freedom."""
        own = env.actor(actor).dof_properties
        if len(properties) != len(own):
            raise IsaacError(
                f"set_actor_dof_properties: {len(properties)} rows; actor '{env.actor(actor).name}' has {len(own)} "
                "degrees of freedom"
            )
        own[:] = properties
        env.sim.update_properties(env.environment)
        return True

    def get_actor_rigid_body_properties(self, env: EnvHandle, actor: int) -> list[RigidBodyProperties]:
        """Return masses and centres of mass of an actor's rigid bodies."""
        one = env.actor(actor)
        model = one.asset.model
        masses: Any = one.bodies.get("mass", model.body_mass[1:])
        centres: Any = one.bodies.get("com", model.body_ipos[1:])
        return [
            RigidBodyProperties(mass=float(m), com=Vec3(*c), flags=0, invMass=1.0 / m if m > 0 else 0.0)
            for m, c in zip(masses, centres, strict=True)
        ]

    def set_actor_rigid_body_properties(
        self, env: EnvHandle, actor: int, properties: list[RigidBodyProperties], recomputeInertia: bool = True
    ) -> bool:
        """Set masses and centres of mass of an actor's rigid bodies; inertia is scaled with the mass."""
        del recomputeInertia
        one = env.actor(actor)
        one.bodies = {
            "mass": np.array([body.mass for body in properties]),
            "com": np.array([tuple(body.com) for body in properties]),
        }
        env.sim.update_properties(env.environment)
        return True

    def get_actor_rigid_shape_properties(self, env: EnvHandle, actor: int) -> list[RigidShapeProperties]:
        """Return the contact properties of an actor's collision shapes."""
        one = env.actor(actor)
        return shape_properties(one.asset, {**one.asset.shape_defaults, **one.shapes}, one.filter)

    def set_actor_rigid_shape_properties(
        self, env: EnvHandle, actor: int, properties: list[RigidShapeProperties]
    ) -> bool:
        """Set friction and, before ``prepare_sim``, filters of an actor's collision shapes."""
        one = env.actor(actor)
        one.shapes = shape_arrays(one.asset, properties)
        env.sim.update_properties(env.environment)
        return True
