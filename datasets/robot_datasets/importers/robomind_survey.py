"""Looking at a few files of every task before a conversion: their keys, the size of their frames, their rates.

Sizes and rates differ between tasks of one embodiment, and what the files say of themselves is not always true.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import DatasetError
from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX, Feature
from robot_datasets.importers.hdf5_reading import find_dataset, open_hdf5
from robot_datasets.importers.hdf5_vlen import check_byte_strings
from robot_datasets.importers.robomind_frames import ColourRule, DepthRule, measure_frame
from robot_datasets.importers.robomind_tree import Trajectory
from robot_datasets.importers.settings import chosen_names
from robot_datasets.isolation import call_isolated
from robot_datasets.schemas import EmbodimentSchema

if TYPE_CHECKING:
    import h5py

_TRIED_PER_TASK = 12
_PREFIX = "camera_"

Size = tuple[int, int]


@dataclass(frozen=True)
class Camera:
    """One image feature of the store.

    Attributes:
        feature: Its name.
        key: Where its frames are in a file.
        stored: Colour order of its frames in the store, ``"rgb"`` or ``"bgr"``; empty for depth.
        size: (height, width) [px]; zeros if sizes vary.
    """

    feature: str
    key: str
    stored: str = ""
    size: Size = (0, 0)

    @property
    def is_depth(self) -> bool:
        """Whether it is a depth camera."""
        return self.feature.startswith(DEPTH_PREFIX)

    @property
    def encoding(self) -> str:
        """Encoding in the store."""
        return "png" if self.is_depth else ColourRule(self.stored, self.stored).encoding

    def describe(self) -> Feature:
        """Return the feature."""
        if self.is_depth:
            return Feature(dtype="uint16", shape=(*self.size, 1), units=("mm",))
        return Feature(dtype="uint8", shape=(*self.size, 3))


@dataclass
class Survey:
    """What was found in the files that were looked at.

    Attributes:
        n_files: Usable files.
        present: Key -> in how many of them it is, with content.
        sizes: Image feature -> (height, width) of first frames [px].
        orders: Colour feature -> how often each order of ``"rgb"`` and ``"bgr"`` was found.
        rates: Task -> rate of each file that tells it [Hz].
        reasons: Why files were not usable, and cameras not readable.
    """

    n_files: int = 0
    present: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, set[Size]] = field(default_factory=dict)
    orders: dict[str, dict[str, int]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """Whether most usable files have a key; one damaged file shall not decide for all."""
        return 2 * self.present.get(key, 0) > self.n_files

    def left_out(self, schema: EmbodimentSchema, names: Collection[str]) -> list[str]:
        """Warn about optional features that some files have and the store has not.

        Args:
            schema: The embodiment.
            names: Features of the store.
        """
        counts = {
            name: min(self.present.get(part.source, 0) for part in source.parts)
            for name, source in schema.features.items()
            if name not in names
        }
        return [
            f"{name}: in {count} of {self.n_files} files that were looked at; left out"
            for name, count in counts.items()
            if count
        ]

    def add(self, trajectory: Trajectory, task: str, facts: FileFacts) -> bool:
        """Count one file in, unless it has no readable frame; return whether it was usable."""
        self.reasons += [f"{trajectory.source_id}: {reason}" for reason in facts.reasons]
        if not facts.sizes:
            return False
        self.n_files += 1
        for key in facts.present:
            self.present[key] = self.present.get(key, 0) + 1
        for name, size in facts.sizes.items():
            self.sizes.setdefault(name, set()).add(size)
        for name, order in facts.orders.items():
            counts = self.orders.setdefault(name, {})
            counts[order] = counts.get(order, 0) + 1
        if facts.rate is not None:
            self.rates.setdefault(task, []).append(facts.rate)
        return True

    def reason(self) -> str:
        """The first reason, as the end of a message; empty if there is none."""
        return f"; the first that failed, {self.reasons[0]}" if self.reasons else ""


@dataclass(frozen=True)
class FileFacts:
    """What one file holds; the fields are those of `Survey`."""

    present: tuple[str, ...]
    sizes: Mapping[str, Size]
    orders: Mapping[str, str]
    rate: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Probes:
    """What to look for in an open file.

    Attributes:
        cameras: Image feature -> key.
        keys: Keys whose presence matters.
        order: Colour order of a camera's frames in a file, from the file and the key.
        rate: Rate of a file [Hz], None if it does not tell.
        find: Finds the dataset of a key.
    """

    cameras: Mapping[str, str]
    keys: Iterable[str]
    order: Callable[[h5py.File, str], str]
    rate: Callable[[h5py.File], float | None]
    find: Callable[[h5py.File, str], Any] = find_dataset


def survey(
    trajectories: Sequence[Trajectory], per_task: int, look: Callable[..., FileFacts], *arguments: Any
) -> Survey:
    """Look at up to `per_task` usable files of every task, spread over its episodes.

    Args:
        trajectories: All episodes.
        per_task: How many of each task.
        look: Called with a path and `arguments`, in a helper process, because a damaged file may crash HDF5.
        arguments: Picklable.
    """
    by_task: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        by_task.setdefault(trajectory.task, []).append(trajectory)
    found = Survey()
    for task, candidates in by_task.items():
        usable = 0
        for trajectory in _spread(candidates, per_task):
            try:
                facts = call_isolated(look, trajectory.path, *arguments)
            except DatasetError as error:
                found.reasons.append(f"{trajectory.source_id}: {error}")
                continue
            usable += found.add(trajectory, task, facts)
            if usable == per_task:
                break
    return found


def choose_cameras(
    schema: EmbodimentSchema, options: Mapping[str, str], order: str = ""
) -> dict[str, tuple[str, str]]:
    """Return image feature -> (key, colour order) of the cameras that the options ask for.

    Args:
        schema: The embodiment.
        options: ``cameras`` (short names or those of the files) and ``depth``.
        order: Colour order if the schema leaves it to the files.
    """
    wanted = ",".join(name.strip().removeprefix(_PREFIX) for name in options["cameras"].split(","))
    names = chosen_names(wanted, schema.cameras, "cameras")
    chosen = {
        IMAGE_PREFIX + n: (schema.cameras[n].source, schema.cameras[n].channels or order) for n in names
    }
    if options["depth"] == "keep":
        chosen |= {DEPTH_PREFIX + n: (schema.cameras[n].depth, "") for n in names if schema.cameras[n].depth}
    return chosen


def surveyed_cameras(
    chosen: Mapping[str, tuple[str, str]], found: Survey, options: Mapping[str, str], what: str
) -> tuple[Camera, ...]:
    """Return the cameras that exist, with their sizes and colour orders.

    A camera that no file has is left out, unless it was asked for by name or none is left.

    Raises:
        DatasetError: A camera that was asked for has no readable frames.
    """
    colour = [name for name in chosen if name.startswith(IMAGE_PREFIX)]
    absent = [name for name in colour if not found.sizes.get(name)]
    if absent and (options["cameras"] or len(absent) == len(colour)):
        raise DatasetError(f"no file of {what} has readable frames of {', '.join(absent)}{found.reason()}")
    cameras = []
    for name, (key, order) in chosen.items():
        sizes = found.sizes.get(name, set())
        if sizes:
            one_size = len(sizes) == 1 and options["frame_size"] != "any"
            orders = found.orders.get(name, {})
            stored = order or max(sorted(orders), key=lambda o: orders[o], default="")
            cameras.append(Camera(name, key, stored, next(iter(sizes)) if one_size else (0, 0)))
    return tuple(cameras)


def file_facts(path: Path, probes: Probes) -> FileFacts:
    """Look at one file.

    Raises:
        EpisodeError: It cannot be opened or is damaged.
    """
    sizes: dict[str, Size] = {}
    orders: dict[str, str] = {}
    reasons = []
    with open_hdf5(path) as file:
        present = tuple(sorted(key for key in probes.keys if _has_content(probes.find(file, key))))
        for name, key in probes.cameras.items():
            try:
                dataset = find_dataset(file, key)
                if dataset is None:
                    continue
                check_byte_strings(dataset)
                if name.startswith(DEPTH_PREFIX):
                    sizes[name] = measure_frame(dataset, DepthRule())
                    continue
                order = probes.order(file, key)
                sizes[name], orders[name] = measure_frame(dataset, ColourRule(order, order)), order
            except DatasetError as error:
                reasons.append(str(error))
        rate = probes.rate(file)
    return FileFacts(present, sizes, orders, rate, tuple(reasons))


def _has_content(dataset: Any) -> bool:
    return dataset is not None and bool(dataset.size)


def _spread(candidates: Sequence[Trajectory], count: int) -> Iterator[Trajectory]:
    """Yield candidates, some that are spread evenly first, then others in case those are unusable."""
    first = sorted({len(candidates) * k // count for k in range(count)})
    others = [i for i in range(len(candidates)) if i not in set(first)]
    for i in [*first, *others[:_TRIED_PER_TASK]]:
        yield candidates[i]
