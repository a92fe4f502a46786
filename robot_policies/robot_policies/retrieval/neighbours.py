"""Distances and densities between large sets of vectors, in blocks that fit into memory.

Search is exact: every key is compared with every query. That is linear in both, and what retrieval needs has few
keys (the target's steps) and many queries (the prior's). faiss takes over beyond a million keys, approximately.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from robot_datasets.errors import UserError

BLOCK_VALUES = 1 << 24
"""Distances held at a time; 64 MiB in float32."""
MAX_EXACT_KEYS = 1_000_000


def nearest(queries: Tensor, keys: Tensor, *, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest keys of each query, by Euclidean distance.

    Args:
        queries: (N, D).
        keys: (M, D).
        k: At most M are returned.

    Returns:
        Distances (N, k), ascending, and key numbers (N, k).

    Raises:
        UserError: There are no keys, or more than `MAX_EXACT_KEYS` and faiss is not installed.
    """
    if len(keys) == 0:
        raise UserError("nothing to compare with: the set of keys is empty")
    if len(keys) > MAX_EXACT_KEYS:
        return _nearest_faiss(queries, keys, min(k, len(keys)))
    indices = torch.empty(len(queries), min(k, len(keys)), dtype=torch.int64, device=queries.device)
    for rows, squares in _squared_distances(queries, keys):
        indices[rows] = squares.topk(indices.shape[1], dim=1, largest=False).indices
    return _exact(queries, keys, indices)


def log_density(queries: Tensor, points: Tensor, *, bandwidth: float) -> Tensor:
    """Logarithm of the mean of Gaussian kernels of one width, up to a constant of the dimension; (N,).

    The constant -D/2 ln(2 pi) is left out: it is the same for every set of points.
    """
    if len(points) == 0:
        raise UserError("a density needs points, got none")
    result = queries.new_empty(len(queries))
    for rows, squares in _squared_distances(queries, points):
        # logsumexp in place: it is the whole cost of importance weights.
        exponents = squares.mul_(-1 / (2 * bandwidth**2))
        largest = exponents.amax(dim=1, keepdim=True)
        result[rows] = exponents.sub_(largest).exp_().sum(dim=1).log_().add_(largest[:, 0])
    return result - math.log(len(points)) - queries.shape[1] * math.log(bandwidth)


def scott_bandwidth(n: int, dim: int) -> float:
    """Scott's rule for data of unit variance: n^(-1 / (dim + 4))."""
    return n ** (-1.0 / (dim + 4))


def _squared_distances(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows and their squared distances (rows, M)."""
    # Centred, because the difference of large squares loses digits.
    centre = keys.mean(dim=0)
    queries, keys = queries - centre, keys - centre
    key_squares = keys.square().sum(dim=1)
    step = max(1, BLOCK_VALUES // len(keys))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        block = queries[rows]
        squares = block.square().sum(dim=1, keepdim=True) + key_squares - 2 * block @ keys.T
        yield rows, squares.clamp_(min=0)


def _exact(queries: Tensor, keys: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of chosen pairs without cancellation, sorted."""
    distances = torch.empty(indices.shape, dtype=queries.dtype, device=queries.device)
    step = max(1, BLOCK_VALUES // max(1, indices.shape[1] * keys.shape[1]))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        distances[rows] = (queries[rows, None] - keys[indices[rows]]).norm(dim=-1)
    distances, order = distances.sort(dim=1)
    return distances, indices.gather(1, order)


def _nearest_faiss(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Approximate search: an inverted file of about sqrt(M) cells, of which one in thirty is searched."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UserError(
            f"{len(keys)} keys are more than exact search takes ({MAX_EXACT_KEYS}); install faiss-cpu "
            f"(pip install 'robot-policies[retrieval]'), or use fewer target demonstrations"
        ) from error
    cells = int(math.sqrt(len(keys)))
    quantiser = faiss.IndexFlatL2(keys.shape[1])
    index = faiss.IndexIVFFlat(quantiser, keys.shape[1], cells)
    data = keys.float().cpu().numpy()
    index.train(data)
    index.add(data)
    index.nprobe = max(1, cells // 30)
    _, found = index.search(queries.float().cpu().numpy(), k)
    return _exact(queries, keys, torch.from_numpy(found).clamp(min=0).to(queries.device))
