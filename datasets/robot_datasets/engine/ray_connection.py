"""Connecting to Ray: a cluster that is there, or one of this machine's own for as long as it is needed."""

from __future__ import annotations

import os
from typing import Any

from robot_datasets.errors import DatasetError


class RayConnection:
    """A connection to the cluster that ``RAY_ADDRESS`` names, or to one that is started on this machine.

    Attributes:
        ray: The module.
    """

    def __init__(self, *, cores: int, instead: str) -> None:
        """Connect, unless this process is connected already.

        Args:
            cores: Of a cluster that has to be started.
            instead: What to do without Ray, for errors, e.g. ``"use --executor process"``.

        Raises:
            DatasetError: Ray is not installed or cannot be reached.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise DatasetError(
                f"Ray is not installed; pip install 'robot-policies[distributed]', or {instead}"
            ) from error
        self.ray: Any = ray
        self._started = not ray.is_initialized()
        if not self._started:
            return
        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {} if address else {"num_cpus": cores, "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DatasetError(f"cannot connect to Ray ({error}); check RAY_ADDRESS, or {instead}") from error

    def close(self) -> None:
        """End the connection, and the cluster with it, if it was made here."""
        if self._started:
            self.ray.shutdown()
