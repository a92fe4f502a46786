r"""The embedding of behavior retrieval: a variational autoencoder of single steps.

Du, Nair, Sadigh and Finn, "Behavior Retrieval: Few-Shot Imitation Learning by Querying Unlabeled Datasets", RSS 2023
(arXiv 2304.08742). For a step x = (o, a) of the prior data

    loss = |o - o'|^2 + |a - a'|^2 + |images - images'|^2 + beta KL(q(z | x) || N(0, I))        each a mean

and the embedding is [mean of q(z | x) / r ; w a]: the action is appended once more, so that two steps of one scene
with different actions are never alike. r is the rms of the means over the prior, which puts the latent on the scale of
the standardised actions; w is `action_weight`. The original appends raw actions in whatever unit they have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_policies.configuration import ConfigError
from robot_policies.retrieval.vectors import StepVectors

EMBEDDED_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """Sizes and training of a `StepVae`.

    Attributes:
        latent: Size of z.
        width: Width of the two hidden layers of encoder and decoder.
        beta: Weight of the KL term.
        steps: Optimiser steps.
        batch_size: Steps per batch.
        lr: Learning rate of AdamW.
    """

    latent: int = 16
    width: int = 128
    beta: float = 1e-4
    steps: int = 5000
    batch_size: int = 256
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.latent, self.width, self.steps, self.batch_size) < 1 or self.lr <= 0 or self.beta < 0:
            raise ConfigError("embedding needs sizes and steps >= 1, lr > 0 and beta >= 0")


def _mlp(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, n_out)
    )


class StepVae(nn.Module):
    """Encoder and decoder of a step; images, if there are any, through small convolutions."""

    def __init__(self, config: VaeConfig, like: StepVectors) -> None:
        super().__init__()
        self.config = config
        n_seen = 0
        self.image_in: nn.Module | None = None
        self.image_out: nn.Module | None = None
        if like.images is not None:
            channels, size = like.images.shape[1], like.images.shape[-1] // 8
            n_seen, width = 64 * size * size, config.width
            self.image_in = nn.Sequential(
                *(nn.Conv2d(channels, 32, 4, 2, 1), nn.GELU(), nn.Conv2d(32, 64, 4, 2, 1), nn.GELU()),
                *(nn.Conv2d(64, 64, 4, 2, 1), nn.GELU(), nn.Flatten()),
            )
            self.image_out = nn.Sequential(
                *(nn.Linear(config.latent, width), nn.GELU(), nn.Linear(width, n_seen)),
                *(nn.Unflatten(1, (64, size, size)), nn.ConvTranspose2d(64, 64, 4, 2, 1), nn.GELU()),
                *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(32, channels, 4, 2, 1)),
            )
        n_low = like.states.shape[1] + like.actions.shape[1]
        self.encoder = _mlp(n_low + n_seen, config.width, 2 * config.latent)
        self.decoder = _mlp(config.latent, config.width, n_low)

    def encode(self, steps: StepVectors) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (N, latent)."""
        parts = [steps.states, steps.actions]
        if self.image_in is not None and steps.images is not None:
            parts.append(self.image_in(_scaled(steps.images)))
        mean, log_variance = self.encoder(torch.cat(parts, dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)

    def loss(self, steps: StepVectors) -> Tensor:
        """The training loss; draws from torch's global generator."""
        mean, log_variance = self.encode(steps)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        states, actions = self.decoder(z).split([steps.states.shape[1], steps.actions.shape[1]], dim=1)
        loss = F.mse_loss(actions, steps.actions)
        if steps.states.shape[1]:
            loss = loss + F.mse_loss(states, steps.states)
        if self.image_out is not None and steps.images is not None:
            loss = loss + F.mse_loss(self.image_out(z), _scaled(steps.images))
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        return loss + self.config.beta * kl


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1.0


def fit_vae(
    prior: StepVectors,
    config: VaeConfig,
    *,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> StepVae:
    """Train a `StepVae` on the prior's steps; the same seed gives the same weights.

    Args:
        prior: The steps to learn from.
        config: Sizes and training.
        seed: Seeds weights, batches and noise.
        progress: Called after each optimiser step with its number and loss.
    """
    if prior.images is not None and prior.images.shape[-1] % 8:
        raise ConfigError(f"image_size must be divisible by 8, got {prior.images.shape[-1]}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = StepVae(config, prior)
        optimiser = torch.optim.AdamW(vae.parameters(), lr=config.lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        for step in range(config.steps):
            loss = vae.loss(prior.rows(torch.randint(len(prior), (config.batch_size,))))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, float(loss.detach()))
    return vae.eval()


@torch.no_grad()
def embed(vae: StepVae, steps: StepVectors) -> Tensor:
    """Posterior means (N, latent)."""
    blocks = torch.arange(len(steps)).split(EMBEDDED_AT_ONCE)
    return torch.cat([vae.encode(steps.rows(block))[0] for block in blocks])
