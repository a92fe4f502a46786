"""The process that computes: loads a checkpoint, then answers one request after the other.

``python -m robot_deploy.inference.worker SOCKET`` with the descriptor of a connected socket. It ends when its
parent does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_datasets.errors import UserError, describe_unexpected
from robot_datasets.features import is_image
from robot_deploy.garbage import settle
from robot_deploy.inference.block import ObservationBlock
from robot_deploy.inference.messages import receive, send
from robot_deploy.observation.raw_image import frame_pixels

_PR_SET_PDEATHSIG = 1
_WARM_UP = 5


class PolicyServer:
    """A loaded policy and the memory it is asked through."""

    def __init__(self, hello: Mapping[str, Any]) -> None:
        """Load the checkpoint.

        Args:
            hello: ``checkpoint``, ``embodiment``, ``device``, ``threads``, ``sampler``, ``seed``, ``instruction``,
                ``executor``.

        Raises:
            UserError: The checkpoint, its sampler or the executor does not fit.
        """
        from robot_policies.checkpoint_folder import find_checkpoint

        find_checkpoint(hello["checkpoint"])  # a wrong path is told before the seconds that torch takes

        import torch

        from robot_policies.checkpoint import load_policy

        if hello["threads"]:
            torch.set_num_threads(int(hello["threads"]))
        self._torch, self._hello = torch, hello
        self._device = torch.device(hello["device"])
        loaded = load_policy(hello["checkpoint"], device=hello["device"], embodiment=hello["embodiment"])
        self.policy, self.spec, self.sha256 = loaded.policy, loaded.spec, loaded.sha256
        if self.spec.goal and not self.spec.either_goal:
            raise UserError(
                f"the policy wants to be shown a goal ({', '.join(self.spec.goal)}), which no topic of a robot says; "
                "use a policy without one, or one that is told in words"
            )
        if self.spec.instructed and not hello["instruction"]:
            raise UserError("the policy is told its task in words; set 'instruction'")
        self._warm_up()
        self.block: ObservationBlock | None = None

    def _warm_up(self) -> None:
        from robot_policies.evaluation.inference import episode_generator, try_prediction
        from robot_policies.execution import build_executor

        episode_generator(0, 0)  # the first one loads numpy.random, which takes longer than many a prediction
        executor = build_executor(self._hello["executor"], self.spec)
        self.latencies_ms: list[float] = []
        for _ in range(_WARM_UP):
            began = time.perf_counter()
            try_prediction(
                self.policy, sampler=self._hello["sampler"], device=self._device, executor=executor
            )
            self.latencies_ms.append(1e3 * (time.perf_counter() - began))

    def attach(self, message: Mapping[str, Any], descriptor: int) -> None:
        """Take the memory; `message` holds ``max_bytes`` and ``images`` (contrast and resizing by feature)."""
        self.block = ObservationBlock(self.spec, message["max_bytes"], descriptor)
        self._images: Mapping[str, Any] = message["images"]

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Predict one chunk into the shared memory; `request` holds ``ticket`` and ``limit`` (or None)."""
        from robot_policies.evaluation.episode import ChunkRequest
        from robot_policies.evaluation.inference import episode_generator, predict
        from robot_policies.execution import Continuation

        assert self.block is not None
        arrays, began = self.block.arrays, time.perf_counter()
        observation: dict[str, np.ndarray] = {}
        for name in self.spec.observation:
            if not is_image(name):
                observation[name] = arrays[name].copy()
                continue
            frames = self._frames(name)
            if isinstance(frames, dict):
                return {"ticket": request["ticket"], **frames}
            observation[name] = frames
        continuation = None
        if request["limit"] is not None:
            continuation = Continuation(
                actions=arrays["plan"].copy(), weights=arrays["weights"].copy(), limit=request["limit"]
            )
        goal = {"task": self._hello["instruction"]} if self.spec.instructed else {}
        asked = ChunkRequest(step=0, observation=observation, continuation=continuation, goal=goal)
        generator = episode_generator(int(request["ticket"]), int(self._hello["seed"]))
        made = predict(self.policy, [asked], [generator], sampler=self._hello["sampler"], device=self._device)
        arrays["chunk"][...] = made.chunks[0]
        return {
            "ticket": request["ticket"],
            "predict_ms": 1e3 * made.latency_s,
            "prepare_ms": 1e3 * (time.perf_counter() - began - made.latency_s),
        }

    def _frames(self, name: str) -> np.ndarray | dict[str, Any]:
        """Decode the frames of a feature to (T_o, C, H, W), or say what is wrong with them."""
        from robot_datasets.image_fit import fit_image

        assert self.block is not None
        height, width, channels = self.spec.observation[name].shape
        about = self._images[name]
        decoded: list[np.ndarray] = []
        seen: tuple[bytes, np.ndarray] | None = None
        for row, size in zip(self.block.arrays[name], self.block.arrays[f"{name}/sizes"], strict=True):
            data = row[: int(size)].tobytes()
            if seen is None or seen[0] != data:
                try:
                    pixels = frame_pixels(data)
                    pixels = fit_image(pixels, (height, width)) if about["resize"] and height else pixels
                except UserError as error:
                    return {"problem": "wrong size", "source": about["source"], "detail": str(error)}
                if height and pixels.shape != (height, width, channels):
                    detail = f"{pixels.shape}, expected {(height, width, channels)}; or set resize"
                    return {"problem": "wrong size", "source": about["source"], "detail": detail}
                contrast = float(pixels.std())
                if contrast < about["min_contrast"]:
                    detail = f"contrast {contrast:.1f}, at least {about['min_contrast']:g}"
                    return {"problem": "blank image", "source": about["source"], "detail": detail}
                seen = (data, pixels)
            decoded.append(seen[1])
        return np.ascontiguousarray(np.stack(decoded).transpose(0, 3, 1, 2))


def _serve(connection: socket.socket) -> None:
    hello = receive(connection)
    if hello is None:
        return
    try:
        server = PolicyServer(hello)
    except UserError as error:
        send(connection, {"failed": " ".join(str(error).split())})
        return
    send(
        connection,
        {"spec": server.spec.to_dict(), "sha256": server.sha256, "latencies_ms": server.latencies_ms},
    )
    attach, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    if not attach:
        return
    import json

    server.attach(json.loads(attach), descriptors[0])
    settle()
    send(connection, {"ready": True})
    while (request := receive(connection)) is not None:
        try:
            answer = server.answer(request)
        except Exception as error:  # noqa: BLE001  (the robot stops, and the reason is told)
            answer = {"ticket": request.get("ticket"), "failed": describe_unexpected(error)}
        send(connection, answer)


def main() -> int:
    """Serve the connection given by its descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the node ends this process
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:  # inherited: a long computation must not hold up callbacks
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        _serve(connection)
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
