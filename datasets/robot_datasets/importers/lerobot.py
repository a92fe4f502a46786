"""LeRobot datasets v2.0, v2.1 and v3.0, read from their files; the lerobot package is not needed.

What is in the folder counts, not what info.json says of it: differences are warnings, kept in the store's
source record. Video frames are decoded once, in order, and encoded again; image columns pass through as
they are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robot_datasets.archives import ArchiveError
from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import DEPTH_PREFIX
from robot_datasets.image_codec import ENCODINGS
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.file_tree import (
    ARCHIVE_OPTIONS,
    FileTree,
    FolderTree,
    archive_limits,
    dataset_roots,
    is_archive,
    open_archive,
)
from robot_datasets.importers.interndata_sets import has_known_columns
from robot_datasets.importers.lerobot_episode import EpisodeReader, SetLabels
from robot_datasets.importers.lerobot_features import ColumnPlan, FeaturePlanner
from robot_datasets.importers.lerobot_meta import INFO_FILE
from robot_datasets.importers.lerobot_places import LeRobotSet, episode_name
from robot_datasets.importers.settings import positive_rate

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Context:
    """What reading an episode needs."""

    columns: ColumnPlan
    labels: SetLabels


class LeRobot(Importer):
    """Importer of LeRobot datasets."""

    name = "lerobot"
    version = 2
    summary = "LeRobot dataset v2.0, v2.1 or v3.0: a folder with meta/info.json, data/ and videos/, or an archive of it"
    options = (
        Option(
            "image_encoding",
            "jpeg",
            "how decoded video frames are stored; jpeg (quality 95) loses detail, png and raw do not",
            ENCODINGS,
        ),
        Option("cameras", "", "cameras to keep, comma-separated; empty = all that have files"),
        Option("fps", "", "rate of the steps [Hz]; empty = that of the dataset"),
        Option("embodiment", "", "robot name; empty = the dataset's robot_type"),
        Option("timestamps", "drop", "keep the recorded times as the feature 'timestamp'", ("drop", "keep")),
        *ARCHIVE_OPTIONS,
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise ``meta/info.json`` with a codebase_version; leave InternData-A1's columns to its own importer."""
        file = path / INFO_FILE
        if not file.is_file():
            return None
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(info, dict) or "codebase_version" not in info:
            return None
        features = info.get("features")
        if isinstance(features, dict) and has_known_columns(features):
            return None
        return Probe(self.name, f"meta/info.json, codebase_version {info['codebase_version']}")

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """Read the metadata, list the files, and look into the first readable ones for types and sizes."""
        try:
            return self._plan(path, options)
        except ArchiveError:
            raise
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error

    def _plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        source = LeRobotSet(_tree(path, options))
        warnings = list(source.warnings)
        planner = FeaturePlanner(source, options, warnings)
        columns, features = planner.columns()
        if source.tree.damage and planner.lost_cameras and not options["cameras"]:
            raise DatasetError(
                f"the archive is damaged ({source.tree.damage}) and has no video of {planner.lost_cameras[0]}; "
                "copy it again, or choose the cameras that are left with --option cameras=..."
            )
        fps = positive_rate(options["fps"], path) if options["fps"] else planner.rate()
        places = source.with_videos({name: frames.key for name, frames in columns.cameras.items()})
        for warning in warnings:
            _logger.warning("%s: %s", path, warning)
        embodiment = options["embodiment"] or source.info.robot_type
        return Plan(
            source=path,
            options={**options, "fps": f"{fps:g}", "embodiment": embodiment},
            refs=[EpisodeRef(episode_name(index), place) for index, place in places.items()],
            features=features,
            fps=fps,
            embodiment=embodiment,
            checksum=source.checksum(),
            image_encodings=image_encodings(columns, options["image_encoding"]),
            rejected=[Rejected(episode_name(i), reason) for i, reason in sorted(source.rejected.items())],
            notes={"codebase_version": source.info.version, "warnings": warnings},
            context=_Context(columns, SetLabels.of(source)),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Yield episodes; every video file is decoded once when they are asked for in order."""
        context: _Context = plan.context
        tree = _tree(plan.source, plan.options)
        encodings = plan.image_encodings
        with EpisodeReader(
            tree, context.labels, context.columns, plan.features, encodings, plan.fps
        ) as reader:
            for ref in refs:
                try:
                    episode = reader.read(ref.source_id, ref.locator)
                except EpisodeError as error:
                    yield Rejected(ref.source_id, str(error))
                else:
                    yield episode


def image_encodings(columns: ColumnPlan, chosen: str) -> dict[str, str]:
    """Return how each camera is stored; depth from videos is never JPEG."""
    videos = {
        name: "png" if name.startswith(DEPTH_PREFIX) and chosen == "jpeg" else chosen
        for name in columns.cameras
    }
    return {**videos, **columns.image_encodings}


def _tree(path: Path, options: Mapping[str, str]) -> FileTree:
    """Return the files of the one dataset at `path`."""
    if not is_archive(path):
        return FolderTree(path)
    tree = open_archive(path, archive_limits(options))
    roots = dataset_roots(tree)
    if len(roots) != 1:
        found = f"{len(roots)} datasets ({', '.join(roots[:3])})" if roots else "no dataset"
        raise DatasetError(f"the archive holds {found}; expected one folder with {INFO_FILE}")
    return tree.below(roots[0]) if roots[0] else tree
