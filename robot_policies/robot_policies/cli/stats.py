"""The stats command: statistics per feature and component."""

from __future__ import annotations

import json
from typing import Any

from robot_policies.cli.arguments import add_json, command_parser, make_console, open_store


def run(argv: list[str]) -> int:
    """Print the statistics of a store's features, or of several stores together."""
    from robot_datasets.pooled import pooled_stats

    parser = command_parser(
        "stats",
        "Print statistics per feature and component, quantiles included: exact for numbers, over sampled frames for\n"
        "images. Several stores are taken together, as if they were one.",
        "example:\n  robot-policies stats data/pusht.zarr --feature action",
    )
    parser.add_argument(
        "stores", nargs="+", metavar="store", help="episode stores: directory, zip, or address"
    )
    parser.add_argument(
        "--feature", action="append", metavar="NAME", help="this feature only; may be repeated"
    )
    parser.add_argument("--split", choices=("train", "val"), help="only episodes that are marked so")
    add_json(parser)
    arguments = parser.parse_args(argv)
    stores = [open_store(address) for address in arguments.stores]
    features = stores[0].features
    stats = {
        name: pooled_stats(stores, name, split=arguments.split)
        for name in arguments.feature or sorted(features)
    }
    if arguments.json:
        values = {n: {k: v.tolist() for k, v in s.to_dict().items()} for n, s in stats.items()}
        print(json.dumps(values))
        return 0
    for name, values in stats.items():
        _print_stats(name, features[name].names, values.to_array(), values.constant)
    return 0


def _print_stats(name: str, components: tuple[str, ...], values: Any, constant: Any) -> None:
    from rich.table import Table

    from robot_datasets.statistics import STATISTICS

    flat, flags = values.reshape(len(STATISTICS), -1), constant.reshape(-1)
    table = Table(
        "component", *STATISTICS[1:], title=f"{name}  ({int(flat[0, 0]):,} values each)", title_justify="left"
    )
    for index in range(flat.shape[1]):
        label = components[index] if components else str(index)
        cells = [f"{value:.4g}" for value in flat[1:, index]]
        table.add_row(f"{label} (constant)" if flags[index] else label, *cells)
    make_console().print(table)
