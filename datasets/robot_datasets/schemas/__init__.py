"""What the arrays of known robots and benchmarks mean: one YAML file per embodiment and source format.

A file of your own is used by its path, from a folder named in the environment variable
``ROBOT_DATASETS_SCHEMAS``, or from an installed package with the entry point group ``robot_datasets.schemas``
(each entry names a package whose folder holds the files). Your files go before the built-in ones.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.schemas.schema import (
    ActionSource,
    CameraSource,
    EmbodimentSchema,
    FeatureSource,
    Part,
    assemble,
)

__all__ = [
    "ActionSource",
    "CameraSource",
    "EmbodimentSchema",
    "FeatureSource",
    "Part",
    "assemble",
    "find_schema",
    "load_schema",
    "schema_names",
    "schemas_of",
]

ENTRY_POINT_GROUP = "robot_datasets.schemas"
FOLDERS_VARIABLE = "ROBOT_DATASETS_SCHEMAS"

_BUILT_IN = Path(__file__).parent
_ENDINGS = (".yaml", ".yml")
_FORMAT_LINE = re.compile(r"^format: *(\w+) *$", re.MULTILINE)


def schema_names() -> list[str]:
    """Return the names of all schemas, sorted."""
    return sorted(_files())


def load_schema(name: str | Path) -> EmbodimentSchema:
    """Return a schema by name, or the one in a YAML file.

    Raises:
        DatasetError: No such schema (with the nearest match), or the file is not valid.
    """
    if str(name).endswith(_ENDINGS):
        return _read(Path(name))
    files = _files()
    if name not in files:
        raise DatasetError(unknown_name("schema", name, files))
    return _read(files[str(name)])


def schemas_of(format: str) -> list[EmbodimentSchema]:
    """Return the schemas of an importer, sorted by name, your own files first."""
    files = _files()
    paths = [files[name] for name in sorted(files, key=lambda n: (_is_built_in(files[n]), n))]
    schemas = [_read(path) for path in paths if not _is_of_another_format(path, format)]
    return [schema for schema in schemas if schema.format == format]


def _is_of_another_format(path: Path, format: str) -> bool:
    """Whether a built-in file says so ; parsing all of them takes half a second."""
    if not _is_built_in(path):
        return False
    found = _FORMAT_LINE.search(path.read_text(encoding="utf-8"))
    return found is not None and found[1] != format


def find_schema(format: str, label: str) -> EmbodimentSchema:
    """Return the schema that a label of a source selects; case, spaces, ``-`` and ``_`` do not matter.

    Args:
        format: Name of the importer.
        label: What the source says of the robot: its folder, its ``robot_type``.

    Raises:
        DatasetError: No schema of this format has the label (with the nearest match), or two have.
    """
    schemas = schemas_of(format)
    found = [schema for schema in schemas if _plain(label) in map(_plain, schema.labels)]
    files = _files()
    own = [schema for schema in found if not _is_built_in(files[schema.name])]
    found = own or found
    if len(found) > 1:
        names = ", ".join(schema.name for schema in found)
        raise DatasetError(f"label '{label}' of {format} selects several schemas ({names}); name one")
    if found:
        return found[0]
    labels = {text for schema in schemas for text in schema.labels}
    raise DatasetError(unknown_name(f"{format} embodiment", label, labels))


def _plain(label: str) -> str:
    return label.casefold().translate(str.maketrans("", "", " -_"))


def _files() -> dict[str, Path]:
    """Return name -> file, the built-in ones replaced by files of the user of the same name."""
    files = _yaml_files(_BUILT_IN)
    for folder in _installed_folders():
        files |= _yaml_files(folder)
    for folder in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise DatasetError(
                f"{FOLDERS_VARIABLE} names '{folder}', which is no folder; correct or unset it"
            )
        files |= _yaml_files(Path(folder))
    return files


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[Path, ...]:
    """Return the folders of installed packages; looking through all that is installed takes a tenth of a second."""
    points = entry_points(group=ENTRY_POINT_GROUP)
    return tuple(Path(folder) for point in points for folder in point.load().__path__)


def _yaml_files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _ENDINGS}


def _is_built_in(path: Path) -> bool:
    return path.parent == _BUILT_IN


def _read(path: Path) -> EmbodimentSchema:
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}; check the path of the schema") from error
    return _read_once(path, modified)


@lru_cache(maxsize=256)
def _read_once(path: Path, modified: int) -> EmbodimentSchema:
    """Parse a file once per version of it."""
    from robot_datasets.schemas.reading import read_schema

    return read_schema(path)
