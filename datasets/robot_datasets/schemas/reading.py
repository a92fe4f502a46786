"""From a YAML file to a validated `EmbodimentSchema`; every error names the file and the field."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, DTYPES, ROTATIONS, is_image
from robot_datasets.mapping import ConfigError, from_mapping
from robot_datasets.schemas.schema import EmbodimentSchema, FeatureSource, Part

_CHANNELS = ("", "rgb", "bgr")
_RANGE = "..."
_FROM_ELSEWHERE = ("name", "digest")


class SchemaError(DatasetError):
    """A schema file cannot be read or contradicts itself."""


_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 10 times as fast


class _UniqueKeys(_SafeLoader):
    """Plain YAML; a key that is given twice is an error instead of a silent choice of the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"'{key}' is given twice, the second time in line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Read a YAML file whose top is a mapping.

    Raises:
        SchemaError: The file is missing, not YAML, gives a key twice, or is no mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise SchemaError(f"{path} is not valid YAML: {text}") from error
    if not isinstance(values, Mapping):
        raise SchemaError(f"{path} holds {type(values).__name__}, expected a mapping of schema fields")
    return values


def read_schema(path: Path) -> EmbodimentSchema:
    """Read and validate one schema file.

    Raises:
        SchemaError: The file cannot be read, or a field is unknown, missing, of the wrong type or impossible.
    """
    values = read_yaml(path)
    where = path.name
    try:
        for key in _FROM_ELSEWHERE:
            if key in values:
                raise SchemaError(f"{where}: {key}: not a field; the name of a schema is that of its file")
        schema = from_mapping(EmbodimentSchema, _with_full_parts(values, where), where=f"{where}:")
    except ConfigError as error:
        raise SchemaError(str(error)) from error
    digest = "blake2b:" + hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    schema = replace(schema, name=path.stem, digest=digest)
    _check(schema, where)
    return schema


def _with_full_parts(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Write out the short forms within parts: a single unit, ``[joint1, ..., joint7]``."""
    full = dict(values)
    for section in ("features", "actions"):
        entries = values.get(section)
        if not isinstance(entries, Mapping):
            continue
        full[section] = {
            name: {**entry, "parts": [full_part(p, f"{where}: {section}.{name}") for p in entry["parts"]]}
            if isinstance(entry, Mapping) and isinstance(entry.get("parts"), list)
            else entry
            for name, entry in entries.items()
        }
    layout = values.get("layout")
    if isinstance(layout, Mapping):
        full["layout"] = {
            slot: _full_names(names, f"{where}: layout.{slot}") for slot, names in layout.items()
        }
    return full


def full_part(part: Any, where: str) -> Any:
    """Write out the short forms in a part: a single unit, `[joint1, ..., joint7]`; what is no mapping is returned."""
    if not isinstance(part, Mapping):
        return part
    full = dict(part)
    if isinstance(part.get("units"), str):
        full["units"] = [part["units"]]
    if "names" in part:
        full["names"] = _full_names(part["names"], f"{where}.parts.names")
    return full


def _full_names(names: Any, where: str) -> Any:
    """Fill in ``a1, ..., a4``: both neighbours end in a number and are otherwise equal."""
    if not isinstance(names, list) or _RANGE not in names:
        return names
    full: list[Any] = []
    for i, name in enumerate(names):
        if name != _RANGE:
            full.append(name)
            continue
        before, after = (names[i - 1] if i else None), (names[i + 1] if i + 1 < len(names) else None)
        first, last = _numbered(before), _numbered(after)
        if first is None or last is None or first[0] != last[0] or first[1] >= last[1]:
            raise SchemaError(
                f"{where}: '...' stands between {before!r} and {after!r}, expected names like joint1, ..., joint7"
            )
        full.extend(f"{first[0]}{number}" for number in range(first[1] + 1, last[1]))
    return full


def _numbered(name: Any) -> tuple[str, int] | None:
    """``joint12`` -> (``joint``, 12)."""
    if not isinstance(name, str):
        return None
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return (stem, int(digits)) if digits and not (len(digits) > 1 and digits[0] == "0") else None


def _check(schema: EmbodimentSchema, where: str) -> None:
    for key in ("robot", "format", "summary"):
        if not getattr(schema, key):
            raise SchemaError(f"{where}: {key}: empty; expected a text")
    if not schema.labels or not all(schema.labels):
        raise SchemaError(f"{where}: labels: expected at least one text that selects the schema in a source")
    if schema.fps is not None and not 0 < schema.fps < float("inf"):
        raise SchemaError(f"{where}: fps: {schema.fps:g}; expected a positive rate [Hz], or leave it out")
    _check_cameras(schema, where)
    for name, feature in schema.features.items():
        place = f"{where}: features.{name}"
        if name == ACTION or is_image(name) or "/" in name or name.startswith((".", "__")):
            raise SchemaError(
                f"{place}: expected a low-dimensional feature; 'actions' and 'cameras' hold the rest"
            )
        _check_source(feature, place)
    if not schema.actions:
        raise SchemaError(f"{where}: actions: empty; expected at least one named choice")
    for name, action in schema.actions.items():
        _check_source(action, f"{where}: actions.{name}")
    if schema.default_action not in schema.actions:
        raise SchemaError(
            f"{where}: default_action: {unknown_name('choice', schema.default_action, schema.actions)}"
        )
    _check_masks(schema, where)
    _check_layout(schema, where)


def _check_cameras(schema: EmbodimentSchema, where: str) -> None:
    for name, camera in schema.cameras.items():
        place = f"{where}: cameras.{name}"
        if not camera.source:
            raise SchemaError(f"{place}.source: empty; expected the key of its frames")
        if camera.channels not in _CHANNELS:
            raise SchemaError(f"{place}.channels: {unknown_name('order', camera.channels, _CHANNELS[1:])}")


def _check_source(source: FeatureSource, place: str) -> None:
    if not source.parts:
        raise SchemaError(f"{place}.parts: empty; expected at least one part with a source")
    if source.dtype not in DTYPES:
        raise SchemaError(f"{place}.dtype: {unknown_name('type', source.dtype, DTYPES)}")
    if source.rotation not in ROTATIONS:
        raise SchemaError(f"{place}.rotation: {unknown_name('convention', source.rotation, ROTATIONS)}")
    for i, part in enumerate(source.parts):
        _check_part(part, f"{place}.parts[{i}]", alone=len(source.parts) == 1)
    names = [name for part in source.parts for name in part.names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SchemaError(f"{place}: component {', '.join(repeated)} is named twice; names are unique")
    if names and len(names) != source.size:
        raise SchemaError(
            f"{place}: {len(names)} names for {source.size} components; name those of all parts or of none"
        )
    polarities = sorted({part.gripper for part in source.parts if part.gripper})
    if len(polarities) > 1:
        raise SchemaError(
            f"{place}: grippers of different polarity ({'; '.join(polarities)}); a feature has one, split it"
        )


def _check_part(part: Part, place: str, *, alone: bool) -> None:
    if not part.source:
        raise SchemaError(f"{place}.source: empty; expected the key of an array")
    columns = part.columns
    if columns and (len(columns) != 2 or not 0 <= columns[0] < columns[1]):
        raise SchemaError(f"{place}.columns: {list(columns)}; expected [first, one past the last]")
    if columns and part.names and len(part.names) != part.size:
        raise SchemaError(
            f"{place}.names: {len(part.names)} names for {part.size} columns; expected one each"
        )
    if not part.size and not alone:
        raise SchemaError(f"{place}: has neither names nor columns; give one, so that its size is known")
    if len(part.units) > 1 and len(part.units) != part.size:
        raise SchemaError(
            f"{place}.units: {len(part.units)} units for {part.size} components; give 1 or one each"
        )


def _check_masks(schema: EmbodimentSchema, where: str) -> None:
    default = schema.actions[schema.default_action]
    if schema.delta_mask and len(schema.delta_mask) != default.size:
        raise SchemaError(
            f"{where}: delta_mask: {len(schema.delta_mask)} values for the {default.size} components of action "
            f"{schema.default_action}; expected one each"
        )
    for name, action in schema.actions.items():
        mask = schema.mask(name)
        if action.size and len(mask) != action.size:
            raise SchemaError(
                f"{where}: actions.{name}.delta_mask: {len(mask)} values for {action.size} components; "
                "give this choice a mask of its own"
            )


def _check_layout(schema: EmbodimentSchema, where: str) -> None:
    known = {name for source in _sources(schema) for part in source.parts for name in part.names}
    seen: set[str] = set()
    for slot, names in schema.layout.items():
        for name in names:
            if name not in known:
                raise SchemaError(f"{where}: layout.{slot}: {unknown_name('component', name, known)}")
            if name in seen:
                raise SchemaError(f"{where}: layout.{slot}: component '{name}' is placed twice")
            seen.add(name)


def _sources(schema: EmbodimentSchema) -> Sequence[FeatureSource]:
    return [*schema.features.values(), *schema.actions.values()]
