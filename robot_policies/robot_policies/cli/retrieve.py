"""``robot-policies retrieve``: choose what of a large dataset to train on, by likeness to a small one."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import add_json, command_parser, make_console, open_store

if TYPE_CHECKING:
    from robot_policies.retrieval.retrieve import RetrievalConfig

EPILOG = """examples:
  robot-policies retrieve prior.zarr target.zarr runs/retrieval
  robot-policies retrieve prior.zarr target.zarr runs/retrieval --window 8 --fraction 0.1
  robot-policies retrieve prior.zarr target.zarr runs/iwr --method importance

then train on both, half and half:
  robot-policies train dataset=retrieval 'dataset.mixture=[{path: target.zarr, weight: 1},
    {path: prior.zarr, weight: 1, selection: runs/retrieval/selection.npz}]'"""


def run(argv: Sequence[str]) -> int:
    """Write selection.npz, report.html and retrieval.json into a folder."""
    arguments = _parser().parse_args(list(argv))
    output = Path(arguments.output)
    if (output / "selection.npz").exists() and not arguments.overwrite:
        raise UserError(f"{output} already holds a selection; choose another folder, or pass --overwrite")
    from robot_policies.retrieval.report import write_report
    from robot_policies.retrieval.retrieve import retrieve

    config = _config(arguments)
    prior, target = open_store(arguments.prior), open_store(arguments.target)
    console = make_console(stderr=True)
    with console.status("embedding") as status:
        result = retrieve(
            prior,
            target,
            config,
            progress=lambda step, loss: status.update(
                f"embedding: step {step} of {config.vae.steps}, loss {loss:.3f}"
            ),
        )
    output.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["robot-policies", "retrieve", *argv])
    summary = write_report(result, output / "report.html", command=command)
    (output / "retrieval.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    result.selection().save(output / "selection.npz")
    if arguments.json:
        print(json.dumps(summary))
    else:
        _show(summary, output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "retrieve",
        "Weigh the steps of a large, mixed store by their likeness to a small one (behavior retrieval).",
        EPILOG,
    )
    parser.add_argument("prior", help="the large episode store")
    parser.add_argument("target", help="the store with few demonstrations of the task")
    parser.add_argument("output", help="folder for selection.npz, report.html and retrieval.json")
    parser.add_argument("--method", choices=("nearest", "importance"), default="nearest")
    parser.add_argument(
        "--fraction", type=float, help="share of the prior's steps to keep [0.2; importance: 1]"
    )
    parser.add_argument(
        "--threshold", type=float, help="keep what is at least so alike, 0 to 1; no --fraction"
    )
    parser.add_argument("--window", type=int, default=1, help="actions compared per step; 1: transitions [1]")
    parser.add_argument("--observation", nargs="+", default=[], help="features to compare [all in common]")
    parser.add_argument("--embedding", choices=("vae", "raw"), default="vae")
    parser.add_argument("--vae-steps", type=int, default=5000, help="optimiser steps of the VAE [5000]")
    parser.add_argument("--latent", type=int, default=16, help="size of the VAE's latent [16]")
    parser.add_argument("--action-weight", type=float, default=1.0, help="weight of the appended action [1]")
    parser.add_argument("--neighbours", type=int, default=1, help="mean of so many nearest distances [1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier selection")
    add_json(parser)
    return parser


def _config(arguments: argparse.Namespace) -> RetrievalConfig:
    from robot_policies.retrieval.retrieve import RetrievalConfig

    return RetrievalConfig.parse(
        {
            "method": arguments.method,
            "fraction": arguments.fraction,
            "threshold": arguments.threshold,
            "window": arguments.window,
            "observation": arguments.observation,
            "embedding": arguments.embedding,
            "vae": {"steps": arguments.vae_steps, "latent": arguments.latent},
            "action_weight": arguments.action_weight,
            "n_neighbours": arguments.neighbours,
            "seed": arguments.seed,
        }
    )


def _show(summary: dict[str, Any], output: Path) -> None:
    from rich.table import Table

    table = Table(title=f"{summary['selected_steps']:,} of {summary['prior_steps']:,} steps selected")
    for name in ("source", "episodes", "steps", "selected", "of its steps", "of all draws"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for count in summary["sources"][:20]:
        table.add_row(
            count["name"],
            f"{count['episodes']:,}",
            f"{count['steps']:,}",
            f"{count['selected']:,}",
            f"{100 * count['selected'] / count['steps']:.1f} %",
            f"{100 * count['weight']:.1f} %",
        )
    console = make_console()
    console.print(table)
    console.print(f"selection: {output / 'selection.npz'}\nreport: {output / 'report.html'}", soft_wrap=True)
