"""Results of an evaluation: one record per episode, in a folder that survives any interruption.

Layout::

    protocol.json              what was evaluated and how; see `robot_policies.evaluation.protocol`
    results.jsonl              one line per episode, in the order of completion, only ever appended to
    trajectories/<seed>.npz    actions, rewards and latencies of the episode
    summary.json               the numbers of the report
    videos/  report.html
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import UserError
from robot_policies.configuration import ConfigError, from_mapping
from robot_policies.evaluation.episode import EpisodeOutcome
from robot_policies.evaluation.foresight import FOLDER, Foresight, write_arrays
from robot_policies.evaluation.protocol import differences

if TYPE_CHECKING:
    from robot_sim.task import TaskSpec

ARRAYS = ("actions", "rewards", "latencies_ms", "batch_sizes", "energies")


class ResultsError(UserError):
    """A results folder is missing, damaged, or belongs to another evaluation."""


def _array() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode, judged.

    Attributes:
        task: Task name.
        seed: Seed of the initial state and of the policy's noise.
        score: The task's score of this episode, in [0, 1]; 0 if it failed to finish.
        max_reward: Largest reward of the episode.
        sum_reward: Sum of rewards.
        success: Whether the task reported success at any step.
        success_step: First step with success, counted from 1; None if never.
        steps: Control steps carried out.
        wall_time_s: Time spent in the environment, without the policy [s].
        n_chunks: Chunks that the policy predicted.
        n_network_calls: Network forward passes of this episode, over all its chunks.
        policy_latency_ms: Mean wall time of the policy calls this episode took part in; a call serves a
            whole batch of environments [ms].
        failure: Empty, or why the episode did not finish, in one line.
        failure_details: Traceback of the failure.
        actions: (T, A) actions carried out. This and the other arrays are not part of the record.
        rewards: (T,) rewards.
        latencies_ms: (n_chunks,) wall time of each policy call [ms].
        batch_sizes: (n_chunks,) number of environments that each call served.
        energies: (n_chunks,) energy of each chunk; empty for policies that have none.
        foresight: Frames that the policy predicted, of the first few episodes; not part of the record either.
    """

    task: str
    seed: int
    score: float
    max_reward: float
    sum_reward: float
    success: bool
    success_step: int | None
    steps: int
    wall_time_s: float
    n_chunks: int
    n_network_calls: int
    policy_latency_ms: float | None
    failure: str = ""
    failure_details: str = ""
    actions: np.ndarray = field(default_factory=_array, repr=False, compare=False)
    rewards: np.ndarray = field(default_factory=_array, repr=False, compare=False)
    latencies_ms: np.ndarray = field(default_factory=_array, repr=False, compare=False)
    batch_sizes: np.ndarray = field(default_factory=_array, repr=False, compare=False)
    energies: np.ndarray = field(default_factory=_array, repr=False, compare=False)
    foresight: Foresight | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_outcome(
        cls,
        outcome: EpisodeOutcome,
        *,
        seed: int,
        task: TaskSpec,
        latencies_ms: np.ndarray,
        batch_sizes: np.ndarray,
        n_network_calls: int,
        energies: np.ndarray | None = None,
        foresight: Foresight | None = None,
    ) -> EpisodeResult:
        """Judge an outcome by the task's score. An episode that failed to finish scores 0."""
        finished = not outcome.failure
        success = finished and outcome.success_step is not None
        max_reward = float(outcome.rewards.max()) if len(outcome.rewards) else 0.0
        scores = {"max_reward": max_reward, "return": float(outcome.rewards.sum()), "success": float(success)}
        return cls(
            task=task.name,
            seed=seed,
            score=scores[task.score] if finished else 0.0,
            max_reward=max_reward,
            sum_reward=float(outcome.rewards.sum()),
            success=success,
            success_step=outcome.success_step,
            steps=len(outcome.rewards),
            wall_time_s=round(outcome.wall_time_s, 4),
            n_chunks=len(latencies_ms),
            n_network_calls=n_network_calls,
            policy_latency_ms=round(float(latencies_ms.mean()), 3) if len(latencies_ms) else None,
            failure=outcome.failure,
            failure_details=outcome.failure_details,
            actions=outcome.actions,
            rewards=outcome.rewards,
            latencies_ms=latencies_ms,
            batch_sizes=batch_sizes,
            energies=_array() if energies is None else energies,
            foresight=foresight,
        )

    def record(self) -> dict[str, Any]:
        """The JSON-ready record: every attribute but the arrays."""
        left_out = (*ARRAYS, "foresight")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}


class ResultsFolder:
    """A results folder on disk; see the module's layout."""

    def __init__(self, path: Path, protocol: Mapping[str, Any], results: Sequence[EpisodeResult]) -> None:
        """Use `open` or `read`."""
        self.path = path
        self.protocol = dict(protocol)
        self._results = {result.seed: result for result in results}

    @classmethod
    def open(
        cls, path: str | Path, protocol: Mapping[str, Any], *, resume: bool = True, overwrite: bool = False
    ) -> ResultsFolder:
        """Start a folder for `protocol`, or continue the one that is there.

        Raises:
            ResultsError: The folder holds results of another protocol, or results at all without `resume`.
        """
        folder = Path(path)
        if overwrite:
            _remove_results(folder)
        if not (folder / "protocol.json").exists():
            if (folder / "results.jsonl").exists():
                raise ResultsError(
                    f"{folder} holds results.jsonl without protocol.json; nobody can say what these results "
                    f"are of; choose another output_dir, or overwrite=true"
                )
            (folder / "trajectories").mkdir(parents=True, exist_ok=True)
            opened = cls(folder, protocol, [])
        else:
            opened = cls.read(folder)
            opened._check_same(protocol, resume=resume)
            opened.protocol = dict(protocol)
            _drop_torn_line(folder / "results.jsonl")
        write_json(folder / "protocol.json", opened.protocol)
        return opened

    @classmethod
    def read(cls, path: str | Path) -> ResultsFolder:
        """Read a folder without changing it.

        Raises:
            ResultsError: It is missing or damaged.
        """
        folder = Path(path)
        if not (folder / "protocol.json").is_file():
            raise ResultsError(
                f"{folder} holds no protocol.json; expected a folder written by 'robot-policies eval'; "
                f"check the path"
            )
        try:
            protocol = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{folder / 'protocol.json'} is not JSON ({error}); restore it") from error
        return cls(folder, protocol, [_with_arrays(r, folder) for r in _read_records(folder)])

    @property
    def results(self) -> list[EpisodeResult]:
        """Results of the protocol's seeds that are finished, in the protocol's order."""
        return [self._results[seed] for seed in self.protocol["seeds"] if seed in self._results]

    def missing_seeds(self) -> list[int]:
        """Seeds of the protocol that have no result yet."""
        return [seed for seed in self.protocol["seeds"] if seed not in self._results]

    def append(self, result: EpisodeResult) -> None:
        """Add a result; once this returns, it survives a crash."""
        arrays = {name: getattr(result, name) for name in ARRAYS}
        write_arrays(self.path / "trajectories" / f"{result.seed}.npz", arrays)
        if result.foresight is not None:
            result.foresight.save(self.path, result.seed)
        line = json.dumps(result.record(), allow_nan=False) + "\n"
        with (self.path / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._results[result.seed] = result

    def _check_same(self, protocol: Mapping[str, Any], *, resume: bool) -> None:
        changed = differences(self.protocol, protocol)
        if changed:
            shown = "; ".join(changed[:3]) + ("; ..." if len(changed) > 3 else "")
            raise ResultsError(
                f"{self.path} holds results of another protocol ({shown}); "
                f"choose another output_dir, or overwrite=true to start again"
            )
        if self._results and not resume:
            raise ResultsError(
                f"{self.path} already holds {len(self._results)} results; choose another output_dir, "
                f"resume=true to continue, or overwrite=true to start again"
            )


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file at once: the old one or the new one is there, never half of it."""
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(staging, path)


def _read_records(folder: Path) -> list[EpisodeResult]:
    path = folder / "results.jsonl"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    results = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            results.append(from_mapping(EpisodeResult, json.loads(line), where=f"line {number}"))
        except (ValueError, ConfigError) as error:
            raise ResultsError(
                f"{path}, line {number} is not a result ({error}); remove the line to run its seed again"
            ) from error
    return results


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end, left by a process that was killed while writing it."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _with_arrays(result: EpisodeResult, folder: Path) -> EpisodeResult:
    path = folder / "trajectories" / f"{result.seed}.npz"
    if not path.exists():
        return result
    try:
        with np.load(path, allow_pickle=False) as arrays:
            # Results of earlier versions have no energies.
            return replace(
                result, **{name: arrays[name] for name in ARRAYS if name in arrays or name != "energies"}
            )
    except (ValueError, KeyError, OSError) as error:
        raise ResultsError(
            f"{path} cannot be read ({error}); delete it, the results stay without its curves"
        ) from error


def _remove_results(folder: Path) -> None:
    """Remove what an evaluation writes, and nothing else."""
    for name in ("protocol.json", "results.jsonl", "summary.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in ("trajectories", "videos", FOLDER):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
