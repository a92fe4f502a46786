"""The importer of RoboMIND 1.x, on trees synthesised to the published layouts."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from robot_datasets.convert import ConversionReport, convert
from robot_datasets.features import ACTION, STATE
from robot_datasets.image_codec import JPEG_BGR
from robot_datasets.importers.base import Importer
from robot_datasets.importers.robomind_hdf5 import RoboMindHdf5
from robot_datasets.importers.robomind_tree import parse_trajectory
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.robomind import FOLDERS, write_robomind
from robot_datasets.testing.scene import assert_scene

POSE = "observation.end_effector"


class TestFranka1Rgb(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = tmp_path / "robomind"
        write_robomind(root, episode="1014_144602", n_steps=5, seed=1)
        write_robomind(
            root, episode="2024_10_08-16_13_09-172910045527931776.00", split="val", n_steps=6, seed=2
        )
        write_robomind(root, task="pick_cup", episode="307342-2024_10_24_15_25_24", n_steps=4, seed=3)
        write_robomind(root, task="pick_cup", episode="400000-cut", seed=4, faults={"truncated"})
        return root


class TestAgileX(ImporterTests):
    options = {"fps": "15", "depth": "drop"}  # noqa: RUF012

    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for index in range(3):
            write_robomind(tmp_path / "r", "h5_agilex_3rgb", episode=f"{index}", n_steps=5, seed=index)
        return tmp_path / "r"


class TestSimulatedFranka(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for index in range(3):
            write_robomind(tmp_path / "r", "h5_simulation", episode=f"{index}", n_steps=30, seed=index)
        return tmp_path / "r"


def _convert(root: Path, tmp_path: Path, **options: str) -> tuple[EpisodeStore, ConversionReport]:
    report = convert(root, tmp_path / "out.zarr", format="robomind", options=options)
    return EpisodeStore.open(tmp_path / "out.zarr"), report


def _warnings(store: EpisodeStore) -> list[str]:
    return [text for texts in store.warnings.values() for text in texts]


@pytest.mark.parametrize(
    ("path", "source_id", "split"),
    [
        (
            "benchmark1_0_release/h5_franka_1rgb/bread/success_episodes/train/1014_144602/data/trajectory.hdf5",
            "benchmark1_0_release/h5_franka_1rgb/bread/success_episodes/train/1014_144602",
            "train",
        ),
        (
            "deep/down/h5_franka_3rgb/close_bin/success_episodes/2024-11-13-16-52-40/data/trajectory.hdf5",
            "h5_franka_3rgb/close_bin/success_episodes/2024-11-13-16-52-40",
            "",
        ),
        (
            "h5_franka_3rgb/close_bin/success_episodes/val/e/trajectory.hdf5",
            "h5_franka_3rgb/close_bin/success_episodes/val/e",
            "val",
        ),
    ],
)
def test_paths_are_read_from_their_anchor(path: str, source_id: str, split: str) -> None:
    """Depth above and below success_episodes, split folder and episode names differ between releases."""
    trajectory = parse_trajectory(Path("/anywhere") / path)
    assert trajectory is not None
    assert (trajectory.source_id, trajectory.split) == (source_id, split)


def test_paths_without_anchor_are_not_trajectories() -> None:
    """A trajectory.hdf5 elsewhere is not claimed."""
    assert parse_trajectory(Path("/data/h5_franka_1rgb/bread/failures/e/data/trajectory.hdf5")) is None


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_embodiment_converts_with_right_colours_and_untouched_bytes(
    folder: str, tmp_path: Path
) -> None:
    """JPEG bytes are those of the source, and the red apple is red, whichever order the authors document."""
    written = write_robomind(tmp_path / "r", folder, n_steps=20)
    store, report = _convert(tmp_path / "r", tmp_path, action="puppet_same")
    assert report.n_episodes == 1
    with h5py.File(written.path) as file:
        for camera in written.cameras:
            column = store.images(f"observation.images.{camera}")
            source = file[f"observations/rgb_images/camera_{camera}"]
            assert store.n_steps == len(source)  # type: ignore[arg-type]
            for step in (0, 7, store.n_steps - 1):
                assert bytes(column.encoded(step)) == source[step].tobytes()  # type: ignore[index]
                assert_scene(column.decode([step])[0])
            assert (column.encoding == JPEG_BGR) == (
                ("franka" not in folder and "ur" not in folder) or "sim" in folder
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_component_has_a_name(folder: str, tmp_path: Path) -> None:
    """State, action and every other vector say what their components are; states are those of the known arm."""
    written = write_robomind(tmp_path / "r", folder, n_steps=20)
    store, _ = _convert(tmp_path / "r", tmp_path, action="puppet_same", depth="drop")
    for name in store.spec.low_dim:
        assert len(store.features[name].names) == store.features[name].shape[0]
    names, state = store.features[STATE].names, store.column(STATE)
    side = "" if len(written.arms) == 1 else "left_"
    columns = [names.index(name) for name in names if name.startswith(f"{side}joint")]
    assert len(columns) in (6, 7)
    np.testing.assert_allclose(state[0, columns], written.arms[0].joints[0, : len(columns)], atol=1e-6)
    np.testing.assert_array_equal(store.column(ACTION), state)
