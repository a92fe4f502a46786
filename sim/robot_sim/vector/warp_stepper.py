"""Steps a batch with `mujoco_warp`, NVIDIA's MuJoCo for GPUs, in single precision.

States and inputs go to the device at the start of a `step` and states come back at its end; the physics steps in
between run there, on a GPU as one captured CUDA graph each. Without a GPU Warp runs the same kernels on one CPU core,
much slower than MuJoCo does: good for tests of this module, for nothing else.

Contacts and constraints live in buffers of a fixed size. If one overflows, the result is thrown away, the buffers are
enlarged, and the steps are made again from where they started: no contact is ever dropped.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_sim.engine import mujoco
from robot_sim.vector.layout import STATE_SPEC, split_inputs
from robot_sim.vector.stepper import Batch
from robot_sim.vector.warp_model import WarpModel

logger = logging.getLogger(__name__)

wp: Any = importlib.import_module("warp")
mjw: Any = importlib.import_module("mujoco_warp")

MAX_VALUE = 1e10  # mjMAXVAL: MuJoCo calls a state with a larger number unstable
FIRST_CONTACTS, FIRST_ROWS = 64, 128  # per environment, to begin with
MAX_CONTACTS, MAX_ROWS = 8192, 32768  # per environment; more is taken for a mistake in the scene
# mujoco_warp drops a constraint of several rows before the last rows are used: the largest, a weld, has six.
SPARE_ROWS = 6


def _watch(
    qpos: Any, qvel: Any, act: Any, qacc: Any, qacc_warmstart: Any, nefc: Any, nacon: Any, ncollision: Any,
    qpos0: Any, lost: Any, peaks: Any,
) -> None:  # fmt: skip
    """Start unstable environments over, as MuJoCo does, and note them; note how full the buffers were."""
    world = wp.tid()
    bad = wp.int32(0)  # a variable of Warp's: a literal would be a constant
    for i in range(qpos.shape[1]):
        if not (wp.abs(qpos[world, i]) <= MAX_VALUE):  # true of NaN
            bad = 1
    for j in range(qvel.shape[1]):
        if not (wp.abs(qvel[world, j]) <= MAX_VALUE) or not (wp.abs(qacc[world, j]) <= MAX_VALUE):
            bad = 1
    for k in range(act.shape[1]):
        if not (wp.abs(act[world, k]) <= MAX_VALUE):
            bad = 1
    if bad == 1:
        lost[world] = 1
        for i in range(qpos.shape[1]):
            qpos[world, i] = qpos0[i]
        for j in range(qvel.shape[1]):
            qvel[world, j] = 0.0
            qacc_warmstart[world, j] = 0.0
        for k in range(act.shape[1]):
            act[world, k] = 0.0
    wp.atomic_max(peaks, 0, nefc[world])
    if world == 0:
        wp.atomic_max(peaks, 1, wp.max(nacon[0], ncollision[0]))


# Warp reads types, in the parameters' order, from annotations that no type checker would take.
_FLOATS, _COUNTS = wp.array2d(dtype=float), wp.array(dtype=int)
_watch.__annotations__ = {
    **dict.fromkeys(("qpos", "qvel", "act", "qacc", "qacc_warmstart"), _FLOATS),
    **dict.fromkeys(("nefc", "nacon", "ncollision"), _COUNTS),
    "qpos0": wp.array(dtype=float),
    **dict.fromkeys(("lost", "peaks"), _COUNTS),
}
_watch_kernel: Any = wp.kernel(_watch, enable_backward=False, module="unique")


class WarpStepper:
    """See the module's docstring, and `robot_sim.vector.stepper.Stepper`.

    Args:
        batch: What is stepped.
        device: Warp's name of a device; None is the first GPU, or the CPU where there is none.

    Attributes:
        device: Where it runs.
        contacts: Contacts per environment that buffers hold now; all environments share them.
        rows: Rows of constraints that buffers hold now, for each environment.

    Raises:
        UserError: No such device, or a model that cannot be stepped; see `robot_sim.vector.warp_model`.
    """

    def __init__(self, batch: Batch, *, device: str | None = None) -> None:
        self._batch, self._n_envs = batch, len(batch.models)
        self.device = _find_device(device)
        self.contacts, self.rows = FIRST_CONTACTS, FIRST_ROWS
        first = batch.models[0]
        with wp.ScopedDevice(self.device):
            self._model = WarpModel(batch.models)
            self._qpos0 = wp.array(first.qpos0, dtype=float)
            self._lost, self._peaks = wp.zeros(self._n_envs, dtype=int), wp.zeros(2, dtype=int)
        self._data: Any = None
        self._graph: Any = None
        self._stale = np.zeros(self._n_envs, dtype=bool)
        parked = mujoco.MjData(first)
        self._parked_state, self._parked_inputs = (
            np.empty((1, a.shape[1])) for a in (batch.states, batch.inputs)
        )
        mujoco.mj_getState(first, parked, self._parked_state[0], STATE_SPEC)
        mujoco.mj_getState(first, parked, self._parked_inputs[0], batch.input_spec)

    def step(self, rows: np.ndarray, n_steps: int) -> np.ndarray:
        """See `Stepper`; rows that became unstable are NaN.

        Raises:
            UserError: An environment has more contacts than any scene should.
        """
        batch = self._batch
        states, inputs, lost = self._prepared(rows)
        with wp.ScopedDevice(self.device):
            self._take_models()
            while True:
                if self._data is None:
                    self._allocate()
                self._upload(states, inputs)
                for _ in range(n_steps):
                    self._advance()
                if self._fits():
                    break
            after = np.concatenate(
                [array.numpy().reshape(self._n_envs, -1) for array in self._state_arrays()], axis=1
            )[rows].astype(np.float64)
            lost |= self._lost.numpy().astype(bool)
        steps = np.array([batch.models[i].opt.timestep for i in rows])
        time = batch.states[rows, 0]
        for _ in range(n_steps):  # as MuJoCo counts, and in double precision
            time = time + steps
        after = np.concatenate([time[:, None], after], axis=1)
        after[lost[rows]] = np.nan
        return after

    def touch(self, rows: np.ndarray | slice) -> None:
        """Look at the rows' models before the next step."""
        self._stale[rows] = True

    def close(self) -> None:
        """Free the device's memory."""
        self._data = self._graph = None

    def _prepared(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return states and inputs of all N environments, and which are unstable as they stand.

        Environments that do not move, or must not, stand in the model's initial state: one that flies apart would
        fill the buffers that all share.
        """
        batch = self._batch
        states = np.repeat(self._parked_state, self._n_envs, axis=0)
        inputs = np.repeat(self._parked_inputs, self._n_envs, axis=0)
        states[rows], inputs[rows] = batch.states[rows], batch.inputs[rows]
        # Larger numbers are instability to MuJoCo; here they would overflow in the solver, which then ignores them.
        lost = ~np.all(np.abs(np.concatenate([states, inputs], axis=1)) <= MAX_VALUE, axis=1)  # NaN too
        states[lost], inputs[lost] = self._parked_state, self._parked_inputs
        return states, inputs, lost

    def _take_models(self) -> None:
        stale = np.flatnonzero(self._stale)
        if len(stale) and self._model.refresh(stale):
            self._graph = None
        self._stale[:] = False

    def _allocate(self) -> None:
        model = self._batch.models[0]
        self._data = mjw.make_data(
            model,
            nworld=self._n_envs,
            nconmax=self.contacts,
            njmax=self.rows,
            njmax_nnz=self.rows * model.nv,  # full rows: this one cannot overflow
        )
        self._graph = None

    def _state_arrays(self) -> tuple[Any, ...]:
        return self._data.qpos, self._data.qvel, self._data.act

    def _upload(self, states: np.ndarray, inputs: np.ndarray) -> None:
        data, batch = self._data, self._batch
        if self.device.is_cuda and self._graph is None:
            self._capture()  # before the state is there, as a step is made for it
        start = 1
        data.time.assign(np.ascontiguousarray(states[:, 0], dtype=np.float32))
        for array in self._state_arrays():
            size = array.shape[1]
            array.assign(np.ascontiguousarray(states[:, start : start + size], dtype=np.float32))
            start += size
        for name, values in split_inputs(batch.models[0], inputs, batch.input_spec).items():
            kind = bool if name == "eq_active" else np.float32
            getattr(data, name).assign(np.ascontiguousarray(values, dtype=kind))
        data.qacc_warmstart.zero_()
        self._lost.zero_()
        self._peaks.zero_()

    def _advance(self) -> None:
        if self._graph is not None:
            wp.capture_launch(self._graph)
        else:
            self._launch()

    def _launch(self) -> None:
        data = self._data
        mjw.step(self._model.put, data)
        wp.launch(
            _watch_kernel,
            dim=self._n_envs,
            inputs=[
                *(data.qpos, data.qvel, data.act, data.qacc, data.qacc_warmstart),
                *(data.nefc, data.nacon, data.ncollision, self._qpos0),
            ],
            outputs=[self._lost, self._peaks],
        )

    def _capture(self) -> None:
        """Record one physics step as a CUDA graph; a step allocates, which a graph can do from a memory pool only."""
        if not wp.is_mempool_enabled(self.device):
            return
        self._launch()  # compiles and loads kernels, which must not happen while capturing
        with wp.ScopedCapture() as capture:
            self._launch()
        self._graph = capture.graph

    def _fits(self) -> bool:
        """Return whether the buffers were large enough; enlarge them if not."""
        rows, contacts = self._peaks.numpy().tolist()
        room = self.contacts * self._n_envs
        if rows + SPARE_ROWS <= self.rows and contacts <= room:
            return True
        more_rows, more_contacts = self.rows, self.contacts
        if rows + SPARE_ROWS > more_rows:
            more_rows = max(2 * more_rows, rows + SPARE_ROWS)
        if contacts > room:
            more_contacts = max(2 * more_contacts, -(-contacts // self._n_envs))
        if more_rows > MAX_ROWS or more_contacts > MAX_CONTACTS:
            raise UserError(
                f"backend 'warp': {rows} rows of constraints in one environment, {contacts} contacts or pairs of near "
                f"geoms in {self._n_envs}; there is room for {MAX_ROWS} and {MAX_CONTACTS} in each at most: simplify "
                "the collision geometry, or use backend='mujoco'"
            )
        self.rows, self.contacts, self._data = more_rows, more_contacts, None
        logger.info(
            "warp: buffers enlarged to %d contacts and %d rows of constraints per environment; the steps are repeated",
            self.contacts,
            self.rows,
        )
        return False


def _find_device(name: str | None) -> Any:
    wp.config.quiet = True  # the banner would stand in the middle of a program's output
    wp.init()
    if name is None:
        found = wp.get_cuda_devices()
        return found[0] if found else wp.get_device("cpu")
    try:
        return wp.get_device(name)
    except (ValueError, RuntimeError) as error:
        known = ", ".join(device.alias for device in wp.get_devices())
        raise UserError(f"backend 'warp' has no device '{name}'; available: {known}") from error
