"""Behavior retrieval on PushT: does it find the useful part of a mixed store, and does that help a policy?

    robot-policies convert pusht_cchi_v7_replay.zarr.zip pusht.zarr
    python benchmarks/retrieval.py pusht.zarr --draws 0 1 2

Each draw divides the human demonstrations anew into 10 of the task and a pool (benchmarks/retrieval_pool.py): 60 more
of the task, 60 towards other goals, 120 failures. The same small policy (diffusion, an MLP) is trained for the same
number of steps on

    target      the 10 demonstrations alone
    mixed       half of each batch from them, half from the whole pool (naive mixing)
    retrieved   half from what is nearest (Behavior Retrieval: 20 % of the pool)
    weighted    half from the pool in proportion to importance weights (IWR)
    oracle      half from the useful demonstrations, which only the benchmark knows

and judged on the same held-out initial states. The interval is a 95 % bootstrap over initial states of the average over
draws; every draw's own figure stands beside it. Rerun to resume: what is finished is kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import retrieval_pool as pool

from robot_datasets.selection import Selection
from robot_datasets.store import EpisodeStore

#: Options of the retrieval by name; `nearest` and `importance` are the ones that policies are trained with.
RETRIEVALS: dict[str, dict[str, Any]] = {
    "nearest": {"window": 8},
    "nearest-transitions": {"window": 1},
    "nearest-raw": {"window": 8, "embedding": "raw"},
    "importance": {"window": 8, "method": "importance"},
}
TITLES = {
    "nearest": "nearest, windows of 8, VAE",
    "nearest-transitions": "nearest, transitions, VAE (the paper's)",
    "nearest-raw": "nearest, windows of 8, no VAE",
    "importance": "importance weights, windows of 8, VAE",
}
ARMS = {
    "target": "target only",
    "mixed": "target + whole pool (naive mixing)",
    "retrieved": "target + retrieved (Behavior Retrieval)",
    "weighted": "target + pool by importance weights (IWR)",
    "oracle": "target + useful episodes (oracle)",
}
SELECTION_OF = {"retrieved": "nearest", "weighted": "importance"}
BATCH = 256
POLICY = (
    "policy=diffusion_mlp_ddpm",
    "policy.network.width=256",
    "policy.network.n_blocks=2",
    "sampler.steps=5",
    "trainer=default",
    f"trainer.batch_size={BATCH}",
    "trainer.lr=1.0e-3",
    "trainer.warmup_fraction=0.05",
    "trainer.val_every=0",
    "trainer.checkpoint_every=100000",
    "trainer.tensorboard=false",
    "trainer.threads=1",
)


def retrieve_all(target: Path, prior: Path, folder: Path, vae_steps: int) -> dict[str, Any]:
    """Selections of one draw by every way of `RETRIEVALS`, their counts by source, and the oracle."""
    from robot_policies.retrieval.report import source_labels, summarise, write_report
    from robot_policies.retrieval.retrieve import RetrievalConfig, retrieve

    record = folder / "retrieval.json"
    if record.exists():
        return json.loads(record.read_text())
    stores = EpisodeStore.open(prior), EpisodeStore.open(target)
    results: dict[str, Any] = {}
    for name, options in RETRIEVALS.items():
        began = time.process_time()
        values = {**options, "vae": {"steps": vae_steps}}
        found = retrieve(*stores, RetrievalConfig.parse(values))
        seconds = time.process_time() - began
        found.selection().save(folder / f"{name}.npz")
        results[name] = {**summarise(found), "cpu_seconds": seconds}
        if name in SELECTION_OF.values():
            write_report(found, folder / f"{name}.html", command=f"RETRIEVALS['{name}']")
        logging.info("%s: %s", folder.name, _shares(results[name]))
    useful = np.array([label.startswith("useful") for label in source_labels(stores[0])])
    weights = np.repeat(useful, np.diff(stores[0].episode_ends, prepend=0)).astype(np.float32)
    oracle = Selection(
        fingerprint=stores[0].fingerprint, weights=weights, distances=np.full_like(weights, np.nan)
    )
    oracle.save(folder / "oracle.npz")
    record.write_text(json.dumps(results))
    return results


def _shares(summary: dict[str, Any]) -> dict[str, float]:
    """Share of all draws by source."""
    return {source["name"]: source["weight"] for source in summary["sources"]}


def train_arm(arm: str, folder: Path, steps: int, draw: int) -> Path:
    """Train the policy on one arm's data, or continue it; returns the run directory."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    run = folder / f"{arm}-{steps}"
    if (run / "finished").exists():
        return run
    target, prior = folder / "target.zarr", folder / "prior.zarr"
    if arm == "target":
        data = [f"dataset.path={target}"]
    else:
        file = folder / f"{SELECTION_OF.get(arm, arm)}.npz"
        chosen = "" if arm == "mixed" else f", selection: {file}"
        data = ["dataset=retrieval", f"dataset.mixture=[{{path: {target}}}, {{path: {prior}{chosen}}}]"]
    features = f"dataset.observation=[{pool.STATE},{pool.ENVIRONMENT_STATE}]"
    overrides = ["+experiment=pusht", *POLICY, *data, features, "dataset.val_ratio=0"]
    overrides += [f"trainer.steps={steps}", "trainer.time_budget_cpu_minutes=null", f"seed={draw}"]
    train(compose_config("train", [*overrides, f"output_dir={run}"]))
    (run / "finished").touch()
    return run


def judge(run: Path, seeds: range) -> dict[str, Any]:
    """Score and success of a training on every seed; kept beside the run."""
    from robot_policies.checkpoint import load_policy
    from robot_policies.evaluation.evaluate import evaluate_policy

    path = run / f"pusht_{seeds.start}_{len(seeds)}.json"
    if path.exists():
        return json.loads(path.read_text())
    policy = load_policy(run / "checkpoints" / "last").policy
    results = evaluate_policy(policy, "pusht", seeds, workers=0, n_envs=len(seeds))
    record = {
        "score": [r.score for r in results],
        "success": [float(r.success) for r in results],
        "parameters": policy.n_parameters(),
    }
    path.write_text(json.dumps(record))
    return record


def run_draw(
    store: EpisodeStore, draw: int, seeds: range, args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One draw: its retrieval, and every arm judged."""
    folder = args.output / f"draw{draw}"
    folder.mkdir(parents=True, exist_ok=True)
    target, prior = pool.build(store, draw, folder)
    found = retrieve_all(target, prior, folder, args.vae_steps)
    judged = {}
    for arm in () if args.retrieve_only else ARMS:
        judged[arm] = judge(train_arm(arm, folder, args.steps, draw), seeds)
        logging.info("draw %d, %s: %.3f", draw, arm, np.mean(judged[arm]["score"]))
    return found, judged


def precision_table(found: Sequence[dict[str, Any]]) -> list[str]:
    """Share of all draws that goes to each source, mean over draws, with the range of the useful one."""
    lines = [
        "| retrieval | " + " | ".join(pool.SOURCES) + " | useful, each draw | CPU s |",
        "|---" * (len(pool.SOURCES) + 3) + "|",
    ]
    steps = [{s["name"]: s["steps"] for s in f["nearest"]["sources"]} for f in found]
    whole = [{name: n / sum(s.values()) for name, n in s.items()} for s in steps]
    rows = [("whole pool", whole, "")]
    for name, title in TITLES.items():
        cost = f"{np.mean([f[name]['cpu_seconds'] for f in found]):.0f}"
        rows.append((title, [_shares(f[name]) for f in found], cost))
    for title, shares, cost in rows:
        cells = " | ".join(f"{100 * np.mean([s.get(n, 0.0) for s in shares]):.0f} %" for n in pool.SOURCES)
        each = ", ".join(f"{100 * s['useful']:.0f}" for s in shares)
        lines.append(f"| {title} | {cells} | {each} | {cost} |")
    return lines


def score_table(judged: Sequence[dict[str, Any]], steps: int) -> list[str]:
    """Score and success by arm, with the gains over target-only and naive mixing on the same initial states."""
    from robot_policies.evaluation.statistics import bootstrap_mean, paired_difference

    mean = {arm: np.mean([j[arm]["score"] for j in judged], axis=0) for arm in ARMS}
    lines = [
        "| data | score [95 %] (each draw) | strict success [95 %] | gain over target only | over naive mixing |",
        "|---|---|---|---|---|",
    ]
    for arm, title in ARMS.items():
        score = bootstrap_mean(mean[arm])
        success = bootstrap_mean(np.mean([j[arm]["success"] for j in judged], axis=0))
        each = ", ".join(f"{np.mean(j[arm]['score']):.2f}" for j in judged)
        gains = []
        for other in ("target", "mixed"):
            gain = paired_difference(mean[other], mean[arm])
            gains.append("" if arm == other else f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        lines.append(
            f"| {title} | **{score.value:.3f}** [{score.low:.3f}, {score.high:.3f}] ({each}) "
            f"| {success.value:.3f} [{success.low:.3f}, {success.high:.3f}] | {gains[0]} | {gains[1]} |"
        )
    parameters = judged[0]["target"]["parameters"]
    return [*lines, "", f"Policy: {parameters / 1e6:.2f} M parameters, {steps} steps of {BATCH} windows."]


def main(argv: list[str] | None = None) -> int:
    """Retrieve, train, judge, and write tables and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="the converted demonstrations")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2500, help="optimiser steps of each training")
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes per training")
    parser.add_argument("--first-seed", type=int, default=100_000, help="first evaluation seed")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark_retrieval"))
    parser.add_argument("--retrieve-only", action="store_true", help="train no policy")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store, seeds = EpisodeStore.open(args.store), range(args.first_seed, args.first_seed + args.episodes)
    draws = [run_draw(store, draw, seeds, args) for draw in args.draws]
    found, judged = [d[0] for d in draws], [d[1] for d in draws]
    if args.retrieve_only:
        logging.info("%s", "\n".join(precision_table(found)))
        return 0
    from retrieval_plot import plot

    plot(args.output, args.draws[0], found, judged)
    command = "python benchmarks/retrieval.py pusht.zarr " + " ".join((argv or sys.argv[1:])[1:])
    lines = [*precision_table(found), "", *score_table(judged, args.steps), "", f"`{command}`", ""]
    text = "\n".join([*lines, f"Python {platform.python_version()}, one thread."])
    (args.output / "table.md").write_text(text + "\n")
    logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
