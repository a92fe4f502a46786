"""A Panda, a table and a cube in MuJoCo, in step with real time: what the surrogate's node drives."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from robot_deploy.surrogate.audit import CommandAudit
from robot_deploy.surrogate.controllers import Controller
from robot_sim.joint_servo import ARM_JOINTS, FINGER_JOINT
from robot_sim.tasks.lift_joint import JointLiftTask

JOINTS = (*ARM_JOINTS, FINGER_JOINT)
_MAX_LAG_NS = 200_000_000
"""Simulated time may lag so far behind; what is beyond is skipped, as a real arm's clock would not wait [ns]."""


class SurrogateArm:
    """Steps the simulation up to now and feeds it what the controllers want.

    Attributes:
        task: The scene.
        audit: Judges what the arm was told.
        skipped_ns: Time that was not simulated, because the machine was too slow [ns].
    """

    def __init__(
        self,
        controllers: Sequence[Controller],
        audit: CommandAudit,
        *,
        cameras: tuple[str, ...] = (),
        size: int = 84,
    ) -> None:
        """Build the scene.

        Args:
            controllers: Together they have each of `JOINTS` once.
            audit: Judges what the arm is told.
            cameras: Cameras to render.
            size: Side of their images [px].
        """
        self.task = JointLiftTask(cameras=cameras, image_size=size)
        self._cameras, self._size = cameras, size
        self._controllers, self.audit = controllers, audit
        self._place = [[JOINTS.index(joint) for joint in c.joints] for c in controllers]
        self.skipped_ns = 0
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Put arm and cube where the episode `seed` starts; the controllers hold."""
        self.task.reset(seed=seed)
        positions = self.task.servo.positions
        for controller, place in zip(self._controllers, self._place, strict=True):
            controller.hold(positions[place])
        self.audit.forget()
        self._reached_ns = time.monotonic_ns()
        self.lifted = False

    def advance(self, now_ns: int, clock_offset_ns: int) -> None:
        """Simulate up to now.

        Args:
            now_ns: Monotonic time [ns].
            clock_offset_ns: Clock of the stamps minus monotonic time [ns].
        """
        servo = self.task.servo
        step_ns = round(servo.time_step * 1e9)
        if now_ns - self._reached_ns > _MAX_LAG_NS:
            skip = now_ns - self._reached_ns - _MAX_LAG_NS
            self.skipped_ns += skip
            self._reached_ns += skip
        steps = (now_ns - self._reached_ns) // step_ns
        if steps <= 0:
            return
        times = self._reached_ns + np.arange(1, 2 * steps + 1) * (
            step_ns // 2
        )  # the audit looks every millisecond
        motion = self.commanded(times + clock_offset_ns)
        self.audit.look(times, motion)
        # Not a number commands a motor to do nothing sensible; the simulation must survive to be read.
        q, v, a = (np.nan_to_num(part[1::2], posinf=0.0, neginf=0.0) for part in motion)
        for row in range(steps):
            servo.step(q[row, :7], v[row, :7], a[row, :7], float(np.clip(q[row, 7], 0.0, 0.04)))
        self._reached_ns += steps * step_ns
        self.task._scene.synchronise()
        self.lifted = self.lifted or self.task._scene.lifted

    def commanded(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What all controllers together want (T, 8) at times (T,) in the clock of the stamps [ns]."""
        q, v, a = (np.zeros((len(times_ns), len(JOINTS))) for _ in range(3))
        for controller, place in zip(self._controllers, self._place, strict=True):
            q[:, place], v[:, place], a[:, place] = controller.path(times_ns)
        return q, v, a

    def image(self, camera: str) -> np.ndarray:
        """What a camera sees, (size, size, 3) uint8."""
        return self.task._draw(camera, self._size)

    def close(self) -> None:
        """Free the simulation."""
        self.task.close()
