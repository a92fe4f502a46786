"""The schema command: what the arrays of known robots mean, and whether a schema of your own is valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import add_json, command_parser, make_console

if TYPE_CHECKING:
    from rich.console import Console

    from robot_datasets.schemas import ActionSource, EmbodimentSchema, FeatureSource

_CHECK = "check"
_ORDERS = {"rgb": "", "bgr": ", red and blue exchanged", "": ", order of colours told by each file"}


def run(argv: list[str]) -> int:
    """List the schemas, print one, or check a file."""
    parser = command_parser(
        "schema",
        "List the known embodiments, print what one of them means, or check a schema file of your own.",
        "examples:\n  robot-policies schema\n  robot-policies schema robomind_franka_3rgb\n"
        "  robot-policies schema check my_robot.yaml\n\nexample:\n  robot-policies schema pusht --json",
    )
    parser.add_argument("name", nargs="?", help="a schema, a YAML file, or the word 'check'")
    parser.add_argument("file", nargs="?", help="after 'check': the YAML file to check")
    add_json(parser)
    arguments = parser.parse_args(argv)
    if arguments.name == _CHECK:
        return _check(arguments.file, as_json=arguments.json)
    if arguments.file is not None:
        raise UserError(f"schema takes one name, got '{arguments.name}' and '{arguments.file}'")
    return _list(arguments.json) if arguments.name is None else _print(arguments.name, arguments.json)


def _list(as_json: bool) -> int:
    from rich.table import Column, Table

    from robot_datasets.schemas import load_schema, schema_names

    schemas = [load_schema(name) for name in schema_names()]
    if as_json:
        print(json.dumps([_entry(schema) for schema in schemas]))
        return 0
    fixed = [Column(name, no_wrap=True) for name in ("schema", "format", "state", "action")]
    table = Table(*fixed, "cameras", box=None)
    for schema in schemas:
        entry = _entry(schema)
        sizes = (str(entry[key] or "?") for key in ("state_dim", "action_dim"))
        table.add_row(schema.name, schema.format, *sizes, ", ".join(entry["cameras"]))
    make_console().print(table)
    return 0


def _print(name: str, as_json: bool) -> int:
    from robot_datasets.mapping import to_mapping
    from robot_datasets.schemas import load_schema

    schema = load_schema(name)
    if as_json:
        print(json.dumps(to_mapping(schema)))
        return 0
    console = make_console()
    _print_head(schema, console)
    for feature, source in schema.features.items():
        _print_source(console, f"{feature}{' (if the source has it)' if source.optional else ''}", source)
    for choice in sorted(schema.actions, key=lambda c: c != schema.default_action):
        _print_source(console, _action_title(schema, choice), schema.actions[choice], schema.mask(choice))
    return 0


def _check(file: str | None, *, as_json: bool) -> int:
    from robot_datasets.schemas import load_schema
    from robot_datasets.schemas.reading import SchemaError
    from robot_datasets.shared_layout import check_layout

    if file is None:
        raise UserError("schema check needs a file: robot-policies schema check my_robot.yaml")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file; give the path of a schema's YAML file")
    try:
        if path.suffix not in (".yaml", ".yml"):
            raise SchemaError(f"{path.name}: the name of a schema file ends in .yaml")
        schema = load_schema(path)
        check_layout(schema)
    except SchemaError as error:
        if as_json:
            print(json.dumps({"file": file, "ok": False, "problem": str(error)}))
        else:
            make_console().print(f"  {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    entry = {"file": file, "ok": True, **_entry(schema)}
    if as_json:
        print(json.dumps(entry))
        return 0
    make_console().print(
        f"{file}: valid; {schema.robot} for {schema.format}, state {entry['state_dim'] or '?'}, "
        f"action {entry['action_dim'] or '?'}, {len(schema.cameras)} cameras",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _entry(schema: EmbodimentSchema) -> dict[str, Any]:
    from robot_datasets.features import STATE

    state = schema.features.get(STATE)
    return {
        "name": schema.name,
        "robot": schema.robot,
        "format": schema.format,
        "labels": list(schema.labels),
        "summary": schema.summary,
        "state_dim": state.size if state else 0,
        "action_dim": schema.action_source().size,
        "cameras": list(schema.cameras),
        "actions": list(schema.actions),
        "digest": schema.digest,
    }


def _print_head(schema: EmbodimentSchema, console: Console) -> None:
    cameras = [
        f"{name} <- {camera.source}{', with depth' if camera.depth else ''}{_ORDERS[camera.channels]}"
        for name, camera in schema.cameras.items()
    ]
    rows = [
        ("schema", f"{schema.name}: {schema.summary}"),
        ("robot", schema.robot),
        ("format", f"{schema.format}, selected by {', '.join(schema.labels)}"),
        ("rate", f"{schema.fps:g} Hz assumed" if schema.fps else "told by the source"),
        *(("camera", text) for text in cameras),
        *(("slot", f"{slot}: {_shortened(names)}") for slot, names in schema.layout.items()),
        *(("note", text) for text in schema.notes),
    ]
    for label, text in rows:
        console.print(f"{label:>8}  {text}", markup=False, highlight=False, soft_wrap=True)


def _action_title(schema: EmbodimentSchema, choice: str) -> str:
    default = ", the default" if choice == schema.default_action else ""
    shift = schema.actions[choice].shift
    return f"action={choice}{default}{f', {shift} step later' if shift else ''}"


def _print_source(
    console: Console, title: str, source: FeatureSource | ActionSource, mask: tuple[bool, ...] = ()
) -> None:
    """Print a feature and one line for each of its parts."""
    feature = source.describe()
    conventions = ", ".join(filter(None, (feature.frame, feature.rotation)))
    size = feature.shape[0] or "any number of"
    console.print(
        f"\n{title}: {size} {feature.dtype}{f' ({conventions})' if conventions else ''}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    first = 0
    for part in source.parts:
        columns = f"[{part.columns[0]}:{part.columns[1]}]" if part.columns else ""
        units = ", ".join(dict.fromkeys(unit or "unit unknown" for unit in part.units or ("",)))
        own = mask[first : first + part.size]
        first += part.size
        facts = [
            _shortened(part.names),
            units,
            part.gripper,
            "difference allowed" if own and all(own) else "",
        ]
        text = "; ".join(filter(None, facts))
        console.print(
            f"    {part.source + columns:<52}  {text}", markup=False, highlight=False, soft_wrap=True
        )


def _shortened(names: tuple[str, ...]) -> str:
    """Return ``joint1 ... joint7`` for a numbered run, all names otherwise."""
    stems = {name.rstrip("0123456789") for name in names}
    numbered = all(name[-1].isdigit() for name in names)
    if len(names) > 3 and len(stems) == 1 and numbered:
        return f"{names[0]} ... {names[-1]}"
    return ", ".join(names)
