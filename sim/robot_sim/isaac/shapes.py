"""Contact properties of collision shapes, as Isaac Gym's objects and as arrays."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from robot_sim.isaac.asset import Asset
from robot_sim.isaac.errors import IsaacError
from robot_sim.isaac.parameters import AssetOptions, RigidShapeProperties


def copied_options(options: AssetOptions | None) -> AssetOptions:
    """Return options of one's own; tasks change and reuse theirs for the next asset."""
    return AssetOptions() if options is None else copy.copy(options)


def shape_properties(
    asset: Asset, values: Mapping[str, np.ndarray], filter: int
) -> list[RigidShapeProperties]:
    """Return the properties of an asset's shapes.

    Args:
        asset: The asset.
        values: What was set, (n_shapes,) each; the asset's own friction otherwise.
        filter: Collision filter where none was set.
    """
    friction = values.get("friction", asset.model.geom_friction[:, 0])
    filters = values.get("filter", np.full(asset.n_shapes, filter))
    return [
        RigidShapeProperties(
            friction=float(one),
            filter=int(mask),
            **{"rolling_friction": 0.0, "torsion_friction": 0.0, "restitution": 0.0, "compliance": 0.0},
            **{"thickness": 0.0, "contact_offset": 0.0, "rest_offset": 0.0},
        )
        for one, mask in zip(friction, filters, strict=True)
    ]


def shape_arrays(asset: Asset, properties: list[RigidShapeProperties]) -> dict[str, np.ndarray]:
    """Return friction and filter of each shape.

    Raises:
        IsaacError: There are more or fewer properties than shapes.
    """
    if len(properties) != asset.n_shapes:
        raise IsaacError(
            f"{len(properties)} shape properties; '{asset.name}' has {asset.n_shapes} collision shapes"
        )
    return {
        "friction": np.array([shape.friction for shape in properties], dtype=float),
        "filter": np.array([shape.filter for shape in properties], dtype=np.int64),
    }
