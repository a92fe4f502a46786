"""RLDS datasets, Open X-Embodiment's among them: TFDS folders of TFRecord shards, read without TensorFlow.

One record is one episode: ``steps/<key>`` holds all steps of a key end to end, other keys one value each. What
the numbers mean is in a schema, found by the dataset's name; without one, the keys keep their own names and no
meaning is claimed. The format has no notion of a rate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, Feature
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.instructions import instruction_of_steps
from robot_datasets.importers.rlds_features import STEPS, RecordKey, read_features
from robot_datasets.importers.rlds_frames import RldsCamera, camera_features, measure
from robot_datasets.importers.rlds_schema import GENERIC, choose_schema, used_keys
from robot_datasets.importers.rlds_shards import (
    FEATURES,
    RecordPlace,
    Shard,
    checksum,
    find_root,
    find_shards,
    read_info,
    require_root,
    scan_records,
)
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.importers.settings import chosen_names, positive_rate, whole_number
from robot_datasets.importers.tfrecord import ExampleValue, TfRecordFile, parse_example

_LOG = logging.getLogger(__name__)
_RECORDED = {"reward": "next.reward", "is_terminal": "next.done"}
_INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "observation/language_instruction",
)


@dataclass(frozen=True)
class _Context:
    """How records become episodes."""

    root: Path
    keys: Mapping[str, RecordKey]
    columns: SchemaColumns
    recorded: Mapping[str, str]
    cameras: Mapping[str, RldsCamera]
    instruction: str
    task: str


class Rlds(Importer):
    """Importer of RLDS datasets in TFDS folders."""

    name = "rlds"
    version = 1
    summary = "RLDS / Open X-Embodiment: TFDS folder with features.json and tfrecord shards"
    options = (
        Option(
            "schema", "", "what the keys mean: a schema's name, a YAML file, or generic; empty = by dataset"
        ),
        Option("action", "", "which action of the schema; empty = its default"),
        Option("fps", "", "rate of the steps [Hz]; empty = the schema's, which the format does not tell"),
        Option("splits", "", "splits to convert, comma-separated; empty = all"),
        Option("cameras", "", "cameras to keep, comma-separated; empty = all of the schema"),
        Option("instruction", "", "key of the instruction below steps/; empty = the usual ones"),
        Option("success", "", "reward = last reward is 1 or more, or a key beside steps; empty = unknown"),
        Option("skip", "0", "steps to leave out at the beginning; Bridge's first action is a dummy"),
        Option(
            "last_step", "keep", "RLDS leaves the last action undefined; drop removes it", ("keep", "drop")
        ),
        Option("embodiment", "", "robot name; empty = the schema's"),
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise ``features.json`` beside at least one shard."""
        root = find_root(path)
        if root is None:
            return None
        try:
            shards = find_shards(root)
        except OSError:
            return None
        return Probe(self.name, f"{FEATURES} and {shards[0].name}") if shards else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """Read the descriptions and the headers of all records; of some, measure the frames."""
        root = require_root(path)
        keys = read_features(root / FEATURES)
        info, warnings = read_info(root)
        shards = _chosen_shards(root, options["splits"])
        records = scan_records(root, shards, info)
        schema, note = choose_schema(options["schema"], info.name, keys)
        warnings += [*note, *records.warnings]
        columns = SchemaColumns.of(schema, options["action"], lambda key: STEPS + key in keys)
        _require(columns, keys)
        wanted = chosen_names(options["cameras"], schema.cameras, "cameras")
        cameras = camera_features({name: schema.cameras[name] for name in wanted}, keys)
        frames, encodings, odd = measure(cameras, lambda n: _some_examples(root, records.refs, n))
        warnings += odd
        declared = {name: STEPS + key for key, name in _RECORDED.items() if STEPS + key in keys}
        recorded = {name: key for name, key in declared.items() if keys[key].kind == "numbers"}
        features = columns.features(lambda key: int(np.prod(keys[STEPS + key].shape)))
        for name, key in recorded.items():
            features[name] = Feature(dtype=keys[key].stored_dtype, shape=(1,))
        instruction = _instruction_key(options["instruction"], keys)
        _check_success(options["success"], keys)
        used = used_keys(columns, cameras) | {instruction, *recorded.values()}
        warnings += [
            *_no_numbers(keys, declared),
            *_unstorable(keys, used),
            *_undeclared(keys, _some_examples(root, records.refs, 3)),
        ]
        for warning in warnings:
            _LOG.warning("%s: %s", path.name, warning)
        fps = positive_rate(options["fps"] or str(schema.fps or ""), path)
        resolved = {
            "schema": f"{schema.name or GENERIC} {schema.digest}".strip(),
            "action": columns.action,
            "fps": f"{fps:g}",
            "splits": ",".join(sorted({shard.split for shard in shards})),
            "cameras": ",".join(wanted),
            "instruction": instruction.removeprefix(STEPS),
            "embodiment": options["embodiment"] or schema.robot,
        }
        return Plan(
            source=path,
            options={**options, **resolved},
            refs=records.refs,
            features=features | frames,
            fps=fps,
            embodiment=resolved["embodiment"],
            checksum=checksum(root, shards),
            image_encodings=encodings,
            rejected=records.rejected,
            notes={
                "dataset": f"{info.name} {info.version}".strip(),
                "left_out": sorted(set(keys) - used),
                "warnings": warnings,
            },
            context=_Context(root, keys, columns, recorded, cameras, instruction, schema.task),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Read one record after another; a damaged one is rejected with its reason."""
        context: _Context = plan.context
        file, name = None, ""
        try:
            for ref in refs:
                place: RecordPlace = ref.locator
                try:
                    if file is None or name != place.shard.name:
                        if file is not None:
                            file.close()
                        file, name = TfRecordFile(context.root / place.shard.name), place.shard.name
                    example = parse_example(file.read(place.span))
                    yield _episode(ref.source_id, place.shard, example, plan)
                except (EpisodeError, OSError) as error:
                    yield Rejected(ref.source_id, str(error))
        finally:
            if file is not None:
                file.close()


def _episode(source_id: str, shard: Shard, example: Mapping[str, ExampleValue], plan: Plan) -> Episode:
    context: _Context = plan.context

    def read(key: str) -> np.ndarray:
        return context.keys[key].read(_value(example, key))

    data, steps = context.columns.read(lambda key: read(STEPS + key))
    n_recorded = len(read(STEPS + context.columns.sources()[ACTION].parts[0].source))
    for name, key in context.recorded.items():
        values = read(key)
        if len(values) != n_recorded:
            raise EpisodeError(f"{key} has {len(values)} values for {n_recorded} steps")
        data[name] = values.reshape(n_recorded, 1)[steps]
    _check_boundaries(example, context.keys, n_recorded)
    kept = _kept(steps, n_recorded, plan.options)
    data = {name: values[kept.start - steps.start : kept.stop - steps.start] for name, values in data.items()}
    texts = _texts(example, context.instruction, n_recorded)[kept]
    task, segments = instruction_of_steps(texts)
    images = {
        name: camera.frames(_value(example, camera.key.path), kept, n_recorded)
        for name, camera in context.cameras.items()
    }
    return Episode(
        source_id,
        data,
        dict(images),
        task=task or context.task,
        success=_success(plan.options["success"], example, context.keys),
        split=shard.store_split,
        segments=list(segments),
        warnings=_warnings(data[ACTION], kept.stop == n_recorded, example, context),
    )


def _value(example: Mapping[str, ExampleValue], key: str) -> ExampleValue:
    if key not in example:
        raise EpisodeError(f"{key} is missing in the record, though {FEATURES} declares it")
    return example[key]


def _kept(steps: slice, n_recorded: int, options: Mapping[str, str]) -> slice:
    start = max(steps.start, whole_number(options["skip"], "skip"))
    stop = min(steps.stop, n_recorded - (options["last_step"] == "drop"))
    if stop <= start:
        raise EpisodeError(
            f"{n_recorded} recorded steps leave none with skip={options['skip']} and last_step={options['last_step']}"
        )
    return slice(start, stop)


def _check_boundaries(
    example: Mapping[str, ExampleValue], keys: Mapping[str, RecordKey], n_steps: int
) -> None:
    """A record is one episode: only its first step may be a first one, only its last a last one."""
    for name, place in (("is_first", 0), ("is_last", n_steps - 1)):
        key = keys.get(STEPS + name)
        if key is None or key.path not in example:
            continue
        marked = np.flatnonzero(key.read(example[key.path]))
        if len(marked) and marked.tolist() != [place]:
            raise EpisodeError(
                f"{key.path} marks steps {marked.tolist()[:8]} of {n_steps}, expected only {place}; "
                "the record is not one whole episode"
            )


def _texts(example: Mapping[str, ExampleValue], key: str, n_steps: int) -> list[str]:
    if not key:
        return [""] * n_steps
    texts = [bytes(text).decode("utf-8", "replace") for text in _value(example, key).byte_strings()]
    if not key.startswith(STEPS):
        texts = texts[:1] * n_steps
    if len(texts) != n_steps:
        raise EpisodeError(f"{key} has {len(texts)} texts for {n_steps} steps")
    return texts


def _success(option: str, example: Mapping[str, ExampleValue], keys: Mapping[str, RecordKey]) -> bool | None:
    if not option:
        return None
    key = STEPS + "reward" if option == "reward" else option
    values = keys[key].read(_value(example, key))
    return bool(values[-1] >= 1) if option == "reward" and len(values) else bool(values.any())


def _warnings(
    action: np.ndarray, has_last: bool, example: Mapping[str, ExampleValue], context: _Context
) -> list[str]:
    warnings = []
    if has_last and len(action) > 1 and not action[-1].any() and action[:-1].any():
        warnings.append(
            f"{ACTION}: all zeros in the last step, where RLDS leaves it undefined; "
            "--option last_step=drop leaves that step out"
        )
    for name, camera in context.cameras.items():
        key = context.keys.get(f"episode_metadata/has_{camera.key.path.rpartition('/')[2]}")
        if key is not None and key.path in example and not key.read(example[key.path]).any():
            warnings.append(f"{name}: {key.path} says that its frames are dummies")
    return warnings


def _chosen_shards(root: Path, option: str) -> list[Shard]:
    shards = find_shards(root)
    if not shards:
        raise DatasetError(f"{root} has {FEATURES} but no tfrecord files; download the shards")
    wanted = chosen_names(option, dict.fromkeys(shard.split for shard in shards), "splits")
    return [shard for shard in shards if shard.split in wanted]


def _require(columns: SchemaColumns, keys: Mapping[str, RecordKey]) -> None:
    numbers = {path.removeprefix(STEPS) for path, key in keys.items() if key.kind == "numbers"}
    for name, source in columns.sources().items():
        for part in source.parts:
            if part.source not in numbers:
                raise DatasetError(
                    f"schema {columns.schema.name} makes {name} from {STEPS}{part.source}: "
                    f"{unknown_name('key', part.source, numbers)}; choose another with --option schema=NAME, "
                    f"or schema={GENERIC}"
                )


def _no_numbers(keys: Mapping[str, RecordKey], declared: Mapping[str, str]) -> list[str]:
    """Say which of the columns that are kept under a name of ours are declared as something else."""
    return [
        f"{key} is declared as {keys[key].dtype or 'something else'}, expected numbers; left out"
        for key in declared.values()
        if keys[key].kind != "numbers"
    ]


def _unstorable(keys: Mapping[str, RecordKey], used: set[str]) -> list[str]:
    """Say which observations are of a kind that a store cannot hold; others that are left out were not asked for."""
    return [
        f"{path} is {key.dtype or 'of another kind'} {key.shape}, which cannot be stored; left out"
        for path, key in sorted(keys.items())
        if path not in used and path.startswith(STEPS + "observation/") and key.kind in ("image", "other")
    ]


def _undeclared(keys: Mapping[str, RecordKey], examples: Iterator[Mapping[str, ExampleValue]]) -> list[str]:
    """Say which keys of the records nothing describes: `FEATURES` may be damaged, or of another version."""
    found = {path for example in examples for path in example if not _declares(keys, path)}
    return [f"the records hold {path}, which {FEATURES} does not declare; left out" for path in sorted(found)]


def _declares(keys: Mapping[str, RecordKey], path: str) -> bool:
    """Whether a key is declared; ragged features are spread over several keys below their own."""
    return path in keys or any(path.startswith(f"{known}/") for known in keys)


def _instruction_key(option: str, keys: Mapping[str, RecordKey]) -> str:
    texts = [path for path, key in keys.items() if key.kind == "text"]
    if option:
        for path in (STEPS + option, option):
            if path in texts:
                return path
        raise DatasetError(f"option instruction: {unknown_name('text', option, texts)}")
    return next((STEPS + name for name in _INSTRUCTIONS if STEPS + name in texts), "")


def _check_success(option: str, keys: Mapping[str, RecordKey]) -> None:
    key = STEPS + "reward" if option == "reward" else option
    if key and (key not in keys or keys[key].kind != "numbers"):
        known = [path for path, k in keys.items() if k.kind == "numbers" and not k.per_step]
        raise DatasetError(f"option success: {unknown_name('key', option, ['reward', *known])}")


def _some_examples(
    root: Path, refs: Sequence[EpisodeRef], count: int
) -> Iterator[Mapping[str, ExampleValue]]:
    """Yield the records that can be read among `count` evenly spread ones."""
    for index in np.unique(np.linspace(0, len(refs) - 1, min(count, len(refs)), dtype=int)):
        place: RecordPlace = refs[index].locator
        try:
            with TfRecordFile(root / place.shard.name) as file:
                yield parse_example(file.read(place.span))
        except (EpisodeError, OSError):  # reading the episode itself will report it
            continue
