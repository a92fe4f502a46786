r"""Behavior retrieval: weights for the steps of a prior dataset, by likeness to a target dataset.

Du, Nair, Sadigh and Finn, "Behavior Retrieval", RSS 2023 (arXiv 2304.08742); importance weights: Xie et al., "Data
Retrieval with Importance Weights for Few-Shot Imitation Learning", 2025 (arXiv 2509.01657)::

    prior steps --- VAE ---> z_x          nearest      distance_x = mean of the k smallest |z_x - z_y| over the target
    target steps -- VAE ---> z_y          importance   w_x = p_target(z_x) / p_prior(z_x), Gaussian kernel densities

``nearest`` keeps the best `fraction` of the prior, or what passes the paper's `threshold` on the likeness
1 - (d - min d) / (max d - min d), all with weight 1. ``importance`` draws each step in proportion to w_x: a step that
the prior is full of anyway counts less. The paper's threshold depends on the farthest outlier of the prior, which is
why a fraction is the default here.

The policy is then trained on a mixture of target and prior, half and half, with `Selection` deciding how often each
prior window is drawn: any policy, through the ordinary ``dataset.mixture``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_datasets.selection import Selection
from robot_datasets.store import EpisodeStore
from robot_policies.configuration import ConfigError, from_mapping, to_mapping
from robot_policies.retrieval.neighbours import log_density, nearest, scott_bandwidth
from robot_policies.retrieval.vae import VaeConfig, embed, fit_vae
from robot_policies.retrieval.vectors import common_observation, read_vectors

FRACTION = 0.2
DENSITY_POINTS = 5_000


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """How to retrieve.

    Attributes:
        method: ``nearest`` or ``importance``; see the module docstring.
        fraction: Share of the prior's steps that is kept, the best; None keeps 0.2 for ``nearest`` and all for
            ``importance``.
        threshold: Keep what is at least so alike, in [0, 1]; replaces `fraction`.
        window: W: 1 compares transitions, more compares the beginning of a chunk.
        observation: Features to compare; empty for all that both stores have, but depth.
        embedding: ``vae``, or ``raw`` for the standardised numbers themselves (no images).
        vae: Sizes and training of the VAE.
        image_size: Images are compared at so many pixels square.
        action_weight: Weight of the action that is appended to the latent.
        n_neighbours: k, for ``nearest``.
        cut: For ``importance``: so large a share of the kept steps, those of the largest weights, get the weight of
            the smallest of them.
        seed: Seeds the VAE.
    """

    method: Literal["nearest", "importance"] = "nearest"
    fraction: float | None = None
    threshold: float | None = None
    window: int = 1
    observation: tuple[str, ...] = ()
    embedding: Literal["vae", "raw"] = "vae"
    vae: VaeConfig = field(default_factory=VaeConfig)
    image_size: int = 32
    action_weight: float = 1.0
    n_neighbours: int = 1
    cut: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction: expected 0 < x <= 1, got {self.fraction}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: expected 0 <= x <= 1, got {self.threshold}")
        if self.fraction is not None and self.threshold is not None:
            raise ConfigError("fraction and threshold exclude each other; give one of them")
        if min(self.window, self.n_neighbours, self.image_size) < 1:
            raise ConfigError(
                f"window, n_neighbours and image_size must be >= 1, got {self.window}, {self.n_neighbours} "
                f"and {self.image_size}"
            )
        if self.action_weight < 0 or not 0 <= self.cut < 1:
            raise ConfigError(
                f"expected action_weight >= 0 and 0 <= cut < 1, got {self.action_weight} and {self.cut}"
            )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RetrievalConfig:
        """Validate a mapping."""
        return from_mapping(cls, values, where="retrieve")


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What was retrieved.

    Attributes:
        config: How.
        prior: The store that was searched.
        target: The store that was searched for.
        prior_z: Embeddings (T, D) of the prior's steps.
        target_z: Embeddings of the target's steps.
        distances: (T,) distance of each prior step to the target.
        weights: (T,) weight of each prior step, 0 for those that are left out.
    """

    config: RetrievalConfig
    prior: EpisodeStore
    target: EpisodeStore
    prior_z: Tensor
    target_z: Tensor
    distances: NDArray[np.float32]
    weights: NDArray[np.float32]

    def selection(self) -> Selection:
        """The file that a mixture reads."""
        about = {
            "config": to_mapping(self.config),
            "prior": Path(self.prior.path).name,
            "target": Path(self.target.path).name,
            "target_fingerprint": self.target.fingerprint,
            "selected_steps": int((self.weights > 0).sum()),
        }
        return Selection(
            fingerprint=self.prior.fingerprint,
            weights=self.weights,
            distances=self.distances,
            about=about,
        )


def retrieve(
    prior: EpisodeStore,
    target: EpisodeStore,
    config: RetrievalConfig,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> Retrieval:
    """Weigh the steps of `prior` by their likeness to `target`.

    Args:
        prior: The large store.
        target: The store with few demonstrations of the task.
        config: How.
        progress: Called after each step of the VAE's training with its number and loss.

    Raises:
        DatasetError: The stores do not fit each other, or hold numbers that are not finite.
        ConfigError: The configuration does not fit the data.
    """
    prior_z, target_z = _embeddings(prior, target, config, progress)
    found, _ = nearest(prior_z, target_z, k=config.n_neighbours)
    distances = found.mean(dim=1)
    score = _log_importance(prior_z, target_z, config.seed) if config.method == "importance" else -distances
    kept = _kept(score, config)
    weights = kept.float()
    if config.method == "importance":
        limit = score[kept].quantile(1 - config.cut)
        weights = weights * (score.clamp(max=limit) - limit).exp()
    return Retrieval(
        config=config,
        prior=prior,
        target=target,
        prior_z=prior_z,
        target_z=target_z,
        distances=distances.numpy(),
        weights=weights.numpy(),
    )


def _embeddings(
    prior: EpisodeStore,
    target: EpisodeStore,
    config: RetrievalConfig,
    progress: Callable[[int, float], None] | None,
) -> tuple[Tensor, Tensor]:
    observation = common_observation(prior, target, config.observation)
    steps = read_vectors((prior, target), observation, window=config.window, image_size=config.image_size)
    if config.embedding == "raw":
        if steps[0].images is not None:
            raise ConfigError(
                "embedding=raw cannot compare images; use embedding=vae, or name observations without them"
            )
        latents = [s.states for s in steps]
    else:
        vae = fit_vae(steps[0], config.vae, seed=config.seed, progress=progress)
        latents = [embed(vae, s) for s in steps]
        scale = latents[0].square().mean().sqrt().clamp(min=1e-6)
        latents = [z / scale for z in latents]
    parts = [
        torch.cat([z, config.action_weight * s.actions], dim=1) for z, s in zip(latents, steps, strict=True)
    ]
    return parts[0], parts[1]


def _log_importance(prior_z: Tensor, target_z: Tensor, seed: int) -> Tensor:
    """ln(p_target / p_prior) at each prior step, (T,)."""
    scale = prior_z.std(dim=0).clamp(min=1e-6)
    queries = prior_z / scale
    some = torch.randperm(len(queries), generator=torch.Generator().manual_seed(seed))[:DENSITY_POINTS]
    ratio = queries.new_zeros(len(queries))
    for points, sign in ((target_z / scale, 1.0), (queries[some], -1.0)):
        width = scott_bandwidth(len(points), points.shape[1])
        ratio += sign * log_density(queries, points, bandwidth=width)
    return ratio


def _kept(score: Tensor, config: RetrievalConfig) -> Tensor:
    """Which steps are used, (T,) bool."""
    if config.threshold is not None:
        likeness = (score - score.min()) / (score.max() - score.min()).clamp(min=1e-12)
        return likeness >= config.threshold
    fraction = (
        config.fraction if config.fraction is not None else (FRACTION if config.method == "nearest" else 1.0)
    )
    n = max(1, round(fraction * len(score)))
    kept = torch.zeros(len(score), dtype=torch.bool)
    kept[score.argsort(descending=True, stable=True)[:n]] = True
    return kept
