"""Which embodiment a set of InternData-A1 is: by its columns first, then by what its metadata and folders say.

The robot's name alone is not to be trusted: it is spelled in many ways, published converters write ``piper`` for
three different robots, and two robots share the name ``lift2`` with different columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from robot_datasets.errors import DatasetError
from robot_datasets.features import STATE
from robot_datasets.importers.interndata_checks import WIDEST_GRIPPER_M
from robot_datasets.importers.interndata_sets import FORMAT
from robot_datasets.schemas import EmbodimentSchema, FeatureSource, find_schema, load_schema, schemas_of


def named_schema(name: str) -> EmbodimentSchema:
    """Return the schema of an option: its name, a YAML file, or a label.

    Raises:
        DatasetError: There is no such schema, or it belongs to another format.
    """
    try:
        schema = load_schema(name)
    except DatasetError:
        if name.endswith((".yaml", ".yml")):
            raise
        return find_schema(FORMAT, name)
    if schema.format != FORMAT:
        raise DatasetError(f"schema {schema.name} is for {schema.format}, expected one for {FORMAT}")
    return schema


@dataclass(frozen=True)
class RobotChoice:
    """How the robot of each set is chosen.

    Attributes:
        known: The schemas of the format.
        named: The one that the option names; None if it is to be told from each set.
    """

    known: Sequence[EmbodimentSchema]
    named: EmbodimentSchema | None

    @classmethod
    def of(cls, option: str) -> RobotChoice:
        """Read the schemas; `option` is empty, a schema's name, a YAML file, or a label."""
        return cls(schemas_of(FORMAT), named_schema(option) if option else None)

    def told(
        self,
        robot_type: str,
        folders: Sequence[str],
        widths: Mapping[str, int],
        reach: Callable[[str], float],
    ) -> EmbodimentSchema:
        """Return the schema that a set itself tells.

        Args:
            robot_type: What info.json says.
            folders: Folders above the set, the nearest last.
            widths: Column -> components per step.
            reach: Returns the largest value that a column has; it tells a gripper's opening in metres from 0 or 1.

        Raises:
            DatasetError: No schema has these columns, or several have and nothing tells them apart.
        """
        fitting = [schema for schema in self.known if not misfit(schema, widths)]
        for label in (*reversed(folders), robot_type):
            named = [schema for schema in fitting if _has_label(schema, label)]
            if named:
                return named[0]
        usual = [schema for schema in fitting if not schema.named_only]
        likely = [schema for schema in usual if _fits_gripper(schema, reach)]
        if len(likely or usual) == 1:
            return (likely or usual)[0]
        names = ", ".join(schema.name for schema in fitting or self.known)
        if fitting:
            raise DatasetError(
                f"robot_type '{robot_type}' is not known and its columns fit {names}; choose with --option robot=..."
            )
        reasons = [misfit(schema, widths) for schema in self.known if _has_label(schema, robot_type)]
        raise DatasetError(
            f"the columns of robot_type '{robot_type}' are those of no known embodiment"
            f"{f' ({reasons[0]})' if reasons else ''}; known: {names}. Write a schema for it and name it with "
            "--option robot=FILE.yaml, or keep all columns as they are with --format lerobot"
        )


def misfit(schema: EmbodimentSchema, widths: Mapping[str, int]) -> str:
    """Say why a set cannot be of this embodiment, going by its columns; empty if it can."""
    needed = [source for source in schema.features.values() if not source.optional]
    return next(filter(None, (lacks(source, widths) for source in (*needed, schema.action_source()))), "")


def lacks(source: FeatureSource, widths: Mapping[str, int]) -> str:
    """Say what a feature needs and the columns (name -> components per step) do not have; empty if nothing."""
    for part in source.parts:
        width = widths.get(part.source)
        if width is None:
            return f"it has no column {part.source}"
        least = part.columns[1] if part.columns else len(part.names)
        if width < least or (not part.columns and width != least):
            return f"{part.source} has {width} components, expected {least}"
    return ""


def _fits_gripper(schema: EmbodimentSchema, reach: Callable[[str], float]) -> bool:
    parts = [part for part in schema.features[STATE].parts if part.gripper]
    return all((reach(part.source) <= WIDEST_GRIPPER_M) == (part.units == ("m",)) for part in parts)


def _has_label(schema: EmbodimentSchema, label: str) -> bool:
    plain = _plain(label)
    return bool(plain) and plain in {_plain(text) for text in (*schema.labels, schema.robot)}


def _plain(label: str) -> str:
    return "".join(c for c in label.casefold() if c not in " -_")
