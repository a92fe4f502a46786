"""The importer of RoboMIND 1.x Franka trajectories, on files synthesised to the published layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_datasets.convert import ConversionReport, convert
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.base import Importer
from robot_datasets.importers.robomind_hdf5 import RoboMindHdf5
from robot_datasets.importers.robomind_tree import parse_trajectory
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests

Writer = Callable[..., Path]
ALL_THREE = ("camera_top", "camera_left", "camera_right")


class TestFranka1Rgb(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path, write_trajectory: Writer) -> Path:
        root = tmp_path / "robomind"
        write_trajectory(root, episode="1014_144602", n_steps=5, seed=1)
        write_trajectory(root, episode="2024_10_08-16_13_09-172910045527931776.00", split="val", seed=2)
        write_trajectory(root, task="pick_cup", episode="307342-2024_10_24_15_25_24", n_steps=4, seed=3)
        damaged = write_trajectory(root, task="pick_cup", episode="400000-cut", seed=4)
        damaged.write_bytes(damaged.read_bytes()[:5000])
        return root


class TestFranka3Rgb(ImporterTests):
    options = {"action": "master", "fps": "15"}  # noqa: RUF012

    @pytest.fixture
    def importer(self) -> Importer:
        return RoboMindHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path, write_trajectory: Writer) -> Path:
        for index in range(3):
            write_trajectory(
                tmp_path / "r", folder="h5_franka_3rgb", cameras=ALL_THREE, episode=f"{index}", seed=index
            )
        return tmp_path / "r"


def _open(path: Path, mode: str = "r") -> Any:
    return h5py.File(path, mode)


def _convert(root: Path, tmp_path: Path, **options: str) -> tuple[EpisodeStore, ConversionReport]:
    report = convert(root, tmp_path / "out.zarr", format="robomind_hdf5", options=options)
    return EpisodeStore.open(tmp_path / "out.zarr"), report


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


def test_jpeg_bytes_pass_through_untouched(tmp_path: Path, write_trajectory: Writer) -> None:
    """The stored frames are the source's bytes, not a re-encoding."""
    path = write_trajectory(tmp_path / "r", n_steps=5)
    store, _ = _convert(tmp_path / "r", tmp_path)
    images, depth = store.images("observation.images.top"), store.images("observation.depth.top")
    with _open(path) as file:
        for step in range(store.n_steps):
            assert bytes(images.encoded(step)) == file["observations/rgb_images/camera_top"][step].tobytes()
            assert bytes(depth.encoded(step)) == file["observations/depth_images/camera_top"][step].tobytes()
    assert images.encoding == "jpeg"


def test_franka_colours_are_right_as_they_are(tmp_path: Path, write_trajectory: Writer) -> None:
    """A red JPEG decodes to red: Franka files hold true JPEGs, whatever "BGR" the documentation says."""
    path = write_trajectory(tmp_path / "r", n_steps=2)
    red = np.zeros((16, 24, 3), np.uint8)
    red[..., 0] = 255
    with _open(path, "r+") as file:
        for step in range(2):
            file["observations/rgb_images/camera_top"][step] = np.frombuffer(
                encode_frame(red, "jpeg"), np.uint8
            )
    store, _ = _convert(tmp_path / "r", tmp_path)
    pixel = store.images("observation.images.top").decode([0])[0, 8, 12].astype(int)
    assert pixel[0] > 240
    assert pixel[2] < 15


@pytest.mark.parametrize(
    ("semantics", "steps"), [("", 5), ("puppet_next", 5), ("puppet_same", 6), ("master", 6)]
)
def test_action_meaning_is_a_recorded_choice(
    semantics: str, steps: int, tmp_path: Path, write_trajectory: Writer
) -> None:
    """The action is the next state by default, or the state itself, or the teleoperator's; the store says which."""
    path = write_trajectory(tmp_path / "r", n_steps=6)
    with _open(path) as file:
        puppet, master = file["puppet/joint_position"][:], file["master/joint_position"][:]
    expected = {"puppet_next": puppet[1:], "puppet_same": puppet, "master": master}[
        semantics or "puppet_next"
    ]
    store, _ = _convert(tmp_path / "r", tmp_path, action=semantics)
    assert store.n_steps == steps
    np.testing.assert_array_equal(store.column("action"), expected.astype(np.float32))
    np.testing.assert_array_equal(store.column("observation.state"), puppet[:steps].astype(np.float32))
    assert store.features["action"].meaning == (semantics or "puppet_next")


def test_split_success_and_order_come_from_the_path(tmp_path: Path, write_trajectory: Writer) -> None:
    """Episodes are sorted by source id; split and success are what the folders say."""
    write_trajectory(tmp_path / "r", episode="b", split="val")
    write_trajectory(tmp_path / "r", episode="a", split="train")
    store, _ = _convert(tmp_path / "r", tmp_path)
    assert store.episodes["split"] == ["train", "val"]
    assert [s.rpartition("/")[2] for s in store.episodes["source_id"]] == ["a", "b"]
    assert store.episodes["success"].tolist() == [1, 1]
    assert store.tasks == ["bread_in_basket"]


def test_instructions_come_from_the_table(tmp_path: Path, write_trajectory: Writer) -> None:
    """The first row of a repeated task counts; a task without a row keeps its folder's name, and is listed."""
    table = tmp_path / "RoboMIND_v1_2_instr.csv"
    table.write_text(
        ',task,instruction\n0,bread_in_basket,"pick bread,put it down"\n1,bread_in_basket,other\n'
    )
    write_trajectory(tmp_path / "r", episode="a")
    write_trajectory(tmp_path / "r", task="wipe", episode="b")
    store, _ = _convert(tmp_path / "r", tmp_path, instructions=str(table))
    assert store.tasks == ["pick bread,put it down", "wipe"]
    assert store.attributes["source"]["tasks_without_instruction"] == ["wipe"]


def test_the_real_instruction_table_is_read(shared_data: Path) -> None:
    """RoboMIND's own table: 468 distinct tasks of 479 rows."""
    from robot_datasets.importers.robomind_tree import read_instructions

    table = read_instructions(shared_data / "robomind_annotations" / "RoboMIND_v1_2_instr.csv")
    assert len(table) == 468
    assert table["10_packplate"].startswith("pick up the plate 1 on the right")


def test_early_episodes_without_top_camera_need_a_choice(tmp_path: Path, write_trajectory: Writer) -> None:
    """Files with two cameras and no depth are set aside with the remedy, and convert when it is followed."""
    three = {"folder": "h5_franka_3rgb", "cameras": ALL_THREE}
    two = {"folder": "h5_franka_3rgb", "cameras": ALL_THREE[1:], "depth": ()}
    write_trajectory(tmp_path / "r", episode="0", **three)
    write_trajectory(tmp_path / "r", episode="1", **two)
    store, report = _convert(tmp_path / "r", tmp_path)
    assert store.n_episodes == 1
    (reason,) = report.quarantined.values()
    assert "has no cameras" in reason or "camera_left, camera_right" in reason
    both = convert(
        tmp_path / "r",
        tmp_path / "two.zarr",
        options={"cameras": "camera_left,camera_right", "depth": "drop"},
    )
    assert both.n_episodes == 2


def test_raw_frames_become_png_with_right_colours(tmp_path: Path, write_trajectory: Writer) -> None:
    """A few tasks hold raw BGR pixels; they are stored losslessly as RGB."""
    path = write_trajectory(tmp_path / "r", n_steps=2, depth=())
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with _open(path, "r+") as file:
        for step in range(2):
            file["observations/rgb_images/camera_top"][step] = pixels[..., ::-1].reshape(-1)
    store, _ = _convert(tmp_path / "r", tmp_path, action="puppet_same")
    np.testing.assert_array_equal(store.images("observation.images.top").decode([0, 1])[1], pixels)


def test_raw_depth_becomes_png(tmp_path: Path, write_trajectory: Writer) -> None:
    """Raw uint8 depth of a known size is stored as uint16 without changing a value."""
    path = write_trajectory(tmp_path / "r", n_steps=2)
    pixels = np.random.default_rng(0).integers(101, 256, 480 * 640, dtype=np.uint8)
    with _open(path, "r+") as file:
        for step in range(2):
            file["observations/depth_images/camera_top"][step] = pixels
    store, _ = _convert(tmp_path / "r", tmp_path)
    decoded = store.images("observation.depth.top").decode([0])
    np.testing.assert_array_equal(decoded.reshape(-1), pixels)
    assert store.features["observation.depth.top"] == Feature(
        dtype="uint16", shape=(480, 640, 1), units=("mm",)
    )


def test_sizes_that_differ_between_tasks_are_declared_variable(
    tmp_path: Path, write_trajectory: Writer
) -> None:
    """The same camera has two sizes in one embodiment; the feature says so with zeros."""
    write_trajectory(tmp_path / "r", task="a", size=(16, 24), n_steps=3)
    write_trajectory(tmp_path / "r", task="b", size=(24, 32), n_steps=3)
    store, _ = _convert(tmp_path / "r", tmp_path)
    assert store.features["observation.images.top"].shape == (0, 0, 3)
    assert store.images("observation.images.top").decode([0, 1]).shape == (2, 16, 24, 3)
    assert store.images("observation.images.top").decode([2]).shape == (1, 24, 32, 3)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(key: str, values: np.ndarray | None) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with _open(path, "r+") as file:
            del file[key]
            if values is not None:
                file[key] = values

    return apply


def _spoil_frame(path: Path) -> None:
    with _open(path, "r+") as file:
        file["observations/rgb_images/camera_top"][2] = np.frombuffer(b"not a frame", np.uint8)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "truncated or not HDF5"),
        (lambda path: path.write_bytes(b""), "truncated or not HDF5"),
        (_edit("puppet/joint_position", np.full((6, 8), np.nan)), "NaN or infinity in 5 of 5 steps"),
        (_edit("puppet/joint_position", np.zeros((7, 8))), "differ in length"),
        (_edit("puppet/joint_position", np.zeros((6, 7))), r"expected \(T, 8\)"),
        (_edit("puppet/end_effector", None), "puppet/end_effector is missing"),
        (_spoil_frame, "11 bytes are neither JPEG nor a raw frame"),
    ],
)
def test_bad_files_are_set_aside_with_a_reason(
    damage: Callable[[Path], None], reason: str, tmp_path: Path, write_trajectory: Writer
) -> None:
    """One bad file does not stop a conversion; why it is missing can be read in the store."""
    import re

    write_trajectory(tmp_path / "r", episode="a", seed=1)
    damage(write_trajectory(tmp_path / "r", episode="b", seed=2))
    write_trajectory(tmp_path / "r", episode="c", seed=3)
    store, report = _convert(tmp_path / "r", tmp_path)
    assert store.n_episodes == 2
    assert store.quarantined == dict(report.quarantined)
    ((source_id, text),) = report.quarantined.items()
    assert source_id.endswith("/b")
    assert re.search(reason, text)


def test_nothing_usable_is_an_error(tmp_path: Path, write_trajectory: Writer) -> None:
    """When every episode is unusable the conversion fails and leaves nothing."""
    write_trajectory(tmp_path / "r", episode="a")
    for path in (tmp_path / "r").rglob("trajectory.hdf5"):
        with _open(path, "r+") as file:
            del file["puppet/end_effector"]
    with pytest.raises(DatasetError, match=r"no episode could be converted.*puppet/end_effector is missing"):
        _convert(tmp_path / "r", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_several_embodiments_need_a_choice(tmp_path: Path, write_trajectory: Writer) -> None:
    """A store has one embodiment; a tree of two asks which."""
    write_trajectory(tmp_path / "r")
    write_trajectory(tmp_path / "r", folder="h5_franka_3rgb", cameras=ALL_THREE)
    with pytest.raises(DatasetError, match=r"several embodiments.*--option embodiment=h5_franka_1rgb"):
        _convert(tmp_path / "r", tmp_path)
    store, _ = _convert(tmp_path / "r", tmp_path, embodiment="h5_franka_3rgb")
    assert store.n_episodes == 1


def test_embodiments_not_supported_yet_are_named(tmp_path: Path, write_trajectory: Writer) -> None:
    """Another robot's files are refused instead of read with the wrong keys."""
    write_trajectory(tmp_path / "r", folder="h5_ur_1rgb")
    with pytest.raises(DatasetError, match=r"h5_ur_1rgb; this importer reads h5_franka_1rgb"):
        _convert(tmp_path / "r", tmp_path)


def test_metric_depth_is_set_aside(tmp_path: Path, write_trajectory: Writer) -> None:
    """By RoboMIND's own rule depth with nothing above 100 is in metres, which the feature does not say."""
    path = write_trajectory(tmp_path / "r", n_steps=3)
    frame = np.frombuffer(encode_frame(np.full((16, 24, 1), 2, np.uint16), "png"), np.uint8)
    with _open(path, "r+") as file:
        for step in range(3):
            file["observations/depth_images/camera_top"][step] = frame
    with pytest.raises(DatasetError, match=r"in metres.*depth=drop"):
        _convert(tmp_path / "r", tmp_path)
