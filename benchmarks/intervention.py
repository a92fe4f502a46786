"""Does a policy learn from a person who stepped in? Lift with injected failures, and a scripted person.

    python benchmarks/intervention.py --out runs/intervention

1. A policy is trained on few demonstrations of `lift`.
2. It is run on training seeds. In every episode the hand is thrown off its path once (`Throw`): a failure that no
   demonstration shows. A scripted person waits, takes over when the policy has not succeeded in time, brings the hand
   back over the cube (RECOVERY), and lifts it (CORRECTION). Every step is tagged with who moved the arm, and the
   tags are segments of the episode store.
3. The policy is fine-tuned, from the same weights and for as many steps, on
   * ``human``: demonstrations, and only what the person did,
   * ``all``: demonstrations, and everything that was recorded, the policy's failures included,
   * ``demos``: demonstrations alone, which shows what more training does.
4. All are judged on the same held-out seeds with the same failures, and without any.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_datasets.episode import Episode, Segment
from robot_datasets.features import ACTION, ENVIRONMENT_STATE, STATE
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_policies.checkpoint import load_policy
from robot_policies.evaluation.inference import episode_generator
from robot_policies.evaluation.observation_history import ObservationHistory
from robot_policies.evaluation.statistics import wilson_interval
from robot_policies.execution import build_executor
from robot_policies.policy import Policy

VARIANTS: dict[str, list[str] | None] = {"human": ["recovery", "correction"], "all": [], "demos": None}
HOVER = 0.06  # hand over the cube at which the person's recovery ends [m]
BESIDE = 0.015  # and how far beside it may be [m]


@dataclass(frozen=True)
class Throw:
    """A failure: for some steps the hand is driven sideways and down with the gripper shut, whatever is asked for.

    Attributes:
        start: First step.
        end: One past the last step.
        action: (7,) what is executed.
    """

    start: int
    end: int
    action: np.ndarray

    @classmethod
    def of_seed(cls, seed: int, length: int) -> Throw:
        """The failure of an episode; the same for every policy."""
        random = np.random.default_rng([seed, 77])
        start, angle = int(random.integers(8, 20)), random.uniform(0.0, 2.0 * np.pi)
        action = np.array([np.cos(angle), np.sin(angle), -0.4, 0.0, 0.0, 0.0, 1.0], dtype=np.float32)
        return cls(start, start + length, action)


def play(
    env: Any, policy: Policy, seed: int, *, throw: Throw | None, person: Any = None, patience: int = 0
) -> tuple[bool, dict[str, np.ndarray], list[str]]:
    """One episode; return whether it succeeded, what was recorded, and each step's tag."""
    history = ObservationHistory(policy.spec)
    executor = build_executor(None, policy.spec)
    generator = episode_generator(seed, 0)
    observation, _ = env.reset(seed=seed)
    history.reset(observation)
    if person is not None:
        person.reset(env, seed)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in (STATE, ENVIRONMENT_STATE, ACTION)}
    tags: list[str] = []
    success, tag = False, "policy"
    for step in range(env.task_spec.max_steps):
        if executor.needs_chunk():
            window = {name: torch.from_numpy(value[None]) for name, value in history.window().items()}
            chunk = policy.predict_chunk(window, generator=generator)
            executor.push(chunk.actions[0].numpy(), computed_for_step=executor.step)
        action = executor.next_action()
        thrown = throw is not None and throw.start <= step < throw.end
        if person is not None and throw is not None and step >= throw.end + patience:
            tag = next_tag(tag, observation)
            action = person.act(observation)
        if thrown and throw is not None:
            action = throw.action
        for name in (STATE, ENVIRONMENT_STATE):
            kept[name].append(observation[name])
        kept[ACTION].append(np.asarray(action, dtype=np.float32))
        tags.append("failure" if thrown else tag)
        observation, _, terminated, truncated, info = env.step(action)
        history.append(observation)
        success = success or bool(info["is_success"])
        if terminated or truncated:
            break
    return success, {name: np.stack(rows) for name, rows in kept.items()}, tags


def next_tag(tag: str, observation: Mapping[str, np.ndarray]) -> str:
    """RECOVERY until the hand is over the cube, CORRECTION from there on."""
    x, y, z = observation[ENVIRONMENT_STATE][7:10]
    over = np.hypot(x, y) < BESIDE and -z > HOVER - BESIDE
    return "correction" if tag == "correction" or over else "recovery"


def segments_of(tags: list[str]) -> list[Segment]:
    """Runs of equal tags."""
    edges = [0, *(i for i in range(1, len(tags)) if tags[i] != tags[i - 1]), len(tags)]
    return [Segment(a, b, tags[a]) for a, b in itertools.pairwise(edges)]


def record(env: Any, policy: Policy, expert: Any, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the policy with failures and a person, and write what happened to a store."""
    counts = {"episodes": 0, "taken over": 0, "succeeded": 0}
    spec = env.task_spec
    features = {name: f for name, f in spec.features.items() if name in (STATE, ENVIRONMENT_STATE, ACTION)}
    with EpisodeStoreWriter(path, features=features, fps=spec.fps, embodiment=spec.embodiment) as writer:
        for seed in range(5000, 5000 + args.interventions):
            success, data, tags = play(
                env,
                policy,
                seed,
                throw=Throw.of_seed(seed, args.throw),
                person=expert,
                patience=args.patience,
            )
            counts["episodes"] += 1
            counts["taken over"] += "recovery" in tags or "correction" in tags
            counts["succeeded"] += success
            writer.add_episode(
                Episode(
                    f"seed-{seed}", data, task=spec.instruction, success=success, segments=segments_of(tags)
                )
            )
        writer.publish()
    return counts


def train_policy(out: Path, dataset: list[str], *, steps: int, seed: int, init_from: str = "") -> Path:
    """Train, or find what an interrupted run has trained."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    config = compose_config(
        "train",
        [
            "+experiment=lift_demo", *dataset, f"seed={seed}", f"init_from={init_from}", f"output_dir={out}",
            f"trainer.steps={steps}", "trainer.val_every=0", "dataset.val_ratio=0", "trainer.tensorboard=false",
            f"trainer.checkpoint_every={steps}", "policy.network.width=256",
            *(["trainer.lr=3e-4"] if init_from else []),
        ],
        examples=(),
    )  # fmt: skip
    return train(config)


def mixture(demos: Path, recorded: Path, tags: list[str] | None) -> list[str]:
    """The dataset of one variant, as the command line would say it."""
    stores = [f"{{path: {demos}}}"]
    if tags is not None:
        chosen = f", segments: [{', '.join(tags)}]" if tags else ""
        stores.append(f"{{path: {recorded}{chosen}}}")
    return ["dataset.path=''", f"dataset.mixture=[{', '.join(stores)}]", "dataset.statistics=pooled"]


def judge(env: Any, checkpoint: Path, args: argparse.Namespace) -> dict[str, list[bool]]:
    """Success on held-out seeds, with and without failures."""
    policy = load_policy(checkpoint).policy
    seeds = range(env.task_spec.seed_start, env.task_spec.seed_start + args.episodes)
    thrown = [play(env, policy, s, throw=Throw.of_seed(s, args.throw))[0] for s in seeds]
    quiet = [play(env, policy, s, throw=None)[0] for s in seeds[: args.quiet_episodes]]
    return {"with failures": thrown, "without": quiet}


def main() -> None:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--demos", type=int, default=20)
    parser.add_argument("--base-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--interventions", type=int, default=30)
    parser.add_argument("--throw", type=int, default=12, help="length of a failure [steps]")
    parser.add_argument("--patience", type=int, default=25, help="steps that the person waits")
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--quiet-episodes", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--until", choices=("base", "all"), default="all", help="stop after judging the base policy"
    )
    args = parser.parse_args()
    from robot_sim.generate import GenerationPlan, generate
    from robot_sim.registry import make_expert, make_task

    torch.set_num_threads(1)
    began = time.process_time()
    args.out.mkdir(parents=True, exist_ok=True)
    demos, recorded, log = args.out / "demos.zarr", args.out / "interventions.zarr", args.out / "results.json"
    results: dict[str, Any] = json.loads(log.read_text()) if log.exists() else {}
    generate(GenerationPlan(task="lift", episodes=args.demos), demos, workers=0)
    base = train_policy(args.out / "base", [f"dataset.path={demos}"], steps=args.base_steps, seed=0)
    env, expert = make_task("lift"), make_expert("lift")

    def keep(name: str, make: Any) -> None:
        if name not in results:
            results[name] = make()
            log.write_text(json.dumps(results), encoding="utf-8")
            print(
                f"{name}: {shown(results[name])} ({time.process_time() - began:.0f} s CPU so far)", flush=True
            )

    keep("base", lambda: judge(env, base, args))
    if args.until == "base":
        return
    if not recorded.exists():
        keep("recorded", lambda: record(env, load_policy(base).policy, expert, recorded, args))
    store = EpisodeStore.open(recorded)
    lengths: dict[str, int] = {}
    for segments in store.episodes["segments"]:
        for segment in segments:
            lengths[segment.tag] = lengths.get(segment.tag, 0) + segment.end - segment.start
    print(f"steps by tag: {lengths}", flush=True)
    for seed in range(args.seeds):
        for name, tags in VARIANTS.items():
            out = args.out / f"{name}-{seed}"
            data = mixture(demos, recorded, tags)
            keep(
                f"{name}-{seed}",
                lambda out=out, data=data, seed=seed: judge(
                    env, train_policy(out, data, steps=args.steps, seed=seed, init_from=str(base)), args
                ),
            )
    for name in ("base", *VARIANTS):
        runs = [r for key, r in results.items() if key == name or key.startswith(f"{name}-")]
        for kind in ("with failures", "without"):
            outcomes = [x for run in runs for x in run[kind]]
            rates = ", ".join(f"{np.mean(run[kind]):.2f}" for run in runs)
            print(f"{name:8} {kind:14} {shown_rate(outcomes)}   by training: {rates}")


def shown(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    return ", ".join(f"{k}: {shown_rate(v) if isinstance(v, list) else v}" for k, v in result.items())


def shown_rate(outcomes: list[bool]) -> str:
    """Rate, interval and counts."""
    rate = wilson_interval(sum(outcomes), len(outcomes))
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] ({sum(outcomes)} of {len(outcomes)})"


if __name__ == "__main__":
    main()
