r"""Make a sampler's result agree with part of a given chunk: inpainting by pseudo-inverse guidance.

Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", ICLR 2023, as used for real-time
chunking (Black, Galliker and Levine, 2025, arXiv 2506.07339), here for every process and sampler.

With the unified noisy chunk x = alpha a + sigma n of `robot_policies.denoising.processes`, a target Y with weights
W in [0, 1], and the network's data estimate D(x), a sampler sees

    D'(x) = D(x) + gain J^T (W (Y - D(x))),   J = dD/dx,   gain = min((alpha^2 + sigma^2) / alpha, beta (alpha + sigma))

where J^T is the vector-Jacobian product of the whole estimate (network, parameterisation and scaling), by automatic
differentiation. The gain follows from p(a | x) having variance sigma^2 / (alpha^2 + sigma^2), which is exact for data
of unit variance: there D' = Y wherever W = 1, at every noise level. beta caps it where alpha is small: samplers with
few steps would otherwise diverge.

For rectified flow (alpha = tau, sigma = 1 - tau, v = (D - x) / (1 - tau)) this is equation 2 of the paper,
v' = v + min(beta, (1 - tau) / (tau r^2)) J^T W (Y - D) with r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2), up to
tau = 1 - 1 / beta. From there on the paper's cap bites once more; ours does not. It is harmless with five even steps,
but a grid with many small noise levels (EDM's) is where the result is decided, and the paper's cap would leave
the frozen steps almost free there; docs/executors.md has figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robot_policies.denoising.processes import Levels


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What a chunk has to agree with.

    Attributes:
        target: Y, (B, T, A) in normalised units.
        weights: W, (B, T, 1) in [0, 1]; a row of zeros is not guided.
        limit: beta.
    """

    target: Tensor
    weights: Tensor
    limit: float

    def __call__(self, estimate: Callable[[Tensor], Tensor], x: Tensor, levels: Levels) -> Tensor:
        """D'(x) for ``estimate`` = D at one noise level; see the module docstring.

        `x` and what `estimate` reads must not be inference tensors (``torch.inference_mode``): they are recorded
        for differentiation.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            data = estimate(x)
            error = self.weights * (self.target - data.detach())
            (pull,) = torch.autograd.grad((data * error).sum(), x)
        alpha, sigma = levels.alpha, levels.sigma
        gain = torch.minimum((alpha**2 + sigma**2) / alpha, self.limit * (alpha + sigma))
        return data.detach() + gain * pull
