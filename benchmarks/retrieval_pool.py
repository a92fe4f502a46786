"""The data of benchmarks/retrieval.py: few demonstrations of PushT, and a large store of which a quarter helps.

Every draw divides the 206 human demonstrations anew. A source of the pool is the beginning of its episodes' names:

    target      10 demonstrations
    useful      60 others of the same task
    turned      60 others, the whole table turned by 90, 180 or 270 degrees: the same skill towards another goal
    noisy       60 failures: demonstrations repeated in simulation with a wandering error on their actions
    wandering   60 failures: the disc goes to random places

All positions lie inside the same walls and all motions obey the same physics, so nothing but the behaviour tells the
sources apart. The goal is not part of the observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, ENVIRONMENT_STATE, STATE
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter

SOURCES = ("useful", "turned", "noisy", "wandering")
N_TARGET = 10
N_PER_SOURCE = 60
SIDE = 512.0  # of the table [px]
FULL_STATE = "observation.full_state"
KEPT = (STATE, ENVIRONMENT_STATE, ACTION)
ERROR_SCALE = 70.0  # standard deviation of the error of `noisy` [px]
ERROR_MEMORY = 0.9  # share of the error that is left a step later
FAILED_BELOW = 0.7  # largest reward of an episode that counts as failed
WANDER_STEPS = 125  # about as long as a demonstration


def build(store: EpisodeStore, draw: int, folder: Path) -> tuple[Path, Path]:
    """Write ``target.zarr`` and ``prior.zarr`` of one draw; returns both paths.

    Args:
        store: The converted human demonstrations.
        draw: Seeds the division and the failures.
        folder: Where the stores appear; what is there already is kept.
    """
    order = np.random.default_rng(draw).permutation(store.n_episodes)
    target, prior = folder / "target.zarr", folder / "prior.zarr"
    if not target.exists():
        _write(store, target, (_demonstration(store, e, "target") for e in order[:N_TARGET]))
    if not prior.exists():
        _write(store, prior, _prior(store, order[N_TARGET:], draw))
    return target, prior


def _write(store: EpisodeStore, path: Path, episodes: Iterator[Episode]) -> None:
    features = {name: store.features[name] for name in KEPT}
    with EpisodeStoreWriter(
        path, features=features, fps=float(store.fps), embodiment=store.embodiment
    ) as writer:
        for episode in episodes:
            writer.add_episode(episode)
        writer.publish()


def _prior(store: EpisodeStore, left: NDArray[np.int64], draw: int) -> Iterator[Episode]:
    useful, turned, rest = np.split(left, [N_PER_SOURCE, 2 * N_PER_SOURCE])
    for e in useful:
        yield _demonstration(store, e, "useful")
    for k, e in enumerate(turned):
        yield _demonstration(store, e, "turned", quarters=1 + k % 3)
    yield from _failures(store, rest, draw)


def _rows(store: EpisodeStore, episode: int, name: str) -> NDArray[np.float32]:
    return np.asarray(store.column(name)[store.episode_starts[episode] : store.episode_ends[episode]])


def turn(points: NDArray[np.float32], quarters: int) -> NDArray[np.float32]:
    """Turn positions (..., 2 n) [px], stored as x, y pairs, about the table's centre by quarter turns."""
    pairs = points.reshape(*points.shape[:-1], -1, 2) - SIDE / 2
    for _ in range(quarters):
        pairs = np.stack([-pairs[..., 1], pairs[..., 0]], axis=-1)
    return (pairs + SIDE / 2).reshape(points.shape).astype(np.float32)


def _demonstration(store: EpisodeStore, episode: int, source: str, quarters: int = 0) -> Episode:
    data = {name: turn(_rows(store, episode, name), quarters) for name in KEPT}
    return Episode(source_id=f"{source}/{episode:03d}", data=data, success=True)


def _failures(store: EpisodeStore, demonstrations: NDArray[np.int64], draw: int) -> Iterator[Episode]:
    """Episodes of the simulator that do not bring the block home, drawn until there are enough of each."""
    rng = np.random.default_rng([draw, 1])
    for source in ("noisy", "wandering"):
        kept = attempt = 0
        while kept < N_PER_SOURCE:
            episode = int(demonstrations[attempt % len(demonstrations)])
            attempt += 1
            start = _rows(store, episode, FULL_STATE)[0]
            if source == "noisy":
                recorded = _rows(store, episode, ACTION)
                actions = recorded + _errors(rng, len(recorded))
            else:
                actions = _wandering(rng)
            data, best = _played(start, actions)
            if best < FAILED_BELOW:
                yield Episode(source_id=f"{source}/{kept:03d}", data=data, success=False)
                kept += 1


def _errors(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """A wandering error (n, 2) [px] of standard deviation `ERROR_SCALE`."""
    errors = np.empty((n, 2))
    error = rng.normal(scale=ERROR_SCALE, size=2)
    for row in errors:
        error = ERROR_MEMORY * error + rng.normal(scale=ERROR_SCALE * (1 - ERROR_MEMORY**2) ** 0.5, size=2)
        row[:] = error
    return errors


def _wandering(rng: np.random.Generator) -> NDArray[np.float64]:
    """Straight lines (WANDER_STEPS, 2) [px] between random places, 12 steps each."""
    places = rng.uniform(40, SIDE - 40, (WANDER_STEPS // 12 + 2, 2))
    at = np.arange(WANDER_STEPS) / 12
    return np.stack([np.interp(at, np.arange(len(places)), places[:, axis]) for axis in (0, 1)], axis=1)


def _played(start: NDArray[np.float32], actions: NDArray[np.floating]) -> tuple[dict[str, np.ndarray], float]:
    """Carry out actions in simulation; the features of the episode and its largest reward."""
    from robot_sim.registry import make_task

    env = make_task("pusht")
    observation, _ = env.reset(options={"state": start})
    columns: dict[str, list[np.ndarray]] = {name: [] for name in KEPT}
    best = 0.0
    for action in actions.clip(0, SIDE).astype(np.float32):
        for name in (STATE, ENVIRONMENT_STATE):
            columns[name].append(observation[name])
        columns[ACTION].append(action)
        observation, reward, done, _, _ = env.step(action)
        best = max(best, reward)
        if done:
            break
    env.close()
    return {name: np.stack(rows).astype(np.float32) for name, rows in columns.items()}, best
