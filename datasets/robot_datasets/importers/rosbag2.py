"""ROS 2 bags, mcap and sqlite3: topics become features by a map that the user gives.

A bag says what was recorded, not what it means; streams of different rates meet on a clock by a policy that is
written down in the map, and recorded with the store.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, Feature
from robot_datasets.image_codec import ENCODINGS, decode_frame, sniff_encoding
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.rosbag2_bag import METADATA, Bag, BagFiles, find_bags, is_storage
from robot_datasets.importers.rosbag2_episodes import EpisodePlace, find_episodes
from robot_datasets.importers.rosbag2_images import check_type, frame_of
from robot_datasets.importers.rosbag2_map import BagMap, MapPart, read_map
from robot_datasets.importers.rosbag2_messages import MessageTypes, numbers, text
from robot_datasets.importers.rosbag2_storage import BagError, RawMessage
from robot_datasets.importers.rosbag2_streams import EpisodeReader, Span
from robot_datasets.importers.settings import positive_rate
from robot_datasets.schemas.schema import Part

_LOG = logging.getLogger(__name__)
_SHOWN_TOPICS = 12
_PROBE_DEPTH = 4
_PROBE_FOLDERS = 500
_END_OF_TIME = 1 << 63
MAP = "map.yaml"
"""The map in a bag's folder."""


@dataclass(frozen=True)
class _Place:
    """An episode and the bag it is in; picklable."""

    bag: BagFiles
    episode: EpisodePlace


class Rosbag2(Importer):
    """Importer of ROS 2 bags."""

    name = "rosbag2"
    version = 1
    summary = (
        "ROS 2 bags, mcap or sqlite3: a bag's folder, a file, or a folder of bags; "
        "needs --option map=FILE.yaml, or a map.yaml in each bag's folder"
    )
    options = (
        Option(
            "map",
            "",
            f"YAML file: which topics become which features, on which clock; empty takes the bags' own {MAP}",
        ),
        Option(
            "incomplete",
            "set_aside",
            "what to do with a bag that lacks messages which its metadata or index counts",
            ("set_aside", "keep"),
        ),
        Option("image_encoding", "png", "how raw images are stored; jpeg loses detail", ENCODINGS),
        Option("task", "", "instruction of all episodes; empty = the map's"),
        Option("embodiment", "", "robot name; empty = the map's"),
    )

    def probe(self, path: Path) -> Probe | None:
        """Look for a bag's metadata or storage files in a bounded number of folders."""
        if path.is_file():
            return Probe(self.name, path.name) if is_storage(path) else None
        folders, looked = [(path, 0)], 0
        while folders and looked < _PROBE_FOLDERS:
            folder, depth = folders.pop(0)
            looked += 1
            try:
                entries = sorted(folder.iterdir()) if folder.is_dir() else []
            except OSError:
                continue
            found = next((entry for entry in entries if is_storage(entry) and entry.is_file()), None)
            if found is not None:
                return Probe(self.name, found.name)
            if depth < _PROBE_DEPTH:
                folders += [(entry, depth + 1) for entry in entries if entry.is_dir()]
        return None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """Open every bag: what it counts, and where its episodes are. The first good one says how large things are."""
        bags = find_bags(path)
        if not bags:
            raise DatasetError(f"{path} holds no {METADATA}, .mcap or .db3 file; check the path")
        mapping, recorded = read_map(Path(options["map"]) if options["map"] else _map_beside(bags))
        refs: list[EpisodeRef] = []
        rejected: list[Rejected] = []
        warnings: list[str] = []
        survey: _Survey | None = None
        for files in bags:
            try:
                with Bag(files) as bag:
                    _require_topics(bag, mapping)
                    types = MessageTypes(bag.topics)
                    found = find_episodes(bag, types, mapping.episodes)
                    good = [place for place in found if isinstance(place, EpisodePlace)]
                    if survey is None and good:
                        survey = _survey(bag, types, mapping, good[0].span, options["image_encoding"])
                    warnings += [f"{files.name}: {line}" for line in bag.faults]
            except DatasetError as error:  # also if it alone does not fit the map: the next one may
                rejected.append(Rejected(files.name, str(error)))
                continue
            rejected += [place for place in found if isinstance(place, Rejected)]
            refs += [EpisodeRef(place.source_id, _Place(files, place), group=files.name) for place in good]
        if survey is None:
            reason = f"; the first, {rejected[0].source_id}: {rejected[0].reason}" if rejected else ""
            raise DatasetError(f"{path}: none of {len(bags)} bags has an episode that fits the map{reason}")
        for warning in warnings:
            _LOG.warning("%s", warning)
        return Plan(
            source=path,
            options={
                **options,
                "map": recorded,
                "task": options["task"] or mapping.task,
                "embodiment": options["embodiment"] or mapping.robot,
            },
            refs=refs,
            features=survey.features,
            fps=positive_rate(f"{survey.rate!r}", path),
            embodiment=options["embodiment"] or mapping.robot,
            checksum=_checksum(path, bags),
            image_encodings=survey.encodings,
            rejected=rejected,
            notes={"bags": len(bags), "warnings": warnings},
            context=mapping,
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Read one episode after another; a bag stays open while its episodes are asked for."""
        bag, types, opened = None, None, None
        try:
            for ref in refs:
                place: _Place = ref.locator
                try:
                    if bag is None or types is None or opened != place.bag:
                        if bag is not None:
                            bag.close()
                            bag = None
                        bag, opened = Bag(place.bag), place.bag
                        types = MessageTypes(bag.topics)
                    yield _episode(bag, types, place.episode, plan)
                except EpisodeError as error:
                    yield Rejected(ref.source_id, str(error))
        finally:
            if bag is not None:
                bag.close()


@dataclass(frozen=True)
class _Survey:
    """What the first good bag says of all."""

    features: Mapping[str, Feature]
    encodings: Mapping[str, str]
    rate: float


def _episode(bag: Bag, types: MessageTypes, place: EpisodePlace, plan: Plan) -> Episode:
    mapping: BagMap = plan.context
    keep = plan.options["incomplete"] == "keep"
    if bag.miscounts and not keep:
        raise EpisodeError(
            f"{bag.miscounts[0]}; copy the bag again, or take it as it is with --option incomplete=keep"
        )
    reader = EpisodeReader(bag, types, mapping, encoding=plan.options["image_encoding"], complete=not keep)
    data, frames, segments, warnings = reader.read(place.span)
    warnings += [f"bag: {line}" for line in bag.faults]
    task = plan.options["task"] or _task(bag, types, mapping, place.span)
    return Episode(
        place.source_id, data, dict(frames), task, place.success, segments=[*segments], warnings=warnings
    )


def _task(bag: Bag, types: MessageTypes, mapping: BagMap, span: Span) -> str:
    """Return the instruction that the bag tells: the first within the episode, else the last one before it."""
    told = mapping.task_from
    if told is None or told.topic not in bag.topics:
        return ""
    inside = next(iter(bag.messages([told.topic], span.start, span.end)), None)
    if inside is not None:
        return text(types.decode(inside), told.field, told.topic)
    last = None
    for message in bag.messages([told.topic], 0, span.start):
        last = message
    return text(types.decode(last), told.field, told.topic) if last is not None else ""


def _require_topics(bag: Bag, mapping: BagMap) -> None:
    for topic in mapping.topics():
        if topic not in bag.topics:
            raise BagError(unknown_name("topic", topic, bag.topics))


def _survey(bag: Bag, types: MessageTypes, mapping: BagMap, span: Span, encoding: str) -> _Survey:
    """Measure the first messages of every topic."""
    described = [_described(bag, types, part) for part in mapping.parts()]
    features: dict[str, Feature] = {}
    place = 0
    for name, feature in mapping.features.items():
        features[name] = feature.describe(tuple(described[place : place + len(feature.parts)]))
        place += len(feature.parts)
    action = mapping.action
    if action.next_of:
        features[ACTION] = replace(
            features[action.next_of], meaning=action.meaning or f"next {action.next_of}"
        )
    else:
        features[ACTION] = action.describe(tuple(described[place:]), meaning=action.meaning)
    encodings = {}
    for camera, source in mapping.cameras.items():
        kind = bag.topics[source.topic].type
        check_type(kind, source.topic)
        message = _first(bag, source.topic)
        frame = frame_of(types.decode(message), kind, source.topic, depth=source.depth, encoding="png")
        try:
            size = decode_frame(frame).shape[:2]
        except DatasetError as error:
            raise BagError(f"{source.topic}: {error}") from error
        name = mapping.image_name(camera)
        features[name] = Feature(
            dtype="uint16" if source.depth else "uint8",
            shape=(*size, 1 if source.depth else 3),
            units=("mm",) if source.depth else (),
        )
        passed_through = "Compressed" in kind
        encodings[name] = sniff_encoding(frame) or "png" if passed_through or source.depth else encoding
    rate = mapping.clock.rate
    if rate is None:
        rate = EpisodeReader(bag, types, mapping, encoding=encoding, complete=False).clock_rate(span)
    return _Survey(features, encodings, rate)


def _first(bag: Bag, topic: str) -> RawMessage:
    message = next(iter(bag.messages([topic], 0, _END_OF_TIME)), None)
    if message is None:
        raise BagError(f"{topic} has no messages; expected at least one")
    return message


def _described(bag: Bag, types: MessageTypes, part: MapPart) -> Part:
    """Describe a part by its first message."""
    if part.joints:
        return part.as_part(len(part.joints), part.joints)
    values, found = numbers(types.decode(_first(bag, part.topic)), part.field, part.topic)
    return part.as_part(len(values), found)


def _map_beside(bags: Sequence[BagFiles]) -> Path:
    """Return the map that a recorder left in the bags' folders, where all of them have the same."""
    found = {file.parent / MAP for bag in bags for file in bag.files[:1]}
    there = sorted(path for path in found if path.is_file())
    if not there:
        raise DatasetError(_what_to_map(bags))
    missing = sorted(found - set(there))
    if missing:
        raise DatasetError(
            f"{there[0]} is there, {missing[0]} is not; give one for all with --option map={there[0]}"
        )
    texts = [path.read_bytes() for path in there]
    other = next((path for path, text in zip(there, texts, strict=True) if text != texts[0]), None)
    if other is not None:
        raise DatasetError(
            f"{there[0]} and {other} differ; give the one that is meant with --option map=FILE.yaml"
        )
    return there[0]


def _what_to_map(bags: Sequence[BagFiles]) -> str:
    """Say which topics there are, for the map that is missing."""
    for files in bags:
        try:
            with Bag(files) as bag:
                shown = sorted(bag.topics.values(), key=lambda topic: topic.name)[:_SHOWN_TOPICS]
        except EpisodeError:
            continue
        listed = ", ".join(f"{t.name} ({t.type}, {t.count} messages)" for t in shown) or "no topics"
        return (
            f"a bag does not say what its topics mean; give --option map=FILE.yaml for {files.name}: {listed}"
        )
    return "a bag does not say what its topics mean; give --option map=FILE.yaml"


def _checksum(path: Path, bags: Sequence[BagFiles]) -> str:
    """Hash names and sizes; reading all frames only to notice a change would cost as much as converting them."""
    digest = hashlib.blake2b(digest_size=16)
    for bag in bags:
        for file in (*bag.files, *([bag.metadata] if bag.metadata is not None else [])):
            digest.update(f"{bag.name}\0{file.name}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()
