"""What the importers of both releases of RoboMIND are alike in: one trajectory is one HDF5 file of a tree."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Plan, Probe, Rejected
from robot_datasets.importers.hdf5_reading import open_hdf5
from robot_datasets.importers.robomind_tree import Trajectory, probe_tree, release_of

if TYPE_CHECKING:
    import h5py

_OTHER = {
    1: "the file is of RoboMIND 1.x; convert it apart with --format robomind",
    2: "the file is of RoboMIND 2.0; convert it apart with --format robomind2",
}


class RoboMindImporter(Importer):
    """Finds trajectories of one release, and reads one file after another."""

    release: ClassVar[int]
    """1 or 2."""

    def probe(self, path: Path) -> Probe | None:
        """Look for a trajectory of the release below a ``success_episodes`` folder."""
        found = probe_tree(path, self.release)
        return Probe(self.name, found) if found else None

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Open one file after another; an unusable one is rejected with its reason."""
        for ref in refs:
            try:
                with open_hdf5(ref.locator.path) as file:
                    found = release_of(file)
                    if found in _OTHER and found != self.release:
                        raise EpisodeError(_OTHER[found])
                    yield self.read(file, ref.locator, plan)
            except DatasetError as error:
                yield Rejected(ref.source_id, str(error))

    @abstractmethod
    def read(self, file: h5py.File, trajectory: Trajectory, plan: Plan) -> Episode:
        """Read the open file of one trajectory; its frames are read as they are consumed.

        Raises:
            DatasetError: The file cannot be used; says why.
        """
