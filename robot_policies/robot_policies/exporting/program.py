r"""A sampler as a table of numbers: what to feed the network, and how to combine what it answers.

Every sampler of `robot_policies.denoising` is linear in the noise it draws and in its data estimates; what is not
linear is the network and the clipping of each estimate. With noise draws n_0, n_1, ... and estimates D_0, D_1, ...,
call k of the network is

    x   = sum of row_k[j] * basis_j           basis: n_0, n_1, ..., D_0, ..., D_{k-1}
    F   = network(scale_k x, time_k, encoded observation)
    D_k = clip(keep_k x + take_k clip(skip_k x + out_k F))

and the chunk is the sum of result[j] * basis_j, clipped too, in normalised units. So the table stands for any of the
samplers, and a machine that runs it knows nothing of noise processes. `keep` and `take` (0 and 1 otherwise) are the
boundary condition of a consistency model. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot_datasets.errors import UserError


class ExportError(UserError):
    """A policy cannot be exported, or an exported folder cannot be used."""


@dataclass(frozen=True, kw_only=True)
class NetworkCall:
    """One call of the network; see the module docstring for the names.

    Attributes:
        row: Coefficients over the noise draws, then over the estimates before this one.
        scale: Factor of the network's input.
        time: The network's time.
        skip: Share of x in the estimate.
        out: Share of the network's output in it.
        keep: Share of x in what is kept of the estimate.
        take: Share of the estimate in it.
    """

    row: tuple[float, ...]
    scale: float
    time: float
    skip: float
    out: float
    keep: float = 0.0
    take: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SamplingProgram:
    """A whole sampler; see the module docstring.

    Attributes:
        n_draws: Noise draws, each (T_p, A) standard normal numbers.
        calls: The network's calls, in order.
        result: Coefficients of the chunk over noise draws and estimates.
        clip: Bound of every estimate in normalised units; None for none.
        clip_result: Bound of the chunk in normalised units; None for none.
    """

    n_draws: int
    calls: tuple[NetworkCall, ...]
    result: tuple[float, ...]
    clip: float | None
    clip_result: float | None

    def __post_init__(self) -> None:
        lengths = [len(call.row) for call in self.calls] + [len(self.result)]
        if not self.calls or lengths != [self.n_draws + k for k in range(len(self.calls) + 1)]:
            raise ExportError(
                f"a sampling program of {self.n_draws} draws and {len(self.calls)} calls has rows of {lengths}; "
                "the file is damaged, export the policy again"
            )

    def run(self, network: Callable[[np.ndarray, np.ndarray], np.ndarray], noise: np.ndarray) -> np.ndarray:
        """Carry the program out, in double precision but for the network.

        Args:
            network: From input (1, T_p, A) float32 and time (1,) float32 to output (1, T_p, A).
            noise: (n_draws, T_p, A) standard normal numbers.

        Returns:
            The chunk (T_p, A) float64 in normalised units.
        """
        basis = [np.asarray(draw, dtype=np.float64) for draw in noise]
        shape = noise.shape[1:]
        for call in self.calls:
            x = _combined(call.row, basis, shape)
            output = network(
                (call.scale * x)[None].astype(np.float32), np.array([call.time], dtype=np.float32)
            )[0].astype(np.float64)
            estimate = _clipped(call.skip * x + call.out * output, self.clip)
            if (call.keep, call.take) != (0.0, 1.0):
                estimate = _clipped(call.keep * x + call.take * estimate, self.clip)
            basis.append(estimate)
        return _clipped(_combined(self.result, basis, shape), self.clip_result)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingProgram:
        """Build from `to_dict`'s mapping.

        Raises:
            ExportError: It is none.
        """
        try:
            calls = tuple(
                NetworkCall(**{**call, "row": tuple(map(float, call["row"]))}) for call in values["calls"]
            )
            return cls(
                n_draws=int(values["n_draws"]),
                calls=calls,
                result=tuple(map(float, values["result"])),
                clip=_bound(values["clip"]),
                clip_result=_bound(values["clip_result"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(
                f"the sampling program cannot be read ({error!r}); export the policy again"
            ) from error


def _combined(row: tuple[float, ...], basis: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    total = np.zeros(shape)
    for weight, part in zip(row, basis, strict=True):
        if weight:
            total += weight * part
    return total


def _clipped(x: np.ndarray, bound: float | None) -> np.ndarray:
    return x if bound is None else np.clip(x, -bound, bound)


def _bound(value: Any) -> float | None:
    return None if value is None else float(value)
