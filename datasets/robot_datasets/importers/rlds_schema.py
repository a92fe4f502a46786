"""Which schema an RLDS dataset is read with: its own, the user's, or one that only repeats its keys."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robot_datasets.errors import DatasetError
from robot_datasets.features import STATE
from robot_datasets.importers.rlds_features import STEPS, RecordKey
from robot_datasets.importers.rlds_frames import RldsCamera, generic_cameras
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.schemas import (
    ActionSource,
    EmbodimentSchema,
    FeatureSource,
    Part,
    find_schema,
    load_schema,
)

FORMAT = "rlds"
GENERIC = "generic"
_ACTION = "action"
_OBSERVATION = "observation/"


def choose_schema(
    option: str, dataset: str, keys: Mapping[str, RecordKey]
) -> tuple[EmbodimentSchema, list[str]]:
    """Return the schema to use, and a warning if nothing is known about the dataset.

    Args:
        option: A schema's name, a YAML file, ``generic``, or empty to go by the dataset's name.
        dataset: The dataset's name.
        keys: What its records hold.

    Raises:
        DatasetError: No such schema, or one of another format, or no action is recorded.
    """
    if option == GENERIC:
        return generic_schema(dataset, keys), []
    if option:
        schema = load_schema(option)
        if schema.format != FORMAT:
            raise DatasetError(
                f"schema {schema.name} belongs to {schema.format}; expected one with format: {FORMAT}"
            )
        return schema, []
    try:
        return find_schema(FORMAT, dataset), []
    except DatasetError as error:
        note = f"{error}; its keys keep their own names, without units and conventions (schema={GENERIC})"
        return generic_schema(dataset, keys), [note]


def generic_schema(dataset: str, keys: Mapping[str, RecordKey]) -> EmbodimentSchema:
    """Make a schema of all observations and actions that are numbers or images, claiming no meaning."""
    pixels = {camera.source for camera in generic_cameras(keys).values()}
    numbers = {
        path.removeprefix(STEPS): key
        for path, key in sorted(keys.items())
        if key.per_step and key.kind == "numbers" and -1 not in key.shape and math.prod(key.shape)
    }
    features = {
        _feature_name(name): FeatureSource(parts=(Part(source=name),), dtype=key.stored_dtype)
        for name, key in numbers.items()
        if name.startswith(_OBSERVATION) and name not in pixels
    }
    parts = [name for name in numbers if name == _ACTION or name.startswith(_ACTION + "/")]
    if not parts:
        raise DatasetError(
            f"the records of {dataset} have no numbers below steps/action; say what the action is in a YAML file "
            "and give it with --option schema=FILE.yaml"
        )
    action = ActionSource(
        parts=tuple(_action_part(name, numbers[name], alone=len(parts) == 1) for name in parts),
        dtype=_common([numbers[name].stored_dtype for name in parts]),
        meaning="as recorded",
    )
    return EmbodimentSchema(
        robot="",
        format=FORMAT,
        labels=(dataset or FORMAT,),
        summary="keys as recorded",
        cameras=generic_cameras(keys),
        features=features,
        actions={"recorded": action},
        default_action="recorded",
    )


def used_keys(columns: SchemaColumns, cameras: Mapping[str, RldsCamera]) -> set[str]:
    """Return the keys of a record that are read."""
    parts = {STEPS + part.source for source in columns.sources().values() for part in source.parts}
    return parts | {camera.key.path for camera in cameras.values()}


def _feature_name(key: str) -> str:
    name = key.removeprefix(_OBSERVATION).replace("/", ".")
    return STATE if name == "state" else f"observation.{name}"


def _action_part(name: str, key: RecordKey, *, alone: bool) -> Part:
    """Name the components by the key if several keys make up the action."""
    size = math.prod(key.shape)
    if alone:
        return Part(source=name, columns=(0, size))
    leaf = name.removeprefix(_ACTION + "/").replace("/", ".")
    names = (leaf,) if size == 1 else tuple(f"{leaf}.{i}" for i in range(size))
    return Part(source=name, columns=(0, size), names=names)


def _common(dtypes: list[str]) -> str:
    for dtype in ("float64", "float32", "int64", "int32", "uint16", "uint8"):
        if dtype in dtypes:
            return dtype
    return "bool"
