"""The node's side of the inference process: starts it, asks it, and knows at once when it is gone."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_deploy.inference.block import ObservationBlock
from robot_deploy.inference.messages import receive, send, socket_pair
from robot_deploy.observation.rings import Reason
from robot_deploy.observation.window import Problem
from robot_deploy.runtime_config import ChunkRequest
from robot_policies.spec import PolicySpec

LOAD_TIMEOUT_S = 180.0


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """What the process is told.

    Attributes:
        checkpoint: Checkpoint or run directory.
        embodiment: Of a policy trained on several.
        device: ``cpu`` or ``cuda``.
        threads: 0 leaves it to torch.
        sampler: Replaces the policy's.
        seed: Of its noise; together with the number of the request it fixes a chunk's noise.
        instruction: What a language-conditioned policy is told.
        executor: The executor's configuration, for warming up what it will ask for.
    """

    checkpoint: str
    embodiment: str | None = None
    device: str = "cpu"
    threads: int = 1
    sampler: Mapping[str, Any] | None = None
    seed: int = 0
    instruction: str = ""
    executor: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a request.

    Attributes:
        ticket: The request's.
        chunk: (T_p, A), or None.
        problems: Why the observation could not be used.
        failed: Why there is no chunk; the process may be gone.
        predict_ms: Time the policy took [ms].
        prepare_ms: Time the process took beyond that: copying and decoding [ms].
        asked_ns: Monotonic time of the request [ns].
    """

    ticket: int
    chunk: np.ndarray | None = None
    problems: tuple[Problem, ...] = ()
    failed: str = ""
    predict_ms: float = float("nan")
    prepare_ms: float = float("nan")
    asked_ns: int = 0


class InferenceProcess:
    """One running process.

    Attributes:
        spec: The policy's, as its checkpoint says.
        sha256: Hash of the weights.
        latencies_ms: Of the warm-up [ms].
    """

    def __init__(self, config: InferenceConfig, *, environment: Mapping[str, str] | None = None) -> None:
        """Start the process and wait until the policy is loaded and warm.

        Args:
            config: What to load.
            environment: Of the process; None inherits.

        Raises:
            UserError: The checkpoint cannot be used; the message says why.
        """
        self._connection, theirs = socket_pair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "robot_deploy.inference.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
            )
        finally:
            theirs.close()
        self._thread: threading.Thread | None = None
        self._asked: dict[int, int] = {}
        self._block: ObservationBlock | None = None
        self._closing = False
        try:
            self._connection.settimeout(LOAD_TIMEOUT_S)
            send(self._connection, dict(vars(config)))
            loaded = self._expect("spec")
            self.spec = PolicySpec.from_dict(loaded["spec"])
            self.sha256, self.latencies_ms = str(loaded["sha256"]), list(loaded["latencies_ms"])
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def _expect(self, key: str) -> dict[str, Any]:
        try:
            message = receive(self._connection)
        except TimeoutError as error:
            raise UserError(
                f"inference: not ready after {LOAD_TIMEOUT_S:g} s; try the checkpoint with 'robot-policies eval'"
            ) from error
        if message is None:
            raise UserError(f"inference: the process ended with status {self._process.wait(timeout=10)}")
        if key not in message:
            raise UserError(str(message.get("failed", f"inference: expected '{key}', got {sorted(message)}")))
        return message

    def serve(
        self,
        max_bytes: Mapping[str, int],
        images: Mapping[str, Mapping[str, Any]],
        answered: Callable[[Answer], None],
    ) -> None:
        """Share memory with the process and begin to listen.

        Args:
            max_bytes: Image feature -> largest frame [bytes].
            images: Image feature -> ``source``, ``min_contrast``, ``resize``.
            answered: Called in another thread for every answer, and once if the process ends.
        """
        self._block = ObservationBlock(self.spec, max_bytes)
        message = json.dumps({"max_bytes": dict(max_bytes), "images": dict(images)}).encode()
        socket.send_fds(self._connection, [message], [self._block.descriptor])
        self._expect("ready")
        self._connection.settimeout(None)
        self._thread = threading.Thread(target=self._listen, args=(answered,), name="inference", daemon=True)
        self._thread.start()

    def ask(self, request: ChunkRequest) -> None:
        """Hand over a request; at most one is open, because both sides use the same memory.

        Raises:
            UserError: The process is gone, or a frame is too large.
        """
        assert self._block is not None
        arrays = self._block.arrays
        for name, values in request.window.arrays.items():
            arrays[name][...] = values
        for name, frames in request.window.frames.items():
            for row, frame in enumerate(frames):
                if len(frame) > arrays[name].shape[1]:
                    raise UserError(f"{name}: a frame of {len(frame)} bytes, at most {arrays[name].shape[1]}")
                arrays[name][row, : len(frame)] = np.frombuffer(frame, dtype=np.uint8)
                arrays[f"{name}/sizes"][row] = len(frame)
        plan = request.continuation
        if plan is not None:
            arrays["plan"][...], arrays["weights"][...] = plan.actions, plan.weights
        self._asked[request.ticket] = time.monotonic_ns()
        try:
            send(self._connection, {"ticket": request.ticket, "limit": None if plan is None else plan.limit})
        except OSError as error:
            raise UserError(f"inference: the process is gone ({error.strerror})") from error

    def _listen(self, answered: Callable[[Answer], None]) -> None:
        while True:
            try:
                message = receive(self._connection)
            except (OSError, ValueError):
                message = None
            if message is None:
                break
            answered(self._answer(message))
        if not self._closing:
            try:
                ended = f"the process ended with status {self._process.wait(timeout=1.0)}"
            except subprocess.TimeoutExpired:
                ended = "the process closed its connection"
            answered(Answer(ticket=-1, failed=ended))

    def _answer(self, message: Mapping[str, Any]) -> Answer:
        ticket = int(message.get("ticket") or 0)
        asked = self._asked.pop(ticket, 0)
        if "failed" in message:
            return Answer(ticket=ticket, failed=str(message["failed"]), asked_ns=asked)
        if "problem" in message:
            problem = Problem(
                source=str(message["source"]),
                reason=Reason(message["problem"]),
                detail=str(message["detail"]),
            )
            return Answer(ticket=ticket, problems=(problem,), asked_ns=asked)
        assert self._block is not None
        return Answer(
            ticket=ticket,
            chunk=self._block.arrays["chunk"].copy(),
            predict_ms=float(message["predict_ms"]),
            prepare_ms=float(message["prepare_ms"]),
            asked_ns=asked,
        )

    def close(self) -> None:
        """End the process."""
        self._closing = True
        with contextlib.suppress(OSError):  # it is gone already
            self._connection.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self._connection.close()
        if self._block is not None:
            self._block.close()
