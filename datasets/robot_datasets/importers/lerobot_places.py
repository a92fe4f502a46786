"""Where each episode of a LeRobot dataset lies: rows of a data file, frames of videos, or why it cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.importers.file_tree import FileTree
from robot_datasets.importers.lerobot_meta import Files, Info, find_files, read_info
from robot_datasets.importers.lerobot_rows import RowReader
from robot_datasets.importers.lerobot_tables import EpisodeMeta, read_episodes, read_tasks
from robot_datasets.importers.lerobot_video import VideoPlace


@dataclass(frozen=True)
class Place:
    """Where an episode is: rows [start, stop) of a parquet file (None = its end), and its videos by feature."""

    file: str
    start: int = 0
    stop: int | None = None
    videos: Mapping[str, VideoPlace] = field(default_factory=dict)
    meta: EpisodeMeta = field(default_factory=lambda: EpisodeMeta(-1))


class LeRobotSet:
    """One dataset: its metadata, its files, and where its episodes are.

    Attributes:
        tree: Its files.
        info: What it says of itself.
        files: What is there.
        tasks: Instruction by number.
        metas: The episode table.
        places: Episode number -> where its rows are.
        rejected: Episode number -> why it has none.
        warnings: What the metadata says and the files contradict.
    """

    def __init__(self, tree: FileTree) -> None:
        """Read the metadata and list the files.

        Raises:
            DatasetError: The metadata are missing or damaged, or there is no data file.
        """
        self.tree = tree
        self.warnings: list[str] = []
        self.info: Info = read_info(tree, self.warnings)
        self.files: Files = find_files(tree, self.info.major)
        self.tasks = read_tasks(tree, self.warnings)
        self.metas = read_episodes(tree, self.warnings)
        if not self.files.data:
            raise DatasetError(
                f"no episode file below data/; expected parquet files of {self.info.version}{self._damaged()}"
            )
        self.rejected: dict[int, str] = {}
        self.places = self._locate()
        self.warnings += [*self._kind_warnings(), *self._count_warnings()]

    def with_videos(self, cameras: Mapping[str, str]) -> dict[int, Place]:
        """Give every episode its videos; the ones that lack one join the rejected.

        Args:
            cameras: Feature -> video key.
        """
        files = self.files
        shared = {n: self._shared_places(key) for n, key in cameras.items()} if files.shared_videos else {}
        found: dict[int, Place] = {}
        for index, place in self.places.items():
            videos: dict[str, VideoPlace] = {}
            for name, key in cameras.items():
                own = files.videos.get(key, {}).get((index,))
                video = shared[name].get(index) if files.shared_videos else VideoPlace(own) if own else None
                if video is None:
                    self.rejected[index] = (
                        f"no video of {key} was found for it below videos/{self._damaged()}; copy it again, "
                        "or convert without that camera: --option cameras=..."
                    )
                    break
                videos[name] = video
            else:
                found[index] = replace(place, videos=videos)
        return found

    def checksum(self) -> str:
        """Hash the metadata, all names and sizes, and the end of each parquet file, which sums up its columns."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.tree.files("meta"):
            digest.update(name.encode() + b"\0" + self.tree.read(name))
        for name, size in sorted(self.files.sizes.items()):
            digest.update(f"{name}\0{size}\n".encode())
            if name.endswith(".parquet"):
                digest.update(self.tree.identity(name))
        return digest.hexdigest()

    def _damaged(self) -> str:
        return f" ({self.tree.damage})" if self.tree.damage else ""

    def _locate(self) -> dict[int, Place]:
        """Find every episode's rows; note those of the episode table that have none."""
        places: dict[int, Place] = {}
        if self.files.shared_data:
            self._locate_shared(places)
        else:
            places = {index: Place(file) for (index,), file in self.files.data.items()}
        for index in self.metas.keys() - places.keys() - self.rejected.keys():
            self.rejected[index] = (
                "it is in the episode table, but no file below data/ holds its rows"
                f"{self._damaged()}; copy it again"
            )
        metas = self.metas
        return {i: replace(p, meta=metas.get(i, EpisodeMeta(i))) for i, p in sorted(places.items())}

    def _locate_shared(self, places: dict[int, Place]) -> None:
        """Find runs of episode numbers in shared files; without such a column, go by the table."""
        rows, first_row = RowReader(self.tree), 0
        for file in self.files.data.values():
            try:
                n_rows, named = rows.n_rows(file), "episode_index" in rows.names(file)
                runs = rows.episode_runs(file) if named else self._declared_runs(first_row, n_rows)
            except EpisodeError as error:
                self.warnings.append(f"{error}; its episodes are missing")
                continue
            first_row += n_rows
            for index, start, stop in runs:
                if index in places or index in self.rejected:
                    self.rejected[index] = (
                        f"its rows are scattered, in {file} and elsewhere; expected one block"
                    )
                    places.pop(index, None)
                else:
                    places[index] = Place(file, start, stop)

    def _declared_runs(self, first: int, n_rows: int) -> list[tuple[int, int, int]]:
        spans = [(m.index, m.rows[0] - first, m.rows[1] - first) for m in self.metas.values() if m.rows]
        return [(index, start, stop) for index, start, stop in spans if 0 <= start < stop <= n_rows]

    def _shared_places(self, key: str) -> dict[int, VideoPlace]:
        """Order the episodes of each shared mp4 and count the steps before each."""
        members: dict[str, list[tuple[float, int]]] = {}
        for index, place in self.places.items():
            declared = place.meta.videos.get(key)
            file = self.files.videos.get(key, {}).get(declared[:2]) if declared is not None else None
            if declared is not None and file is not None:
                members.setdefault(file, []).append((declared[2], index))
        result = {}
        for file, episodes in members.items():
            lengths = {index: self._n_rows(self.places[index]) for _, index in episodes}
            before, total = 0, sum(lengths.values())
            for start_s, index in sorted(episodes):
                result[index] = VideoPlace(file, before, total, start_s)
                before += lengths[index]
        return result

    def _n_rows(self, place: Place) -> int:
        """Return an episode's length: its rows, or the table's word for one whose file is its own."""
        return place.meta.length or 0 if place.stop is None else place.stop - place.start

    def _kind_warnings(self) -> list[str]:
        """Say where the files are laid out in another way than the version promises."""
        expected = self.info.major == 3
        kinds = {"data": self.files.shared_data}
        if self.files.videos:
            kinds["videos"] = self.files.shared_videos
        found = {True: "shared by episodes (v3.0)", False: "one for each episode (v2.1)"}
        return [
            f"info.json declares {self.info.version}, but the files below {folder}/ are {found[shared]}; "
            "they are read as they are"
            for folder, shared in kinds.items()
            if shared != expected
        ]

    def _count_warnings(self) -> list[str]:
        warnings, raw = [], self.info.raw
        if self.tree.damage:
            warnings.append(f"the archive is damaged: {self.tree.damage}; what is before the damage is read")
        if not self.metas:
            warnings.append(
                "the episode table in meta/ is missing or empty; instructions come from the rows alone"
            )
        declared = raw.get("total_episodes")
        if isinstance(declared, int) and declared != len(self.places):
            warnings.append(f"info.json declares {declared} episodes, {len(self.places)} were found")
        frames, lengths = raw.get("total_frames"), [m.length for m in self.metas.values()]
        counted = sum(n or 0 for n in lengths)
        if isinstance(frames, int) and lengths and None not in lengths and counted != frames:
            warnings.append(f"info.json declares {frames} frames, the episode table has {counted}")
        videos, n_videos = raw.get("total_videos"), sum(len(found) for found in self.files.videos.values())
        if self.info.major == 2 and isinstance(videos, int) and videos != n_videos:
            warnings.append(f"info.json declares {videos} videos, {n_videos} were found")
        return warnings


def episode_name(index: int) -> str:
    """Return the name of an episode within its dataset."""
    return f"episode_{index:06d}"
