"""How fast is an exported policy, and how near to its checkpoint? One table, all formats side by side in one run.

    python benchmarks/export_latency.py --checkpoint runs/lift_demo/train
    python benchmarks/export_latency.py                      # small policies with random weights, of every network

A chunk for one robot, one thread, observations in RAM to actions in RAM. Calls of all formats alternate, so that what
else runs on the machine disturbs all of them alike. Times are wall times; `CPU` is what the calls cost in processor
time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_policies.checkpoint import LoadedPolicy, load_policy
from robot_policies.exporting.export import arrays_of, checkpoint_chunk, export_policy
from robot_policies.exporting.graphs import example_arguments
from robot_policies.exporting.program import ExportError
from robot_policies.exporting.runner import ExportedPolicy
from robot_policies.exporting.tracing import network_policy, trace_program
from robot_policies.policies import build_policy
from robot_policies.testing import example_spec, example_stats

RESNET = {
    "type": "resnet",
    "stage_channels": [16, 32, 64],
    "blocks_per_stage": 1,
    "n_keypoints": 16,
    "out_dim": 32,
}
EDM, DDIM = {"type": "edm"}, {"type": "ddim", "steps": 10}
EXAMPLES: dict[str, tuple[dict[str, Any], bool]] = {
    "mlp": ({"type": "mlp", "width": 512, "n_blocks": 3}, False),
    "unet1d": ({"type": "unet1d", "down_dims": [64, 128]}, False),
    "transformer": ({"type": "transformer", "width": 128, "n_layers": 4, "n_heads": 4}, False),
    "mlp and a camera": ({"type": "mlp", "width": 512, "n_blocks": 3}, True),
}


def example_policy(name: str) -> LoadedPolicy:
    """A policy with random weights."""
    network, images = EXAMPLES[name]
    config = {
        "type": "diffusion", "network": network, "process": EDM, "sampler": DDIM,
        **({"image_encoder": RESNET} if images else {}),
    }  # fmt: skip
    torch.manual_seed(0)
    spec = example_spec(images=images)
    policy = build_policy(config, spec, example_stats(spec)).eval()
    return LoadedPolicy(
        policy=policy,
        config={"policy": config},
        spec=policy.spec,
        stats={},
        dataset_card={},
        sha256="",
        path=Path(),
    )


def measure(loaded: LoadedPolicy, formats: list[str], *, calls: int, folder: Path) -> list[dict[str, Any]]:
    """Export to every format and time all of them, eager torch included."""
    rows: list[dict[str, Any]] = []
    inner = network_policy(loaded.policy)
    inputs, _ = example_arguments(inner, seed=1)
    seen, goal = arrays_of(inner, inputs)
    callables: dict[str, Callable[[int], Any]] = {}
    errors: dict[str, float] = {}
    sizes: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for format in formats:
        began = time.process_time()
        try:
            errors |= export_policy(loaded, folder / format, formats=[format], parity_samples=8)
        except ExportError as error:
            print(f"  {format}: {error}", file=sys.stderr)
            continue
        seconds[format] = time.process_time() - began
        runner = ExportedPolicy.load(folder / format, format=format, threads=1)
        sizes[format] = sum(path.stat().st_size for path in (folder / format).iterdir()) / 1e6
        callables[format] = lambda k, r=runner: r.predict(seen, goal=goal, rng=np.random.default_rng(k))
    n_draws = trace_program(loaded.policy, None).n_draws
    callables = {
        "eager torch": lambda k: checkpoint_chunk(loaded.policy, inputs, None, n_draws=n_draws, seed=k),
        **callables,
    }
    torch.set_num_threads(1)
    wall: dict[str, list[float]] = {name: [] for name in callables}
    spent = dict.fromkeys(callables, 0.0)
    for call in range(calls + 5):
        for name, run in callables.items():
            began, cpu = time.perf_counter(), time.process_time()
            run(call)
            if call >= 5:
                wall[name].append(1e3 * (time.perf_counter() - began))
                spent[name] += 1e3 * (time.process_time() - cpu)
    for name, times in wall.items():
        p50, p99 = np.percentile(times, [50, 99])
        rows.append(
            {
                "format": name, "p50 [ms]": p50, "p99 [ms]": p99, "CPU [ms]": spent[name] / calls,
                "largest error": errors.get(name, 0.0), "MB": sizes.get(name, 0.0),
                "export [s CPU]": seconds.get(name, 0.0),
            }
        )  # fmt: skip
    return rows


def main() -> int:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="run or checkpoint directory; otherwise small random policies")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--format", action="append", choices=("onnx", "torchscript", "aotinductor"))
    parser.add_argument("--only", choices=tuple(EXAMPLES), action="append", help="of the random policies")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    formats = arguments.format or ["onnx", "torchscript", "aotinductor"]
    if arguments.checkpoint:
        loaded = {arguments.checkpoint: load_policy(arguments.checkpoint)}
    else:
        loaded = {name: example_policy(name) for name in arguments.only or EXAMPLES}
    results: dict[str, Any] = {}
    print(
        "| policy | format | p50 [ms] | p99 [ms] | CPU [ms] | eager / this | largest error | MB | export [s CPU] |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, policy in loaded.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(policy, formats, calls=arguments.calls, folder=Path(folder))
        results[name] = rows
        for row in rows:
            ratio = rows[0]["CPU [ms]"] / row["CPU [ms]"]
            print(
                f"| {name} | {row['format']} | {row['p50 [ms]']:.2f} | {row['p99 [ms]']:.2f} | {row['CPU [ms]']:.2f} | "
                f"{ratio:.2f} | {row['largest error']:.1e} | {row['MB']:.1f} | {row['export [s CPU]']:.0f} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
