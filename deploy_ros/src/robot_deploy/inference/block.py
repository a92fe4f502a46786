"""Memory that two processes share, with a fixed place for every array.

It is an anonymous file (``memfd_create``), handed to the child as a descriptor: it has no name that another
program could open, and it is gone when both processes are, however they ended.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.features import is_image
from robot_policies.spec import PolicySpec

_ALIGN = 64  # bytes: a cache line


@dataclass(frozen=True)
class Place:
    """Where an array is: offset [bytes], shape and dtype."""

    offset: int
    shape: tuple[int, ...]
    dtype: str


class ObservationBlock:
    """Arrays for one request and its answer.

    Attributes:
        arrays: By name: every numeric feature (T_o, ...), ``plan`` and ``weights`` of the continuation, ``chunk``
            (T_p, A) float32; for every image feature its frames (T_o, max_bytes) uint8 and, under ``<name>/sizes``,
            their lengths (T_o,) int64 [bytes].
        descriptor: Of the memory.
    """

    def __init__(self, spec: PolicySpec, max_bytes: Mapping[str, int], descriptor: int | None = None) -> None:
        """Lay out the memory.

        Args:
            spec: The policy's.
            max_bytes: Image feature -> largest encoded frame [bytes].
            descriptor: Of existing memory; None makes new.
        """
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        for name, feature in spec.observation.items():
            if is_image(name):
                shapes[name] = ((spec.n_obs_steps, max_bytes[name]), "uint8")
                shapes[f"{name}/sizes"] = ((spec.n_obs_steps,), "int64")
            else:
                shapes[name] = ((spec.n_obs_steps, *feature.shape), "float32")
        shapes["plan"] = ((spec.horizon, spec.action_dim), "float32")
        shapes["weights"] = ((spec.horizon,), "float32")
        shapes["chunk"] = ((spec.horizon, spec.action_dim), "float32")
        places: dict[str, Place] = {}
        size = 0
        for name, (shape, dtype) in shapes.items():
            places[name] = Place(size, shape, dtype)
            length = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            size += -(-length // _ALIGN) * _ALIGN
        self.descriptor = os.memfd_create("robot_policies_inference") if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, size)
        self._memory: Any = mmap.mmap(self.descriptor, size)
        self.arrays: dict[str, np.ndarray] = {
            name: np.frombuffer(
                self._memory, dtype=p.dtype, count=int(np.prod(p.shape, dtype=np.int64)), offset=p.offset
            ).reshape(p.shape)
            for name, p in places.items()
        }

    def close(self) -> None:
        """Close the descriptor; the memory itself goes with its last array."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self.arrays = {}
