"""InternData-A1: LeRobot v2.1 and v3.0 sets of one robot with their own columns, in folders or archives.

A source is anything from one set to a whole tree of tasks; all its sets of one robot become one store. Archives
are read as they are, one episode's files at a time. What the columns mean is in the schemas ``interndata_*``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from robot_datasets.archives import ArchiveError
from robot_datasets.episode import Episode, EpisodeError, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import IMAGE_PREFIX, Feature
from robot_datasets.image_codec import ENCODINGS
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.file_tree import ARCHIVE_OPTIONS, archive_limits
from robot_datasets.importers.interndata_checks import find_faults
from robot_datasets.importers.interndata_plan import (
    ExaminedSet,
    camera_feature,
    checksum,
    common_cameras,
    common_columns,
    examine,
    of_one_rate,
    of_one_robot,
    used_columns,
)
from robot_datasets.importers.interndata_robot import RobotChoice
from robot_datasets.importers.interndata_sets import FORMAT, SetPlace, find_sets, open_set, probe_source
from robot_datasets.importers.lerobot_episode import EpisodeReader, SetLabels
from robot_datasets.importers.lerobot_features import ColumnPlan
from robot_datasets.importers.lerobot_places import LeRobotSet, Place, episode_name
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.quaternions import to_xyzw

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Context:
    """What reading needs: the sets by number, and how columns become features."""

    places: tuple[SetPlace, ...]
    columns: SchemaColumns
    raw: ColumnPlan
    raw_features: Mapping[str, Feature]
    orders: Mapping[str, np.ndarray]


class InternData(Importer):
    """Importer of InternData-A1."""

    name = FORMAT
    version = 1
    summary = "InternData-A1: LeRobot sets with its own columns, in folders or as <Task>.tar.gz"
    options = (
        Option(
            "robot",
            "",
            "schema, its YAML file or a robot's name; empty = told by columns, folders and metadata",
        ),
        Option("action", "", "which action of the schema, see robot-policies schema; empty = its default"),
        Option(
            "rotation",
            "quat_wxyz",
            "order of quaternion components in the store; the source has w first",
            ("quat_wxyz", "quat_xyzw"),
        ),
        Option(
            "cameras", "", "cameras to keep (head, hand, ...), comma-separated; empty = all of the schema"
        ),
        Option("fps", "", "convert the sets of this rate [Hz] only; empty = the commonest rate"),
        Option(
            "image_encoding",
            "jpeg",
            "how decoded video frames are stored; jpeg (quality 95) loses detail, png and raw do not",
            ENCODINGS,
        ),
        *ARCHIVE_OPTIONS,
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise a tree of LeRobot sets with the columns of a known embodiment, or archives of ``set_<n>``."""
        detail = probe_source(path)
        return Probe(self.name, detail) if detail else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """Look into every set: its metadata, its files, and the first readable ones for columns and sizes."""
        warnings: list[str] = []
        rejected: list[Rejected] = []
        sets: list[ExaminedSet] = []
        robots = RobotChoice.of(options["robot"])
        for place in find_sets(path, archive_limits(options), rejected, warnings):
            try:
                sets.append(examine(path, place, robots, options, warnings))
            except DatasetError as error:
                rejected.append(Rejected(place.name or path.name, str(error)))
        warnings += [f"{whole.source_id} was set aside: {whole.reason}" for whole in rejected]
        if not sets:
            reason = f"; the first of {len(rejected)}: {rejected[0].reason}" if rejected else ""
            raise DatasetError(f"{path} holds no set that can be read; expected meta/info.json{reason}")
        sets = of_one_robot(path, sets, bool(options["robot"]), rejected, warnings)
        schema = sets[0].schema
        sets, fps = of_one_rate(path, sets, options["fps"], rejected)
        columns = common_columns(sets, schema, options["action"], warnings)
        cameras = common_cameras(sets, schema, options["cameras"], rejected)
        sets = [entry for entry in sets if set(cameras) <= set(entry.cameras)]
        features, orders = _features(columns, sets[0], options["rotation"])
        for name in cameras:
            features[IMAGE_PREFIX + name] = camera_feature([entry.sizes[name] for entry in sets])
        for entry in sets:
            rejected += [
                Rejected(_episode_id(entry.place, i), reason) for i, reason in entry.rejected.items()
            ]
        for warning in warnings:
            _logger.warning("%s: %s", path, warning)
        images = {IMAGE_PREFIX + name: frames for name, frames in cameras.items()}
        raw = {key: sets[0].columns[key] for key in used_columns(columns, sets)}
        return Plan(
            source=path,
            options={**options, "robot": schema.name, "action": columns.action, "fps": f"{fps:g}"},
            refs=[
                EpisodeRef(_episode_id(entry.place, episode), (number, episode))
                for number, entry in enumerate(sets)
                for episode in entry.episodes
            ],
            features=features,
            fps=fps,
            embodiment=schema.robot,
            checksum=checksum(sets),
            image_encodings=dict.fromkeys(images, options["image_encoding"]),
            rejected=rejected,
            notes={"schema": schema.digest, "sets": len(sets), "warnings": warnings},
            context=_Context(
                places=tuple(entry.place for entry in sets),
                columns=columns,
                raw=ColumnPlan({key: key for key in raw}, {}, images, {}),
                raw_features=raw,
                orders=orders,
            ),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Yield episodes set by set; at most one episode's files of an archive are unpacked at a time."""
        opened: _OpenSet | None = None
        number, failure = -1, ""
        try:
            for ref in refs:
                wanted, episode = ref.locator
                if wanted != number:
                    if opened is not None:
                        opened.close()
                    opened, number, failure = None, wanted, ""
                    try:
                        opened = _OpenSet(plan, number)
                    except DatasetError as error:  # it costs the episodes of this set only
                        failure = str(error)
                yield _read(opened, failure, ref.source_id, episode)
        finally:
            if opened is not None:
                opened.close()


def _read(opened: _OpenSet | None, failure: str, source_id: str, episode: int) -> EpisodeResult:
    if opened is None:
        return Rejected(source_id, failure)
    try:
        return opened.read(source_id, episode)
    except (EpisodeError, ArchiveError) as error:
        return Rejected(source_id, str(error))


class _OpenSet:
    """The set that is being read."""

    def __init__(self, plan: Plan, number: int) -> None:
        context: _Context = plan.context
        self._context = context
        self._set = LeRobotSet(open_set(plan.source, context.places[number], archive_limits(plan.options)))
        self._places = self._set.with_videos({n: f.key for n, f in context.raw.cameras.items()})
        self._reader = EpisodeReader(
            self._set.tree,
            SetLabels.of(self._set),
            context.raw,
            context.raw_features,
            plan.image_encodings,
            plan.fps,
        )

    def read(self, source_id: str, episode: int) -> Episode:
        """Read an episode and turn its columns into the schema's features."""
        place: Place | None = self._places.get(episode)
        if place is None:
            raise EpisodeError(self._set.rejected.get(episode, "it is no longer there; plan again"))
        raw = self._reader.read(source_id, place)
        data, steps = self._context.columns.read(lambda key: raw.data[key])
        for name, order in self._context.orders.items():
            data[name] = data[name][:, order]
        n_steps = steps.stop - steps.start
        return replace(
            raw,
            data=data,
            images={name: islice(frames, steps.start, steps.stop) for name, frames in raw.images.items()},
            segments=_cut(raw.segments, n_steps),
            warnings=[*raw.warnings, *find_faults(self._context.columns.schema, raw.data)],
        )

    def close(self) -> None:
        """Close all files."""
        self._reader.close()


def _cut(segments: Sequence[Segment | dict[str, Any]], n_steps: int) -> list[Segment | dict[str, Any]]:
    """Cut segments to the steps that are left; no action choice drops steps at the beginning."""
    parts = [Segment.of(part) for part in segments]
    return [replace(part, end=min(part.end, n_steps)) for part in parts if part.start < n_steps]


def _features(
    columns: SchemaColumns, first: ExaminedSet, rotation: str
) -> tuple[dict[str, Feature], dict[str, np.ndarray]]:
    """Return the low-dimensional features, and the order of components of those that are to be rearranged."""
    features = columns.features(lambda key: int(np.prod(first.columns[key].shape)))
    orders: dict[str, np.ndarray] = {}
    if rotation == "quat_xyzw":
        for name, feature in features.items():
            changed, order = to_xyzw(feature)
            if changed != feature:
                features[name], orders[name] = changed, order
    return features, orders


def _episode_id(place: SetPlace, episode: int) -> str:
    return PurePosixPath(place.name, episode_name(episode)).as_posix()
