"""MuJoCo models on a Warp device, with parameters per environment.

`mujoco_warp` keeps sizes, kinds and topology once for all environments, and most numbers (masses, frictions, poses,
gains, ...) with a leading dimension of 1 or N. Numbers that differ between environments, or that are changed later,
are copied into those; anything else must be equal in all models, and stay what it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_datasets.errors import UserError, one_line

logger = logging.getLogger(__name__)

wp: Any = importlib.import_module("warp")
mjw: Any = importlib.import_module("mujoco_warp")

# What pictures and sensors are made of: neither has a part in a step.
_NOT_PHYSICS = ("cam_", "light_", "mat_", "mesh_tex", "tex_", "sensor_")
_NOT_PHYSICS_EITHER = ("geom_rgba", "geom_matid", "geom_group", "site_rgba")
WATCHED_BYTES = 65536  # arrays up to this size are looked at for changes
# Options with a leading dimension, and those that put_model turns into something else.
_OPTIONS = ("timestep", "gravity", "magnetic")
_FIXED_OPTIONS = (
    *("integrator", "cone", "solver", "iterations", "ls_iterations", "ccd_iterations", "disableflags"),
    *("enableflags", "tolerance", "ls_tolerance", "ccd_tolerance", "impratio", "density", "viscosity"),
    "wind",
)


class WarpModelError(UserError):
    """A model has something that `mujoco_warp` cannot step."""


def put_model(model: Any) -> Any:
    """Return a model on the current device.

    Args:
        model: ``mujoco.MjModel``.

    Raises:
        WarpModelError: It has a feature that `mujoco_warp` has not.
    """
    if model.nhistory:
        raise _unsupported("delays of actuators and sensors")
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            put = mjw.put_model(model)
    except (NotImplementedError, ValueError) as error:
        raise _unsupported(one_line(error)) from error
    for remark in remarks:
        logger.warning("mujoco_warp: %s", " ".join(str(remark.message).split()))
    if wp.get_device().is_cuda and not wp.is_conditional_graph_supported():  # CUDA before 12.4
        put.opt.graph_conditional = False
    # Sensor values are computed from states by MuJoCo, where somebody reads them.
    put.opt.disableflags |= int(mjw.DisableBit.SENSOR)
    return put


class WarpModel:
    """Models of N environments on the current device.

    Args:
        models: N ``MjModel``; the list is read again in `refresh`.

    Attributes:
        put: ``mujoco_warp.Model`` to step with.

    Raises:
        WarpModelError: See `put_model` and `refresh`.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = models
        first = models[0]
        self.put = put_model(first)
        self._values: dict[str, np.ndarray] = {}
        fixed: list[str] = []
        for field in dataclasses.fields(self.put):
            value = getattr(first, field.name, None)
            if not isinstance(value, np.ndarray) or value.size == 0 or _is_no_physics(field.name):
                continue
            if _has_leading_dimension(field.type) and self._is_copied(field.name, value):
                self._values[field.name] = value[None].copy()
            else:
                fixed.append(field.name)
        for name in (*(f"opt.{option}" for option in _OPTIONS), "stat.meaninertia"):
            self._values[name] = _read(first, name)[None].copy()
        fixed += [f"opt.{name}" for name in _FIXED_OPTIONS]
        self._fixed = {name: _read(first, name).copy() for name in fixed}
        # Meshes are compared when a model is new; they are too large to be looked at again in every control step.
        watched = [*self._values, *(name for name in fixed if _read(first, name).nbytes <= WATCHED_BYTES)]
        self._watched = tuple(watched)
        self._seen = [self._digest(first)] * len(models)
        self.refresh(np.arange(len(models)))

    def refresh(self, rows: np.ndarray) -> bool:
        """Take parameters of environments `rows` (n,) that have changed; return whether arrays were replaced.

        Raises:
            WarpModelError: Something differs that must be the same in all environments.
        """
        users: dict[int, list[int]] = {}
        for row, model in enumerate(self._models):
            users.setdefault(id(model), []).append(row)
        changed: set[str] = set()
        for key in dict.fromkeys(id(self._models[row]) for row in rows.tolist()):
            using = users[key]
            model = self._models[using[0]]
            digest = self._digest(model)
            if all(self._seen[row] == digest for row in using):
                continue
            self._check_fixed(model)
            changed |= {name for name in self._values if self._take(name, _read(model, name), using)}
            for row in using:
                self._seen[row] = digest
        replaced = [self._upload(name) for name in sorted(changed)]
        return any(replaced)

    def _take(self, name: str, value: np.ndarray, rows: list[int]) -> bool:
        held, n_envs = self._values[name], len(self._models)
        shared = len(held) == 1
        if all(np.array_equal(held[0 if shared else row], value) for row in rows[: 1 if shared else None]):
            return False
        if shared and len(rows) < n_envs:
            self._values[name] = held = np.repeat(held, n_envs, axis=0)
        held[rows if len(held) > 1 else 0] = value
        return True

    def _upload(self, name: str) -> bool:
        held = self._values[name].astype(np.float64)
        owner, attribute = _owner(self.put, name)
        old = getattr(owner, attribute)
        new = wp.array(held, dtype=old.dtype, shape=(len(held), *old.shape[1:]))
        if old.shape == new.shape:  # in place: a captured graph goes on reading it
            wp.copy(old, new)
            return False
        setattr(owner, attribute, new)
        return True

    def _digest(self, model: Any) -> bytes:
        seen = hashlib.blake2b(digest_size=16)
        for name in self._watched:
            seen.update(_read(model, name).tobytes())
        return seen.digest()

    def _check_fixed(self, model: Any) -> None:
        for name, expected in self._fixed.items():
            if not np.array_equal(_read(model, name), expected):
                raise WarpModelError(
                    f"backend 'warp': {name} differs between environments, or has changed; mujoco_warp has one "
                    "value for all. Make a new simulation with it, or use backend='mujoco'"
                )

    def _is_copied(self, name: str, value: np.ndarray) -> bool:
        """Whether `mujoco_warp` holds this very field, in single precision."""
        put = getattr(self.put, name).numpy()
        return put.size == value.size and np.array_equal(put.ravel(), value.ravel().astype(put.dtype))


def _read(model: Any, name: str) -> np.ndarray:
    owner, attribute = _owner(model, name)
    return np.asarray(getattr(owner, attribute))


def _owner(model: Any, name: str) -> tuple[Any, str]:
    group, _, attribute = name.rpartition(".")
    return (getattr(model, group) if group else model), attribute


def _has_leading_dimension(annotation: Any) -> bool:
    shape = getattr(annotation, "shape", None)
    return bool(shape) and shape[0] == "*"


def _is_no_physics(name: str) -> bool:
    return name.startswith(_NOT_PHYSICS) or name in _NOT_PHYSICS_EITHER


def _unsupported(what: str) -> WarpModelError:
    return WarpModelError(
        f"backend 'warp': mujoco_warp cannot step this model: {what}; change the model, or use backend='mujoco'"
    )
