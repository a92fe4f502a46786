"""Pictures drawn by worker processes: frames per second grow with the cores.

Each worker compiles the scene and makes its own OpenGL context after it was spawned (contexts do not survive a fork),
then draws the states it is sent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from robot_sim.mujoco_tasks.simulation import TaskSimulation, View
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.rendering import RenderingError, choose_backend
from robot_sim.vector.cameras import Kind, Painter, empty_pictures
from robot_sim.worker_environment import environment_variables

WAIT_S = 300.0  # a first picture takes seconds: the scene is compiled, and the context made


@dataclass(frozen=True, kw_only=True)
class TaskFactory:
    """Builds a task in another process.

    Attributes:
        build: A module-level function.
        options: Its keyword arguments.
    """

    build: Callable[..., MujocoTask]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> MujocoTask:
        """Build the task."""
        return self.build(**self.options)


class WorkerCameras:
    """Draws in worker processes; close it, or use it as a context.

    Args:
        factory: Builds the task whose pictures are wanted.
        workers: Number of processes.

    Raises:
        RenderingError: When drawing: a worker could not draw, or ended.
    """

    def __init__(self, factory: TaskFactory, *, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected >= 1, got {workers}")
        choose_backend()
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        # llvmpipe would start threads for every core in every worker.
        with environment_variables({"LP_NUM_THREADS": "0", "OMP_NUM_THREADS": "1"}):
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, factory, os.getpid()), daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)

    def __enter__(self) -> WorkerCameras:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def draw(
        self, simulation: TaskSimulation, rows: np.ndarray, camera: str, size: int, kind: Kind = "rgb"
    ) -> np.ndarray:
        """Return pictures of the environments `rows`."""
        pictures = empty_pictures(len(rows), size, kind)
        shares = np.array_split(np.arange(len(rows)), len(self._pipes))
        for pipe, share in zip(self._pipes, shares, strict=True):
            if len(share):
                views = [simulation.view(int(row)) for row in rows[share]]
                self._talk(pipe.send, (views, camera, size, kind))
        for pipe, share in zip(self._pipes, shares, strict=True):
            if len(share):
                pictures[share] = self._answer(pipe)
        return pictures

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # it has ended already
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []

    def _answer(self, pipe: Connection) -> np.ndarray:
        if not pipe.poll(WAIT_S):
            self.close()
            raise RenderingError(f"a drawing process was silent for {WAIT_S:.0f} s; try fewer workers")
        answer = self._talk(pipe.recv)
        if isinstance(answer, str):
            self.close()
            raise RenderingError(answer)
        return answer

    def _talk(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (EOFError, OSError) as error:
            self.close()
            raise RenderingError(
                "a drawing process ended; out of memory? try fewer workers, or draw in this process"
            ) from error


def _work(pipe: Connection, factory: TaskFactory, parent: int) -> None:
    painter: Painter | None = None
    try:
        while os.getppid() == parent:
            if not pipe.poll(1.0):  # so that a killed parent leaves no process behind
                continue
            request = pipe.recv()
            if request is None:
                break
            views, camera, size, kind = request
            try:
                painter = painter or Painter(factory())
                pipe.send(_paint(painter, views, camera, size, kind))
            except Exception as error:  # noqa: BLE001  (the boundary: told to the parent, in one line)
                pipe.send(f"drawing in a worker failed: {error}")
    except (EOFError, OSError, KeyboardInterrupt):  # the parent is gone, or interrupts both
        pass
    finally:
        if painter is not None:
            painter.close()


def _paint(painter: Painter, views: list[View], camera: str, size: int, kind: Kind) -> np.ndarray:
    pictures = empty_pictures(len(views), size, kind)
    for picture, view in zip(pictures, views, strict=True):
        view.show(painter.model, painter.data, painter.task.visual_model)
        picture[...] = painter.paint(camera, size, kind)
    return pictures
