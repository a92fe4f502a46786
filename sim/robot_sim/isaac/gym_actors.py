"""The calls of Isaac Gym's ``gym`` about environments and actors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from robot_sim.isaac.asset import Asset
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import IndexDomain
from robot_sim.isaac.scene import Actor, Environment
from robot_sim.isaac.simulation import Simulation
from robot_sim.isaac.transforms import Transform, Vec3


@dataclass(frozen=True)
class EnvHandle:
    """What ``create_env`` returns: an environment and the simulation it is in."""

    sim: Simulation
    environment: Environment

    def actor(self, handle: int) -> Actor:
        """Return an actor.

        Raises:
            IsaacError: There is none with this handle.
        """
        actors = self.environment.actors
        if not 0 <= handle < len(actors):
            raise IsaacError(
                f"actor handle {handle}; environment {self.environment.index} has the actors "
                f"{[actor.name for actor in actors]}, numbered from 0"
            )
        return actors[handle]

    def in_domain(
        self, index: int, before: int, domain: IndexDomain, count: Callable[[EnvHandle], int]
    ) -> int:
        """Return an index within an actor as one of its environment or the simulation.

        Args:
            index: Within the actor.
            before: How many there are in the actors before it.
            domain: What is wanted.
            count: Returns how many there are in an environment.
        """
        if domain == IndexDomain.DOMAIN_ACTOR:
            return index
        if domain == IndexDomain.DOMAIN_ENV:
            return before + index
        earlier = self.sim.environments[: self.environment.index]
        return sum(count(EnvHandle(self.sim, one)) for one in earlier) + before + index


class ActorCalls:
    """Calls about environments and actors; names and arguments are Isaac Gym's."""

    def create_env(self, sim: Simulation, lower: Vec3, upper: Vec3, num_per_row: int) -> EnvHandle:
        """Add an environment."""
        return EnvHandle(sim, sim.add_environment(lower, upper, num_per_row))

    def create_actor(
        self,
        env: EnvHandle,
        asset: Asset,
        pose: Transform,
        name: str = "",
        group: int = -1,
        filter: int = -1,
        segmentation: int = 0,
    ) -> int:
        """Add an actor to an environment and return its handle.

        `group` and `filter` say what it collides with. Actors of different groups do not collide, -1 being in all;
        those whose filters share a bit do not; a filter of -1 takes what the asset's shapes say (nothing: 0).
        """
        del segmentation
        name = name or f"actor{len(env.environment.actors)}"
        actor = Actor(asset, name, pose.copy(), int(group), max(0, int(filter)), asset.dof_properties.copy())
        return env.sim.add_actor(env.environment, actor)

    def get_env_count(self, sim: Simulation) -> int:
        """Return the number of environments."""
        return sim.n_envs

    def get_env(self, sim: Simulation, index: int) -> EnvHandle:
        """Return an environment."""
        return EnvHandle(sim, sim.environments[index])

    def get_env_origin(self, env: EnvHandle) -> Vec3:
        """Return the place of an environment in the grid; states are relative to it."""
        return Vec3(*env.environment.origin)

    def get_actor_count(self, env: EnvHandle) -> int:
        """Return the number of actors in an environment."""
        return len(env.environment.actors)

    def get_sim_actor_count(self, sim: Simulation) -> int:
        """Return the number of actors in all environments."""
        return sum(len(environment.actors) for environment in sim.environments)

    def get_sim_dof_count(self, sim: Simulation) -> int:
        """Return the number of degrees of freedom in all environments."""
        return sum(actor.asset.n_dofs for env in sim.environments for actor in env.actors)

    def get_sim_rigid_body_count(self, sim: Simulation) -> int:
        """Return the number of rigid bodies in all environments."""
        return sum(actor.asset.n_bodies for env in sim.environments for actor in env.actors)

    def get_env_rigid_body_count(self, env: EnvHandle) -> int:
        """Return the number of rigid bodies in an environment."""
        return sum(actor.asset.n_bodies for actor in env.environment.actors)

    def get_env_dof_count(self, env: EnvHandle) -> int:
        """Return the number of degrees of freedom in an environment."""
        return sum(actor.asset.n_dofs for actor in env.environment.actors)

    def get_actor_handle(self, env: EnvHandle, index: int) -> int:
        """Return the handle of an actor, which is its index."""
        env.actor(index)
        return index

    def find_actor_handle(self, env: EnvHandle, name: str) -> int:
        """Return the handle of an actor by name, -1 if there is none."""
        names = [actor.name for actor in env.environment.actors]
        return names.index(name) if name in names else -1

    def get_actor_name(self, env: EnvHandle, actor: int) -> str:
        """Return the name of an actor."""
        return env.actor(actor).name

    def get_actor_asset(self, env: EnvHandle, actor: int) -> Asset:
        """Return the asset of an actor."""
        return env.actor(actor).asset

    def get_actor_index(self, env: EnvHandle, actor: int, domain: IndexDomain) -> int:
        """Return an actor's index in its environment or in the simulation."""
        env.actor(actor)
        if domain != IndexDomain.DOMAIN_SIM:
            return actor
        before = env.sim.environments[: env.environment.index]
        return sum(len(environment.actors) for environment in before) + actor

    def get_actor_dof_count(self, env: EnvHandle, actor: int) -> int:
        """Return the number of an actor's degrees of freedom."""
        return env.actor(actor).asset.n_dofs

    def get_actor_dof_names(self, env: EnvHandle, actor: int) -> list[str]:
        """Return the names of an actor's degrees of freedom."""
        return list(env.actor(actor).asset.dof_names)

    def get_actor_dof_dict(self, env: EnvHandle, actor: int) -> dict[str, int]:
        """Return name -> index of an actor's degrees of freedom."""
        return {name: index for index, name in enumerate(env.actor(actor).asset.dof_names)}

    def find_actor_dof_index(self, env: EnvHandle, actor: int, name: str, domain: IndexDomain) -> int:
        """Return the index of an actor's degree of freedom."""
        before = [one.asset.n_dofs for one in env.environment.actors[:actor]]
        return env.in_domain(
            env.actor(actor).asset.dof_index(name), sum(before), domain, self.get_env_dof_count
        )

    def get_actor_joint_dict(self, env: EnvHandle, actor: int) -> dict[str, int]:
        """Return name -> index of an actor's joints, fixed ones included: the row of the Jacobian of what it moves."""
        return {name: index for index, name in enumerate(env.actor(actor).asset.joint_names)}

    def get_actor_joint_count(self, env: EnvHandle, actor: int) -> int:
        """Return the number of an actor's joints, fixed ones included."""
        return len(env.actor(actor).asset.joint_names)

    def get_actor_rigid_body_count(self, env: EnvHandle, actor: int) -> int:
        """Return the number of an actor's rigid bodies."""
        return env.actor(actor).asset.n_bodies

    def get_actor_rigid_body_names(self, env: EnvHandle, actor: int) -> list[str]:
        """Return the names of an actor's rigid bodies."""
        return list(env.actor(actor).asset.body_names)

    def get_actor_rigid_body_dict(self, env: EnvHandle, actor: int) -> dict[str, int]:
        """Return name -> index of an actor's rigid bodies."""
        return {name: index for index, name in enumerate(env.actor(actor).asset.body_names)}

    def find_actor_rigid_body_index(
        self, env: EnvHandle, actor: int, name: str, domain: IndexDomain = IndexDomain.DOMAIN_ENV
    ) -> int:
        """Return the index of an actor's rigid body, -1 if there is none."""
        index = env.actor(actor).asset.body_index(name)
        return -1 if index < 0 else self.get_actor_rigid_body_index(env, actor, index, domain)

    def get_actor_rigid_body_index(
        self, env: EnvHandle, actor: int, body: int, domain: IndexDomain = IndexDomain.DOMAIN_ENV
    ) -> int:
        """Return the index of an actor's rigid body in another domain."""
        before = sum(one.asset.n_bodies for one in env.environment.actors[:actor])
        return env.in_domain(body, before, domain, self.get_env_rigid_body_count)

    def find_actor_rigid_body_handle(self, env: EnvHandle, actor: int, name: str) -> int:
        """Return the index of an actor's rigid body in its environment, -1 if there is none."""
        return self.find_actor_rigid_body_index(env, actor, name)

    def get_actor_rigid_body_handle(self, env: EnvHandle, actor: int, body: int) -> int:
        """Return the index of an actor's rigid body in its environment."""
        return self.get_actor_rigid_body_index(env, actor, body)

    def get_actor_rigid_shape_count(self, env: EnvHandle, actor: int) -> int:
        """Return the number of an actor's collision shapes."""
        return env.actor(actor).asset.n_shapes

    def get_rigid_transform(self, env: EnvHandle, body: int) -> Transform:
        """Return the pose of a rigid body in its environment's frame."""
        return env.sim.body_pose(env.environment, body)
