"""Several processes, one run: the world that torchrun or ``accelerate launch`` describes in the environment."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from robot_datasets.errors import UserError


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def agree(self, signum: int, cpu_seconds: float) -> tuple[int, float]:
        """Largest stop signal and CPU time over all processes, so that all decide alike."""
        if self.size == 1:
            return signum, cpu_seconds
        values = torch.tensor([float(signum), cpu_seconds], dtype=torch.float64, device=self.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return int(values[0]), float(values[1])

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of each value over all processes; all must pass the same names."""
        if self.size == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.size).tolist(), strict=True))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def join_world(device: str) -> World:
    """Join the processes of this run, if a launcher started several.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<n>``; with several processes, ``cuda`` and ``auto`` give
            each one its own GPU.

    Raises:
        UserError: The device does not exist here.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    chosen = find_device(device, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        # Not at the end of a run: a group cannot be formed twice, and a process may train several policies.
        atexit.register(dist.destroy_process_group)
    return World(rank=rank, size=size, device=chosen)


def find_device(name: str, *, local_rank: int = 0) -> torch.device:
    """Return the device meant by `name`; see `join_world`."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if n_gpus else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device: unknown device '{name}'; expected auto, cpu, cuda or cuda:<n>") from error
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if (device.index or 0) >= n_gpus:
            raise UserError(
                f"device: '{device}' is not there, torch sees {n_gpus} GPU(s); use device=cpu or another"
            )
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UserError(f"device: '{name}' is not supported; expected auto, cpu, cuda or cuda:<n>")
    return device
