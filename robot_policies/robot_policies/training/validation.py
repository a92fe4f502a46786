"""Validation by what the policy would do: the error of whole sampled chunks, not the denoising loss.

The denoising loss of a diffusion policy rises on held-out data while its success still improves, so checkpoints
are compared by the error of actions that the averaged policy draws with fixed noise on fixed windows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_datasets.features import ACTION
from robot_datasets.loader import BatchDataset
from robot_datasets.shared_view import ACTION_IS_VALID
from robot_policies.policy import Policy, goal_of_batch
from robot_policies.training.batches import to_tensors

CHUNK = 64


def fixed_windows(n: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """A fixed random subset of `wanted` out of `n` windows, sorted."""
    chosen = np.random.default_rng([seed, 0x5EED]).choice(n, size=min(n, wanted), replace=False)
    return np.sort(chosen).astype(np.int64)


@torch.no_grad()
def action_errors(
    policy: Policy,
    dataset: BatchDataset,
    windows: NDArray[np.int64],
    *,
    action_std: NDArray[np.float64],
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """Mean squared error of sampled actions against the demonstrated ones; padded steps do not count.

    Args:
        policy: The averaged policy, in evaluation mode.
        dataset: Where the windows come from.
        windows: Which windows, see `fixed_windows`.
        action_std: Standard deviation of each action component in the training data, (A,).
        seed: Seed of the noise, the same at every validation.
        device: Where the policy is.

    Returns:
        ``action_mse`` in squared physical units, and ``action_nmse`` with each component divided by its variance
        (1 is as good as always answering with the mean; a component that never moves is not scaled).
    """
    scale = torch.as_tensor(np.where(action_std > 1e-6, action_std, 1.0))
    squares = torch.zeros(len(scale), dtype=torch.float64)
    counts = torch.zeros(len(scale), dtype=torch.float64)
    for start in range(0, len(windows), CHUNK):
        batch = to_tensors(dataset.__getitems__(windows[start : start + CHUNK]), device)
        generator = torch.Generator().manual_seed(seed + start)
        observation = {name: batch[name] for name in policy.spec.observation}
        goal = goal_of_batch(batch, policy.spec)
        predicted = policy.predict_chunk(observation, goal=goal, generator=generator).actions
        valid = ~batch["action_is_pad"].cpu()
        error: Tensor = (predicted.cpu().double() - batch[ACTION].cpu().double()) ** 2
        counted = valid[..., None].expand_as(error)
        if ACTION_IS_VALID in batch:  # components that the robot lacks say nothing
            counted = counted & batch[ACTION_IS_VALID].cpu()[:, None]
        squares += (error * counted).sum(dim=(0, 1))
        counts += counted.sum(dim=(0, 1))
    there = counts > 0
    mean = squares[there] / counts[there]
    return {"action_mse": float(mean.mean()), "action_nmse": float((mean / scale[there] ** 2).mean())}
