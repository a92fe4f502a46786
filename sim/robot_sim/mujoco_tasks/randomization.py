"""Domain randomisation: each episode gets its own masses, friction, latency, light, colours and cameras.

What an episode gets is a function of its seed, like its initial state, and independent of it: two random streams.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_sim.engine import mujoco
from robot_sim.rotations import rotation_vector_to_quaternion

TEXTURE_PREFIX = "random_texture_"
N_TEXTURES = 6
LOOK_FIELDS = ("light_diffuse", "light_dir", "geom_rgba", "mat_rgba", "geom_matid", "cam_pos", "cam_quat")
_PHYSICS_STREAM, _LOOK_STREAM = 71, 72


@dataclass(frozen=True, kw_only=True)
class Randomization:
    """How much varies from episode to episode; 0 keeps a thing as it is.

    Attributes:
        mass: Masses and inertias of movable objects are scaled by a factor in [1 - mass, 1 + mass].
        friction: Sliding friction of all geoms is scaled by one factor in [1 - friction, 1 + friction].
        latency: Actions take effect up to so many control steps late, the same number for a whole episode.
        light: Brightness of every light is scaled by a factor in [1 - light, 1 + light], and its direction turned
            by up to as many radians.
        colour: Colours are shifted by up to so much, in [0, 1] of each channel.
        texture: Probability that a geom of the table or floor gets a random texture.
        camera_position: Cameras are displaced by up to so much along each axis [m].
        camera_angle: And turned by up to so much about each axis [rad].
    """

    mass: float = 0.0
    friction: float = 0.0
    latency: int = 0
    light: float = 0.0
    colour: float = 0.0
    texture: float = 0.0
    camera_position: float = 0.0
    camera_angle: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise UserError(f"randomization: {field.name} = {getattr(self, field.name)}; expected >= 0")
        for name in ("mass", "friction", "light", "texture"):
            if getattr(self, name) > 1:
                raise UserError(
                    f"randomization: {name} = {getattr(self, name)}; expected a share of at most 1"
                )

    @property
    def changes_physics(self) -> bool:
        """Whether environments need models of their own."""
        return self.mass > 0 or self.friction > 0

    @property
    def changes_looks(self) -> bool:
        """Whether pictures differ from episode to episode."""
        return max(self.light, self.colour, self.texture, self.camera_position, self.camera_angle) > 0


def randomize_physics(randomization: Randomization, base: Any, model: Any, seed: int) -> int:
    """Write an episode's masses and friction into `model` and return its latency [control steps].

    Args:
        randomization: How much varies.
        base: ``MjModel`` with the nominal values.
        model: Copy of it that the episode runs in; left alone if physics does not vary.
        seed: The episode.
    """
    random = np.random.default_rng([seed, _PHYSICS_STREAM])
    mass = 1.0 + random.uniform(-randomization.mass, randomization.mass, base.nbody)
    friction = 1.0 + random.uniform(-randomization.friction, randomization.friction)
    latency = int(random.integers(randomization.latency + 1))
    if randomization.changes_physics:
        movable = movable_bodies(base)
        model.body_mass[movable] = base.body_mass[movable] * mass[movable]
        model.body_inertia[movable] = base.body_inertia[movable] * mass[movable, None]
        model.geom_friction[:, 0] = base.geom_friction[:, 0] * friction
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return latency


def movable_bodies(model: Any) -> np.ndarray:
    """Return the bodies that move freely, and what hangs on them, (n,) int."""
    free = model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
    return np.flatnonzero(np.isin(model.body_rootid, model.body_rootid[free]))


def sample_look(randomization: Randomization, model: Any, seed: int) -> dict[str, np.ndarray]:
    """Return an episode's values of the fields of `model` that decide how it looks; empty if nothing varies.

    Args:
        randomization: How much varies.
        model: ``MjModel`` with visuals and nominal values.
        seed: The episode.
    """
    if not randomization.changes_looks:
        return {}
    random = np.random.default_rng([seed, _LOOK_STREAM])
    r = randomization
    bright = 1.0 + random.uniform(-r.light, r.light, (model.nlight, 1))
    turn = random.uniform(-r.light, r.light, (model.nlight, 3))
    direction = model.light_dir + np.cross(turn, model.light_dir)
    shift = random.uniform(-r.colour, r.colour, (model.ngeom, 3))
    material_shift = random.uniform(-r.colour, r.colour, (model.nmat, 3))
    look = {
        "light_diffuse": np.clip(model.light_diffuse * bright, 0.0, 1.0),
        "light_dir": direction / np.linalg.norm(direction, axis=1, keepdims=True),
        "geom_rgba": _shifted(model.geom_rgba, shift),
        "mat_rgba": _shifted(model.mat_rgba, material_shift),
        "geom_matid": _textured(r.texture, model, random),
        "cam_pos": model.cam_pos + random.uniform(-r.camera_position, r.camera_position, (model.ncam, 3)),
        "cam_quat": _turned(model.cam_quat, random.uniform(-r.camera_angle, r.camera_angle, (model.ncam, 3))),
    }
    return {name: value.astype(getattr(model, name).dtype) for name, value in look.items()}


def wear(look: dict[str, np.ndarray], model: Any, nominal: Any) -> None:
    """Write a look into a model with visuals; what the look does not say becomes as in `nominal`."""
    for name in LOOK_FIELDS:
        getattr(model, name)[:] = look[name] if name in look else getattr(nominal, name)


def add_random_textures(scene: Any) -> None:
    """Give a scene the textures that `sample_look` chooses from."""
    random = np.random.default_rng(0)
    kinds = (mujoco.mjtBuiltin.mjBUILTIN_CHECKER, mujoco.mjtBuiltin.mjBUILTIN_GRADIENT)
    for index in range(N_TEXTURES):
        name = f"{TEXTURE_PREFIX}{index}"
        texture = scene.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=64, height=64)
        texture.builtin = kinds[index % 2]
        texture.rgb1, texture.rgb2 = random.uniform(0.1, 0.9, (2, 3))
        material = scene.add_material(name=name, texrepeat=[6, 6], texuniform=True)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def _shifted(rgba: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.concatenate([np.clip(rgba[:, :3] + shift, 0.0, 1.0), rgba[:, 3:]], axis=1)


def _textured(probability: float, model: Any, random: np.random.Generator) -> np.ndarray:
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_MATERIAL, i) or "" for i in range(model.nmat)]
    textures = [index for index, name in enumerate(names) if name.startswith(TEXTURE_PREFIX)]
    chosen = random.uniform(size=model.ngeom) < probability
    which = random.integers(max(1, len(textures)), size=model.ngeom)
    materials = model.geom_matid.copy()
    background = (model.geom_bodyid == 0) & (model.geom_contype > 0)
    if textures:
        materials[chosen & background] = np.array(textures)[which[chosen & background]]
    return materials


def _turned(quaternions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    result = np.empty_like(quaternions)
    for row, turn in enumerate(rotation_vector_to_quaternion(vectors)):
        mujoco.mju_mulQuat(result[row], quaternions[row], turn)
    return result
