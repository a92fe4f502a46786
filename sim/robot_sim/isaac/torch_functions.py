"""The functions of ``isaacgym.torch_utils``: rotations as quaternions xyzw, random numbers, scaling; all batched."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "copysign",
    "get_axis_params",
    "get_basis_vector",
    "get_euler_xyz",
    "normalize",
    "normalize_angle",
    "quat_apply",
    "quat_conjugate",
    "quat_from_angle_axis",
    "quat_from_euler_xyz",
    "quat_mul",
    "quat_rotate",
    "quat_rotate_inverse",
    "quat_unit",
    "scale",
    "scale_transform",
    "tensor_clamp",
    "tf_apply",
    "tf_combine",
    "tf_inverse",
    "tf_vector",
    "to_torch",
    "torch_rand_float",
    "torch_random_dir_2",
    "unscale",
    "unscale_np",
    "unscale_transform",
]


def to_torch(
    x: Any, dtype: torch.dtype = torch.float, device: str = "cuda:0", requires_grad: bool = False
) -> Tensor:
    """Return a tensor of these values."""
    return torch.tensor(x, dtype=dtype, device=device, requires_grad=requires_grad)


def normalize(x: Tensor, eps: float = 1e-9) -> Tensor:
    """Return vectors (..., n) of length 1."""
    return x / x.norm(p=2, dim=-1, keepdim=True).clamp(min=eps)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of quaternions (..., 4)."""
    va, wa, vb, wb = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = wa * vb + wb * va + torch.cross(va, vb, dim=-1)
    scalar = wa * wb - (va * vb).sum(dim=-1, keepdim=True)
    return torch.cat([vector, scalar], dim=-1)


def quat_conjugate(a: Tensor) -> Tensor:
    """Return the inverse rotations (..., 4)."""
    return torch.cat([-a[..., :3], a[..., 3:]], dim=-1)


def quat_unit(a: Tensor) -> Tensor:
    """Return quaternions of length 1."""
    return normalize(a)


def quat_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Return vectors (..., 3), rotated by q (..., 4)."""
    axis = q[..., :3]
    twice = 2.0 * torch.cross(axis, v, dim=-1)
    return v + q[..., 3:] * twice + torch.cross(axis, twice, dim=-1)


def quat_apply(a: Tensor, b: Tensor) -> Tensor:
    """Return vectors (..., 3), rotated by a (..., 4)."""
    return quat_rotate(a, b)


def quat_rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    """Return vectors (..., 3), rotated by the inverse of q (..., 4)."""
    return quat_rotate(quat_conjugate(q), v)


def quat_from_angle_axis(angle: Tensor, axis: Tensor) -> Tensor:
    """Return rotations by angles (...) [rad] about axes (..., 3)."""
    half = (angle / 2).unsqueeze(-1)
    return torch.cat([normalize(axis) * half.sin(), half.cos()], dim=-1)


def normalize_angle(x: Tensor) -> Tensor:
    """Return angles in [-pi, pi]."""
    return torch.atan2(torch.sin(x), torch.cos(x))


def tf_inverse(q: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverse of poses with rotation q and translation t."""
    inverse = quat_conjugate(q)
    return inverse, -quat_rotate(inverse, t)


def tf_apply(q: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Return points (..., 3) of poses' frames in the parents'."""
    return quat_rotate(q, v) + t


def tf_vector(q: Tensor, v: Tensor) -> Tensor:
    """Return directions (..., 3) of poses' frames in the parents'."""
    return quat_rotate(q, v)


def tf_combine(q1: Tensor, t1: Tensor, q2: Tensor, t2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the poses (q2, t2), given in the frames (q1, t1), in the parents' frames."""
    return quat_mul(q1, q2), quat_rotate(q1, t2) + t1


def get_basis_vector(q: Tensor, v: Tensor) -> Tensor:
    """Return vectors, rotated."""
    return quat_rotate(q, v)


def get_axis_params(
    value: float, axis_idx: int, x_value: float = 0.0, dtype: type = float, n_dims: int = 3
) -> list[float]:
    """Return a vector with `value` on an axis and `x_value` on the first."""
    vector = np.zeros(n_dims)
    vector[axis_idx] = value
    if axis_idx != 0:
        vector[0] = x_value
    return list(vector.astype(dtype))


def copysign(a: float, b: Tensor) -> Tensor:
    """Return `a` with the signs of `b`."""
    return torch.copysign(torch.full_like(b, abs(a)), b)


def get_euler_xyz(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return roll, pitch and yaw of R = Rz(yaw) Ry(pitch) Rx(roll), in [0, 2 pi)."""
    x, y, z, w = q.unbind(-1)
    roll = torch.atan2(2 * (w * x + y * z), w * w - x * x - y * y + z * z)
    sine = (2 * (w * y - z * x)).clamp(-1.0, 1.0)
    yaw = torch.atan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
    full = 2 * np.pi
    return roll % full, torch.asin(sine) % full, yaw % full


def quat_from_euler_xyz(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    """Return quaternions of Rz(yaw) Ry(pitch) Rx(roll)."""
    cr, sr, cp, sp, cy, sy = (f(angle / 2) for angle in (roll, pitch, yaw) for f in (torch.cos, torch.sin))
    x, y = sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy
    z, w = cr * cp * sy - sr * sp * cy, cr * cp * cy + sr * sp * sy
    return torch.stack([x, y, z, w], dim=-1)


def torch_rand_float(lower: float, upper: float, shape: tuple[int, int], device: str) -> Tensor:
    """Return uniform random numbers in [lower, upper)."""
    return (upper - lower) * torch.rand(*shape, device=device) + lower


def torch_random_dir_2(shape: tuple[int, int], device: str) -> Tensor:
    """Return random directions in the plane (..., 2)."""
    angle = torch_rand_float(-np.pi, np.pi, shape, device).squeeze(-1)
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)


def tensor_clamp(t: Tensor, min_t: Tensor, max_t: Tensor) -> Tensor:
    """Return values, clipped element by element."""
    return torch.max(torch.min(t, max_t), min_t)


def scale(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return [-1, 1] mapped to [lower, upper]."""
    return 0.5 * (x + 1.0) * (upper - lower) + lower


def unscale(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return [lower, upper] mapped to [-1, 1]."""
    return (2.0 * x - upper - lower) / (upper - lower)


def unscale_np(x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return [lower, upper] mapped to [-1, 1]."""
    return (2.0 * x - upper - lower) / (upper - lower)


def scale_transform(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return [lower, upper] mapped to [-1, 1]."""
    return unscale(x, lower, upper)


def unscale_transform(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return [-1, 1] mapped to [lower, upper]."""
    return scale(x, lower, upper)
