"""ALOHA's and ACT's HDF5 episodes: ``episode_<i>.hdf5`` with joint positions, leader commands and images.

One file is one episode. Many labs write files of this form with robots of their own; a schema says what the
numbers mean, and without one the arrays keep their names.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import ENCODINGS, JPEG_BGR, sniff_encoding
from robot_datasets.importers.aloha_frames import FrameSource, holds_encoded, measure, unpad
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.hdf5_reading import DAMAGE, find_dataset, open_hdf5, read_array
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.importers.settings import chosen_names, positive_rate
from robot_datasets.schemas import ActionSource, EmbodimentSchema, FeatureSource, Part, load_schema

_LOG = logging.getLogger(__name__)
_FILE = re.compile(r"^episode_(\d+)\.(hdf5|h5)$")
_QPOS, _ACTION, _BASE = "observations/qpos", "action", "base_action"
_NUMBERS = {STATE: _QPOS, "observation.joint_velocity": "observations/qvel"} | {
    "observation.joint_effort": "observations/effort"
}
_COLOUR_GROUP = "observations/images"
_DEPTH_GROUPS = ("observations/images_depth", "observations/depth")
_GROUPS = ("observations", _COLOUR_GROUP, *_DEPTH_GROUPS)
_DEPTH_ENDING = "_depth"
_LENGTHS = "compress_len"
_REAL_ACTION, _SIMULATED_ACTION = "leader_previous", "leader"
_LOOKED_AT = 20
_PROBE_FOLDERS = 200
_PROBE_DEPTH = 3
_GENERIC = "generic"


@dataclass(frozen=True)
class _Survey:
    """What one file says of all: where the data is, and what it means."""

    columns: SchemaColumns
    features: Mapping[str, Feature]
    frames: Sequence[FrameSource]
    left_out: Sequence[str]
    simulated: bool
    warnings: Sequence[str]


class Aloha(Importer):
    """Importer of ALOHA, Mobile ALOHA and ACT episodes."""

    name = "aloha"
    version = 1
    summary = "ALOHA / ACT: a folder of episode_<i>.hdf5 with observations/qpos and action"
    options = (
        Option("schema", "", "a schema's name, a YAML file, or generic; empty = aloha or mobile_aloha"),
        Option(
            "action",
            "",
            "leader = action of the same row, leader_previous = of the row before; empty = previous for real "
            "robots, same for simulated ones, as ACT pairs them",
        ),
        Option("cameras", "", "cameras to keep, comma-separated; empty = all"),
        Option("depth", "keep", "keep depth images, or drop them", ("keep", "drop")),
        Option(
            "compressed_order",
            "bgr",
            "order of colours a standard decoder finds in compressed frames; ALOHA's recorder exchanges them",
            ("bgr", "rgb"),
        ),
        Option("image_encoding", "png", "how raw frames are stored; jpeg loses detail", ENCODINGS),
        Option("fps", "", "rate [Hz]; empty = the schema's, the files do not tell it"),
        Option("task", "", "instruction of all episodes; empty = the name of their folder"),
        Option("embodiment", "", "robot name; empty = the schema's"),
    )

    def probe(self, path: Path) -> Probe | None:
        """Open the first episode file of a bounded number of folders and look for its keys."""
        for file in _first_files(path):
            try:
                with open_hdf5(file) as root:
                    if find_dataset(root, _QPOS) is not None and find_dataset(root, _ACTION) is not None:
                        return Probe(self.name, f"{file.name} with {_QPOS}")
            except EpisodeError:
                continue
        return None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the files; the first that can be used says what all have."""
        files = _files(path)
        if not files:
            raise DatasetError(f"{path} holds no episode_<i>.hdf5; check the path")
        survey = _survey_first(files, options)
        schema = survey.columns.schema
        for warning in survey.warnings:
            _LOG.warning("%s: %s", path.name, warning)
        fps = positive_rate(options["fps"] or str(schema.fps or ""), path)
        colour = [f.feature.removeprefix(IMAGE_PREFIX) for f in survey.frames if IMAGE_PREFIX in f.feature]
        resolved = {
            "schema": f"{schema.name or _GENERIC} {schema.digest}".strip(),
            "action": survey.columns.action,
            "cameras": ",".join(colour),
            "fps": f"{fps:g}",
            "embodiment": options["embodiment"] or schema.robot,
        }
        return Plan(
            source=path,
            options={**options, **resolved},
            refs=[EpisodeRef(_source_id(path, file), file) for file in files],
            features=survey.features,
            fps=fps,
            embodiment=resolved["embodiment"],
            checksum=_checksum(path, files),
            image_encodings={frame.feature: frame.encoding for frame in survey.frames},
            notes={
                "simulated": survey.simulated,
                "left_out": list(survey.left_out),
                "warnings": list(survey.warnings),
            },
            context=(survey, bool(options["action"])),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Open one file after another; frames are read as they are consumed."""
        for ref in refs:
            try:
                with open_hdf5(ref.locator) as root:
                    yield _episode(root, ref, plan)
            except EpisodeError as error:
                yield Rejected(ref.source_id, str(error))


def _episode(root: Any, ref: EpisodeRef, plan: Plan) -> Episode:
    survey, action_was_chosen = plan.context
    if not action_was_chosen and _is_simulated(root) != survey.simulated:
        raise EpisodeError(
            f"attribute sim is {not survey.simulated}, the first file's is {survey.simulated}, and they pair "
            "observations and actions differently; convert them apart or choose with --option action=..."
        )
    _check_lengths(root, survey)
    data, steps = survey.columns.read(lambda key: read_array(_require(root, key)))
    warnings: list[str] = []
    stated = find_dataset(root, _LENGTHS)
    lengths = np.empty((0, 0)) if stated is None else np.atleast_2d(read_array(stated))
    images = {
        frame.feature: frame.stream(_require(root, frame.key), steps, lengths, warnings)
        for frame in survey.frames
    }
    task = plan.options["task"] or Path(ref.locator).absolute().parent.name
    return Episode(ref.source_id, data, images, task=task, warnings=warnings)


def _check_lengths(root: Any, survey: _Survey) -> None:
    """Compare the rows of all arrays before anything is read; a damaged header may claim any number."""
    keys = [part.source for source in survey.columns.sources().values() for part in source.parts]
    rows = {key: _n_rows(root, key) for key in dict.fromkeys([*keys, *(f.key for f in survey.frames)])}
    if len(set(rows.values())) != 1:
        listed = ", ".join(f"{key} {n}" for key, n in rows.items())
        raise EpisodeError(f"arrays differ in length: {listed}; expected one row per step")


def _survey_first(files: Sequence[Path], options: Mapping[str, str]) -> _Survey:
    """Survey the first usable file of the commonest kind, among the first ones."""
    kinds: dict[tuple[Any, ...], list[Path]] = {}
    reason = ""
    for file in files[:_LOOKED_AT]:
        try:
            with open_hdf5(file) as root:
                kinds.setdefault(_kind(root), []).append(file)
        except EpisodeError as error:
            reason = reason or f"{file.name}: {error}"
    for file in [*(f for k in sorted(kinds.values(), key=len, reverse=True) for f in k), *files[_LOOKED_AT:]]:
        try:
            with open_hdf5(file) as root:
                return _survey(root, options)
        except EpisodeError as error:
            reason = reason or f"{file.name}: {error}"
    raise DatasetError(f"none of {len(files)} files can be used; the first is {reason}")


def _kind(root: Any) -> tuple[Any, ...]:
    """Return what files of one kind have in common: keys, types and shapes but for the number of rows."""
    keys = [f"{group}/{name}" for group in _GROUPS for name in _members(root, group)]
    kind: list[Any] = [_is_simulated(root)]
    for key in [_ACTION, _BASE, *keys]:
        dataset = find_dataset(root, key)
        if dataset is not None:
            shape = () if holds_encoded(dataset) else (dataset.shape or ())[1:]
            kind.append((key, dataset.dtype.kind, dataset.ndim, shape))
    return tuple(kind)


def _survey(root: Any, options: Mapping[str, str]) -> _Survey:
    if not _n_rows(root, _ACTION) or not _n_rows(root, _QPOS):
        raise EpisodeError(f"{_ACTION} or {_QPOS} has no steps; expected at least one")
    schema, warnings = _schema(options["schema"], root)
    simulated = _is_simulated(root)
    choice = _action(schema, options["action"], simulated)
    columns = SchemaColumns.of(schema, choice, lambda key: find_dataset(root, key) is not None)
    features = columns.features(lambda key: _width(root, key))
    frames, images, left_out = _cameras(root, schema, options)
    return _Survey(columns, features | images, frames, left_out, simulated, warnings)


def _require(root: Any, key: str) -> Any:
    dataset = find_dataset(root, key)
    if dataset is None:
        raise EpisodeError(f"{key} is missing, other episodes have it; copy the file again")
    return dataset


def _schema(option: str, root: Any) -> tuple[EmbodimentSchema, list[str]]:
    """Return the schema to use: the user's, ALOHA's if the sizes fit, or one that claims nothing."""
    if option and option != _GENERIC:
        schema = load_schema(option)
        if schema.format != Aloha.name:
            raise DatasetError(
                f"schema {schema.name} belongs to {schema.format}; expected one with format: aloha"
            )
        return schema, []
    if option != _GENERIC:
        schema = load_schema("mobile_aloha" if find_dataset(root, _BASE) is not None else "aloha")
        wanted = {part.source: part.size for part in schema.features[STATE].parts}
        if all(_width(root, key) == size for key, size in wanted.items()) and _width(root, _ACTION) == 14:
            return schema, []
        note = (
            f"{_QPOS} has {_width(root, _QPOS)} components, ALOHA has 14: the arrays keep their own names, without "
            "units and conventions; give a schema of your own with --option schema=FILE.yaml"
        )
        return _generic(root), [note]
    return _generic(root), []


def _generic(root: Any) -> EmbodimentSchema:
    features = {
        name: FeatureSource(parts=(Part(source=key),), optional=name != STATE)
        for name, key in _NUMBERS.items()
    }
    keys = [_ACTION, *([_BASE] if find_dataset(root, _BASE) is not None else [])]
    parts = tuple(Part(source=key, columns=(0, _width(root, key))) for key in keys)
    return EmbodimentSchema(
        robot="",
        format=Aloha.name,
        labels=(_GENERIC,),
        summary="arrays as recorded",
        fps=50.0,
        features=features,
        actions={
            _SIMULATED_ACTION: ActionSource(parts=parts, meaning="as recorded, same step"),
            _REAL_ACTION: ActionSource(parts=parts, shift=-1, meaning="as recorded, one step earlier"),
        },
        default_action=_REAL_ACTION,
    )


def _action(schema: EmbodimentSchema, option: str, simulated: bool) -> str:
    """Return the action choice: the user's, else the one that suits where the files come from, if there is one."""
    fitting = _SIMULATED_ACTION if simulated else _REAL_ACTION
    return option or (fitting if fitting in schema.actions else schema.default_action)


def _is_simulated(root: Any) -> bool:
    """Return the attribute ``sim``; files without it are old recordings of the real robot."""
    try:
        return bool(root.attrs.get("sim", False))
    except DAMAGE as error:
        raise EpisodeError(f"attribute sim cannot be read: {error}") from error


def _width(root: Any, key: str) -> int:
    dataset = find_dataset(root, key)
    return int(np.prod((dataset.shape or (0,))[1:])) if dataset is not None else 0


def _n_rows(root: Any, key: str) -> int:
    return (_require(root, key).shape or (0,))[0]


def _cameras(
    root: Any, schema: EmbodimentSchema, options: Mapping[str, str]
) -> tuple[list[FrameSource], dict[str, Feature], list[str]]:
    """Return the cameras, their features, and the datasets that hold no images that can be stored."""
    renamed = {camera.source: name for name, camera in schema.cameras.items()}
    found: dict[str, str] = {}
    for group in (_COLOUR_GROUP, *_DEPTH_GROUPS):
        for name in _members(root, group):
            key = f"{group}/{name}"
            if group != _COLOUR_GROUP or name.endswith(_DEPTH_ENDING):
                if options["depth"] == "keep":
                    found.setdefault(DEPTH_PREFIX + name.removesuffix(_DEPTH_ENDING), key)
            else:
                found[IMAGE_PREFIX + renamed.get(key, name)] = key
    short = {name.removeprefix(IMAGE_PREFIX).removeprefix(DEPTH_PREFIX) for name in found}
    wanted = chosen_names(options["cameras"], sorted(short), "cameras")
    frames, features, left_out = [], {}, []
    for name, key in found.items():
        if name.removeprefix(IMAGE_PREFIX).removeprefix(DEPTH_PREFIX) not in wanted:
            continue
        dataset = _require(root, key)
        feature = measure(dataset, name)
        if feature is None:
            left_out.append(key)
            continue
        features[name] = feature
        encoding = _encoding(dataset, name, options)
        frames.append(FrameSource(key, name, encoding, options["compressed_order"]))
    return frames, features, left_out


def _encoding(dataset: Any, name: str, options: Mapping[str, str]) -> str:
    if not holds_encoded(dataset):
        return "png" if name.startswith(DEPTH_PREFIX) else options["image_encoding"]
    if name.startswith(IMAGE_PREFIX) and options["compressed_order"] == "bgr":
        return JPEG_BGR
    return sniff_encoding(unpad(dataset[0])) or "png"


def _members(root: Any, group: str) -> list[str]:
    try:
        node = root.get(group)
        return sorted(str(name) for name in node) if hasattr(node, "keys") else []
    except DAMAGE as error:
        raise EpisodeError(f"{group} cannot be listed, the file is damaged: {error}") from error


def _files(path: Path) -> list[Path]:
    """Return the episode files at or below `path`, by folder and then by number."""
    if path.is_file():
        return [path]
    found = [file for file in path.rglob("episode_*") if _FILE.match(file.name) and file.is_file()]
    return sorted(found, key=lambda file: (file.parent.relative_to(path).parts, _number(file), file.name))


def _number(file: Path) -> int:
    match = _FILE.match(file.name)
    return int(match[1]) if match else 0


def _first_files(path: Path) -> Iterator[Path]:
    """Yield one episode file of each of the first folders."""
    if path.is_file():
        if path.suffix in (".hdf5", ".h5"):
            yield path
        return
    folders, looked = [(path, 0)], 0
    while folders and looked < _PROBE_FOLDERS:
        folder, depth = folders.pop(0)
        looked += 1
        try:
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError:
            continue
        yield from [file for file in entries if _FILE.match(file.name)][:1]
        if depth < _PROBE_DEPTH:
            folders += [(entry, depth + 1) for entry in entries if entry.is_dir()]


def _source_id(path: Path, file: Path) -> str:
    return file.name if file == path else file.relative_to(path).as_posix()


def _checksum(path: Path, files: Sequence[Path]) -> str:
    """Hash names and sizes; reading all of the data only to notice a change would cost as much as converting it."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(f"{_source_id(path, file)}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()
