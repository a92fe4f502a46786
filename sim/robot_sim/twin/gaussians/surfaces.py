"""Points and outward normals that cover the surfaces of MuJoCo's geoms evenly, about `spacing` apart."""

from __future__ import annotations

import math

import numpy as np

Surface = tuple[np.ndarray, np.ndarray]  # points (N, 3), outward unit normals (N, 3), geom frame
GOLDEN = math.pi * (3.0 - math.sqrt(5.0))


def box(half: np.ndarray, spacing: float) -> Surface:
    """Cover a box with half edges (3,) [m]: a grid of cells on each face, a point in the middle of each."""
    points, normals = [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        a, b = np.meshgrid(_cells(half[u], spacing), _cells(half[v], spacing), indexing="ij")
        for side in (-1.0, 1.0):
            face = np.zeros((a.size, 3))
            face[:, axis], face[:, u], face[:, v] = side * half[axis], a.ravel(), b.ravel()
            points.append(face)
            normals.append(np.tile(side * np.eye(3)[axis], (a.size, 1)))
    return np.concatenate(points), np.concatenate(normals)


def cylinder(radius: float, half: float, spacing: float) -> Surface:
    """Cover a cylinder along z: rings around its side, sunflowers on its ends."""
    points, normals = _side(radius, half, spacing)
    count = max(1, round(math.pi * radius**2 / spacing**2))
    k = np.arange(count)
    r, angle = radius * np.sqrt((k + 0.5) / count), k * GOLDEN
    for side in (-1.0, 1.0):
        disc = np.stack([r * np.cos(angle), r * np.sin(angle), np.full(count, side * half)], axis=1)
        points, normals = (
            np.concatenate([points, disc]),
            np.concatenate([normals, np.tile([0, 0, side], (count, 1))]),
        )
    return points, normals


def capsule(radius: float, half: float, spacing: float) -> Surface:
    """Cover a capsule along z, whose straight part has this half length."""
    points, normals = _side(radius, half, spacing)
    ball, outward = ellipsoid(np.full(3, radius), spacing)
    ends = ball + np.array([0, 0, 1.0]) * np.where(ball[:, 2:] >= 0, half, -half)
    return np.concatenate([points, ends]), np.concatenate([normals, outward])


def ellipsoid(radii: np.ndarray, spacing: float) -> Surface:
    """Cover an ellipsoid with semi-axes (3,) [m] by a Fibonacci spiral; a sphere has three equal ones."""
    mean = float(np.mean(radii**2))
    count = max(8, round(4 * math.pi * mean / spacing**2))
    k = np.arange(count)
    z = 1.0 - 2.0 * (k + 0.5) / count
    flat = np.sqrt(1.0 - z**2)
    unit = np.stack([flat * np.cos(k * GOLDEN), flat * np.sin(k * GOLDEN), z], axis=1)
    return unit * radii, _normalised(unit / radii)


def triangles(corners: np.ndarray, spacing: float) -> Surface:
    """Cover a triangle mesh (F, 3, 3), outward counter-clockwise, in proportion to area; the same points each time."""
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(cross, axis=1)
    solid = area > 1e-14
    corners, cross, area = corners[solid], cross[solid], area[solid]
    count = max(4, round(float(area.sum()) / spacing**2))
    # Systematic sampling along the area, and a low-discrepancy sequence (R2) inside each triangle: even, not random.
    edges = np.cumsum(area)
    face = np.minimum(np.searchsorted(edges, (np.arange(count) + 0.5) / count * edges[-1]), len(area) - 1)
    u, v = ((np.arange(count)[:, None] + 1) * np.array([0.7548776662, 0.5698402910]) % 1.0).T
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
    return a + u[:, None] * (b - a) + v[:, None] * (c - a), _normalised(cross[face])


def _cells(half: float, spacing: float) -> np.ndarray:
    count = max(1, round(2 * half / spacing))
    return (np.arange(count) + 0.5) * (2 * half / count) - half


def _side(radius: float, half: float, spacing: float) -> Surface:
    around = max(6, round(2 * math.pi * radius / spacing))
    z, angle = np.meshgrid(_cells(half, spacing), np.arange(around) * 2 * math.pi / around, indexing="ij")
    normals = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1).reshape(-1, 3)
    points = normals * radius
    points[:, 2] = z.ravel()
    return points, normals


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
