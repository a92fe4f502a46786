"""The importer of LeRobot datasets: v2.0, v2.1 and v3.0, sound and with the defects found in the wild."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.base import Importer, resolve_options
from robot_datasets.importers.lerobot import LeRobot
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.lerobot import (
    FRAME_SIZE,
    ToyEpisode,
    edit_info,
    grey_frames,
    grey_levels,
    write_lerobot,
    write_mp4,
)

CAMERA = "observation.images.top"
LENGTHS = (5, 3, 7, 4)
SIZE = FRAME_SIZE
FPS = 10
ALL_LEVELS = np.concatenate([grey_levels(e, n) for e, n in enumerate(LENGTHS)])
NAMES: dict[str, Any] = {
    "observation.state": {"names": {"motors": ["x", "y", "z"]}},
    "action": {"names": ["motor_0", "motor_1"]},
}


def episodes(*, camera: bool = True) -> list[ToyEpisode]:
    """Four episodes with state, action, a scalar and a camera."""
    found = []
    for e, n in enumerate(LENGTHS):
        random = np.random.default_rng(e)
        columns = {
            "observation.state": random.normal(size=(n, 3)).astype(np.float32),
            "action": random.normal(size=(n, 2)).astype(np.float32),
            "next.reward": random.normal(size=n).astype(np.float32),
        }
        found.append(ToyEpisode(columns, {CAMERA: grey_frames(e, n)} if camera else {}, f"task {e % 2}"))
    return found


def write_v2(root: Path, *, version: str = "v2.1", images: bool = False) -> Path:
    """Write `episodes`, one parquet file and one mp4 each."""
    kind = "image" if images else "video"
    return write_lerobot(root, episodes(), version=version, fps=FPS, images=kind, describe=NAMES)


def write_v3(root: Path, **options: Any) -> Path:
    """Write `episodes` into two data files and one mp4."""
    return write_lerobot(root, episodes(), version="v3.0", fps=FPS, describe=NAMES, **options)


def _edit_rows(root: Path, episode: int, edit: Callable[[pa.Table], pa.Table]) -> None:
    path = root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


def _converted(root: Path, **options: str) -> EpisodeStore:
    convert(root, root.parent / "out.zarr", options=options, overwrite=True)
    return EpisodeStore.open(root.parent / "out.zarr")


def _warnings(root: Path) -> str:
    return "\n".join(LeRobot().plan(root, resolve_options(LeRobot(), {})).notes["warnings"])


def _shown_levels(store: EpisodeStore) -> np.ndarray:
    return store.images(CAMERA).decode(np.arange(store.n_steps))[:, 4:-4, 4:-4].mean(axis=(1, 2, 3))


class TestVersion20(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return LeRobot()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = write_v2(tmp_path / "set", version="v2.0")
        (root / "videos" / "chunk-000" / CAMERA / "episode_000001.mp4").unlink()
        return root


class TestVersion21WithImageColumns(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return LeRobot()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = write_v2(tmp_path / "set", images=True)
        (root / "data" / "chunk-000" / "episode_000001.parquet").write_bytes(b"PAR1 no more")
        return root


class TestVersion30(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return LeRobot()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_v3(tmp_path / "set", gap=1)


@pytest.mark.parametrize(
    "write",
    [
        write_v2,
        write_v3,
        lambda root: write_v3(root, gap=3),
        lambda root: write_v3(root, drift=0.07),
    ],
    ids=["v2.1", "v3.0", "v3.0 with frames between episodes", "v3.0 with drifting start times"],
)
def test_every_step_gets_its_own_frame(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Frames belong to their rows, whether videos are shared, hold more than the episodes, or tell times wrongly."""
    store = _converted(write(tmp_path / "set"))
    np.testing.assert_allclose(_shown_levels(store), ALL_LEVELS, atol=2)
    assert store.spec.encodings == {CAMERA: "jpeg"}
    assert store.attributes["conversion"]["options"]["image_encoding"] == "jpeg"


@pytest.mark.parametrize("write", [write_v2, write_v3], ids=["v2.1", "v3.0"])
def test_rows_are_kept_to_the_bit(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Numbers, instructions, names, rate and robot come over unchanged; book-keeping columns do not."""
    store = _converted(write(tmp_path / "set"))
    for key in ("observation.state", "action"):
        values = np.concatenate([episode.columns[key] for episode in episodes(camera=False)])
        np.testing.assert_array_equal(store.column(key), values)
    assert sorted(store.features) == ["action", "next.reward", CAMERA, "observation.state"]
    assert store.features["observation.state"].names == ("x", "y", "z")
    assert store.features["next.reward"].shape == (1,)
    assert [store.tasks[i] for i in store.episodes["task_index"]] == ["task 0", "task 1"] * 2
    assert store.episodes["n_steps"].tolist() == list(LENGTHS)
    assert (store.fps, store.embodiment) == (FPS, "toy")


def test_image_columns_pass_through_unchanged(tmp_path: Path) -> None:
    """PNG frames in the parquet file are stored byte for byte."""
    store = _converted(write_v2(tmp_path / "set", images=True))
    frames = [bytes(store.images(CAMERA).encoded(i)) for i in range(store.n_steps)]
    assert frames == [encode_frame(np.full((*SIZE, 3), v, np.uint8), "png") for v in ALL_LEVELS]


def test_image_files_beside_the_table_are_read(tmp_path: Path) -> None:
    """A frame given by path is read from the dataset, and only from there."""
    root = write_v2(tmp_path / "set", images=True)
    (root / "frame.png").write_bytes(encode_frame(np.full((*SIZE, 3), 9, np.uint8), "png"))

    def refer(path: str) -> Callable[[pa.Table], pa.Table]:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return lambda t: t.set_column(
            t.schema.get_field_index(CAMERA), CAMERA, pa.array([{"bytes": None, "path": path}] * len(t), kind)
        )

    _edit_rows(root, 1, refer("frame.png"))
    _edit_rows(root, 2, refer("../../outside.png"))
    (tmp_path.parent / "outside.png").write_bytes((root / "frame.png").read_bytes())
    store = _converted(root)
    np.testing.assert_array_equal(store.images(CAMERA).decode([LENGTHS[0]])[0], 9)
    assert "not a file of the dataset" in store.quarantined["episode_000002"]


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_video_frames_can_be_stored_without_further_loss(encoding: str, tmp_path: Path) -> None:
    """PNG and raw hold exactly the decoded video frames."""
    root = write_v2(tmp_path / "set")
    store = _converted(root, image_encoding=encoding)
    with av.open(str(root / "videos" / "chunk-000" / CAMERA / "episode_000000.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(store.images(CAMERA).decode(np.arange(LENGTHS[0])), np.stack(decoded))


def test_missing_index_columns_are_survived(tmp_path: Path) -> None:
    """Without frame_index, index and task_index rows are taken in order and instructions from the table."""
    root = write_v2(tmp_path / "set")
    for e in range(len(LENGTHS)):
        _edit_rows(root, e, lambda t: t.drop_columns(["frame_index", "index", "task_index", "episode_index"]))
    assert "no column frame_index, episode_index, index, task_index" in _warnings(root)
    store = _converted(root)
    np.testing.assert_allclose(_shown_levels(store), ALL_LEVELS, atol=2)
    assert [store.tasks[i] for i in store.episodes["task_index"]] == ["task 0", "task 1"] * 2


def test_lists_of_doubles_keep_their_precision(tmp_path: Path) -> None:
    """A column of another type than declared is kept as it is, with a warning."""
    root = write_v2(tmp_path / "set", images=True)
    for e in range(len(LENGTHS)):
        place = pq.read_schema(root / "data" / "chunk-000" / f"episode_{e:06d}.parquet").get_field_index(
            "action"
        )
        values = pa.array([[1 / 3, 2 / 3]] * LENGTHS[e], pa.list_(pa.float64()))
        _edit_rows(root, e, lambda t, p=place, v=values: t.set_column(p, "action", v))
    assert "action is declared float32, its column is float64" in _warnings(root)
    assert _converted(root).column("action")[0].tolist() == [1 / 3, 2 / 3]


def test_filtered_rows_keep_their_frames(tmp_path: Path) -> None:
    """If rows were left out and the video was not cut, frame_index still names the frame of each row."""
    root = write_v2(tmp_path / "set")
    _edit_rows(root, 2, lambda t: t.take([1, 2, 5]))
    store = _converted(root)
    start, end = store.episode_starts[2], store.episode_ends[2]
    np.testing.assert_allclose(_shown_levels(store)[start:end], grey_levels(2, 7)[[1, 2, 5]], atol=2)


def test_wrong_rate_is_found_from_the_times(tmp_path: Path) -> None:
    """If recorded times and videos agree with each other and not with info.json, they are believed."""
    root = write_v2(tmp_path / "set")
    edit_info(root, fps=30)
    assert _converted(root).fps == FPS
    assert "declares 30 Hz, the recorded times are 10 Hz apart; 10 Hz is used" in _warnings(root)
    assert _converted(root, fps="25").fps == 25


def test_wrong_codec_and_counts_are_reported(tmp_path: Path) -> None:
    """Declarations that the files contradict become warnings, kept in the store."""
    root = write_v2(tmp_path / "set")
    features = json.loads((root / "meta" / "info.json").read_text())["features"]
    features[CAMERA] |= {"info": {"video.codec": "av1"}, "shape": [3, 480, 640]}
    features["observation.images.gone"] = features[CAMERA]
    edit_info(root, features=features, total_episodes=9, total_frames=99)
    for text in (
        "is declared av1, its video is h264",
        "declared [3, 480, 640], its video is 32x48",
        "observation.images.gone is declared, but has no video",
        "declares 9 episodes, 4 were found",
        "declares 99 frames, the episode table has 19",
    ):
        assert text in _warnings(root)
    assert len(_converted(root).attributes["source"]["warnings"]) == 5


def test_misplaced_videos_are_found(tmp_path: Path) -> None:
    """A video in another chunk folder than the template says is still the episode's."""
    root = write_v2(tmp_path / "set")
    (root / "videos" / "chunk-000").rename(root / "videos" / "chunk-007")
    np.testing.assert_allclose(_shown_levels(_converted(root)), ALL_LEVELS, atol=2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "no video of observation.images.top"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be opened as a video"),
        (lambda path: write_mp4(path, grey_frames(1, 2), fps=FPS), "has 2 frames, expected 3"),
    ],
    ids=["missing", "truncated", "too short"],
)
def test_an_episode_without_its_video_is_set_aside(
    damage: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    """A missing or damaged video costs its own episode only, and the reason is told."""
    root = write_v2(tmp_path / "set")
    damage(root / "videos" / "chunk-000" / CAMERA / "episode_000001.mp4")
    store = _converted(root)
    assert list(store.quarantined) == ["episode_000001"]
    assert reason in store.quarantined["episode_000001"]
    assert store.n_episodes == 3


def test_shared_file_places_do_not_depend_on_the_table(tmp_path: Path) -> None:
    """v3.0: rows are found by episode_index, so scrambled from and to indices do no harm."""
    root = write_v3(tmp_path / "set")
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    wrong = pa.array([7, 7, 7, 7])
    pq.write_table(
        table.set_column(table.schema.get_field_index("dataset_from_index"), "dataset_from_index", wrong),
        path,
    )
    assert _converted(root).episodes["n_steps"].tolist() == list(LENGTHS)


def test_instructions_that_change_become_segments(tmp_path: Path) -> None:
    """Two instructions in one episode are joined, and each is a labelled part."""
    root = write_v2(tmp_path / "set", images=True)
    column = pa.array([0, 0, 1])
    _edit_rows(root, 1, lambda t: t.set_column(t.schema.get_field_index("task_index"), "task_index", column))
    store = _converted(root)
    assert store.tasks[store.episodes["task_index"][1]] == "task 0; task 1"
    assert [(s.start, s.end, s.text) for s in store.episodes["segments"][1]] == [
        (0, 2, "task 0"),
        (2, 3, "task 1"),
    ]


def test_generic_names_are_replaced_by_groot_parts(tmp_path: Path) -> None:
    """modality.json names the parts of a vector whose declared names are mere numbers."""
    root = write_v2(tmp_path / "set", images=True)
    modality = {"action": {"arm": {"start": 0, "end": 1}, "hand": {"start": 1, "end": 2}}}
    (root / "meta" / "modality.json").write_text(json.dumps(modality))
    store = _converted(root)
    assert store.features["action"].names == ("arm.0", "hand.0")
    assert store.features["observation.state"].names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"codebase_version": "v1.6", "features": {}}', r"'v1\.6', this importer reads v2\.0"),
        ('{"codebase_version": "v2.1"}', "has no 'features'"),
        ('{"codebase_version": "v2.1", "features": {}}', "no episode file below data/"),
    ],
)
def test_unusable_metadata_is_one_clear_error(text: str, message: str, tmp_path: Path) -> None:
    """Damaged or foreign metadata stops the conversion with what was found and expected."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        convert(tmp_path, tmp_path / "out.zarr", format="lerobot")


def test_the_real_gr1_set_converts(shared_data: Path, tmp_path: Path) -> None:
    """Five simulated humanoid episodes, with the defects they are known to have reported."""
    source = shared_data / "gr1_picknplace_lerobot_v20"
    if not source.is_dir():
        pytest.skip(f"no real LeRobot set at {source}")
    plan = LeRobot().plan(source, resolve_options(LeRobot(), {"cameras": "ego_view"}))
    assert [len(plan.refs), len(plan.rejected), plan.fps, plan.embodiment] == [5, 0, 20.0, "GR1ArmsOnly"]
    warnings = "\n".join(plan.notes["warnings"])
    assert "no column frame_index" in warnings
    assert "observation.images.egoview is declared, but has no video" in warnings
    episode = next(iter(LeRobot().episodes(plan, plan.refs[3:4])))
    assert episode.data["observation.state"].shape == (412, 44)  # type: ignore[union-attr]
    assert plan.features["action"].names[:8] == (*(f"left_arm.{i}" for i in range(7)), "left_hand.0")
    assert episode.task == "pick the salt from the counter and place it in the plate"  # type: ignore[union-attr]


def test_jumping_into_a_shared_video_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An episode read alone, from the middle of an mp4, has exactly the frames it has when read in order."""
    plan = LeRobot().plan(write_v3(tmp_path / "set"), resolve_options(LeRobot(), {"image_encoding": "raw"}))
    in_order = [list(e.images[CAMERA]) for e in LeRobot().episodes(plan, plan.refs)]  # type: ignore[union-attr]
    monkeypatch.setattr("robot_datasets.importers.lerobot_video._SEEK_AHEAD", 0)
    backwards = [list(e.images[CAMERA]) for e in LeRobot().episodes(plan, plan.refs[::-1])]  # type: ignore[union-attr]
    assert backwards[::-1] == in_order
