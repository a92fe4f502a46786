"""The export-policy command: a checkpoint as graphs, for machines without torch."""

from __future__ import annotations

import argparse
import json

from robot_policies.cli.arguments import add_json, command_parser, make_console, parse_options


def run(argv: list[str]) -> int:
    """Export a checkpoint; 0 on success."""
    from robot_policies.checkpoint import load_policy
    from robot_policies.exporting.export import export_policy

    arguments = _parser().parse_args(argv)
    console = make_console()

    def progress(text: str) -> None:
        if not arguments.json:
            console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)

    errors = export_policy(
        load_policy(arguments.checkpoint),
        arguments.out,
        formats=arguments.format or ["onnx"],
        sampler=_sampler(arguments),
        parity_samples=arguments.parity_samples,
        progress=progress,
    )
    if arguments.json:
        print(json.dumps({"out": arguments.out, "largest_error": errors}))
        return 0
    for format, error in errors.items():
        console.print(
            f"{arguments.out}: {format}, largest difference to the checkpoint {error:.2g} of a range of 2 "
            f"({arguments.parity_samples} random inputs)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _sampler(arguments: argparse.Namespace) -> dict[str, object] | None:
    if arguments.sampler is None:
        return None
    options: dict[str, object] = {}
    for name, text in parse_options(arguments.sampler_option).items():
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return {"type": arguments.sampler, **options}


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "export-policy",
        "Write a trained policy as graphs that run without torch, and compare them with the checkpoint.\n"
        "The sampler is fixed in the export. (Datasets are exported with: robot-policies export.)",
        "examples:\n"
        "  robot-policies export-policy runs/lift exports/lift\n"
        "  robot-policies export-policy runs/pusht exports/pusht --sampler ddim --sampler-option steps=5\n"
        "  robot-policies export-policy runs/lift exports/lift --format onnx --format torchscript",
    )
    parser.add_argument("checkpoint", help="run or checkpoint directory")
    parser.add_argument("out", help="folder to make")
    parser.add_argument(
        "--format",
        action="append",
        choices=("onnx", "torchscript", "aotinductor"),
        help="may be given several times [onnx]; only onnx runs without torch",
    )
    parser.add_argument("--sampler", metavar="TYPE", help="sample with another sampler than the run's")
    parser.add_argument(
        "--sampler-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the sampler, e.g. steps=5",
    )
    parser.add_argument(
        "--parity-samples", type=int, default=8, metavar="N", help="inputs to compare on [%(default)s]"
    )
    add_json(parser)
    return parser
