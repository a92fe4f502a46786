"""LeRobot datasets as they are found: depth, language, image columns of all kinds, odd layouts and times, archives."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import decode_frame, encode_frame
from robot_datasets.importers.base import Plan, Rejected, resolve_options
from robot_datasets.importers.lerobot import LeRobot
from robot_datasets.importers.lerobot_depth import DepthCoding
from robot_datasets.testing.lerobot import ToyEpisode, edit_info, grey_frames, grey_levels, write_lerobot

CAMERA = "observation.images.top"
DEPTH = "observation.depth.top"
TABLE = "data/chunk-000/episode_000000.parquet"


def toy(n_steps: int = 5, index: int = 0, *, camera: bool = False) -> ToyEpisode:
    """One short episode."""
    action = np.random.default_rng(index).normal(size=(n_steps, 2)).astype(np.float32)
    return ToyEpisode(
        {"action": action}, {CAMERA: grey_frames(index, n_steps)} if camera else {}, f"task {index}"
    )


def read(root: Path, **options: str) -> tuple[Plan, list[Episode], dict[str, list[bytes]]]:
    """Return the plan, the episodes, and all frames by camera."""
    importer = LeRobot()
    plan = importer.plan(root, resolve_options(importer, options))
    episodes, frames = [], {name: [] for name in plan.image_encodings}
    for result in importer.episodes(plan, plan.refs):
        assert not isinstance(result, Rejected), result
        for name, images in result.images.items():
            frames[name] += list(images)
        episodes.append(result)
    return plan, episodes, frames


def warnings(plan: Plan) -> str:
    """Return the plan's warnings as one text."""
    return "\n".join(plan.notes["warnings"])


def levels(frames: list[bytes]) -> np.ndarray:
    """Return the grey level of each frame."""
    return np.asarray([decode_frame(frame)[4:-4, 4:-4].mean() for frame in frames])


def replace_column(root: Path, name: str, column: Any, table: str = TABLE) -> None:
    """Write a column anew, or add it."""
    content = pq.read_table(root / table)
    if name in content.column_names:
        content = content.drop_columns([name])
    pq.write_table(content.append_column(name, column), root / table)


def describe(root: Path, name: str, entry: dict[str, Any]) -> None:
    """Add or replace the entry of a feature in info.json."""
    features = json.loads((root / "meta" / "info.json").read_text())["features"]
    edit_info(root, features=features | {name: entry})


def write_depth_video(path: Path, planes: list[np.ndarray], codec: str, pixel_format: str) -> None:
    """Encode (H, W) uint16 pixels without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"x265-params": "lossless=1:log-level=none:pools=1"} if codec == "libx265" else {}
    height, width = planes[0].shape
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        for pixels in planes:
            frame = av.VideoFrame(width, height, pixel_format)
            rows = np.zeros((height, frame.planes[0].line_size // 2), np.uint16)
            rows[:, :width] = pixels
            frame.planes[0].update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def depth_maps(n_steps: int = 5) -> list[np.ndarray]:
    """Depth images [mm] between 0.1 and 4 m, told apart by step."""
    y, x = np.mgrid[0:32, 0:70]
    return [(100 + 30 * x + 55 * y + 20 * step).astype(np.uint16) for step in range(n_steps)]


@pytest.mark.parametrize(
    "coding",
    [
        DepthCoding(),
        DepthCoding(minimum=0.05, maximum=5.0, shift=0.0),
        DepthCoding(maximum=6.0, logarithmic=False),
    ],
    ids=["LeRobot's defaults", "other range", "linear"],
)
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_depth_videos_are_decoded(coding: DepthCoding, version: str, tmp_path: Path) -> None:
    """12-bit codes become millimetres, within half a step of the scale that info.json tells."""
    root = write_lerobot(tmp_path / "set", [toy(camera=True)], version=version)
    video = next((root / "videos").rglob("*.mp4"))
    write_depth_video(video, [coding.encode(d) for d in depth_maps()], "libx265", "gray12le")
    told = {} if coding == DepthCoding() else coding.to_info()
    describe(root, CAMERA, {"dtype": "video", "shape": [32, 70, 1], "info": {"is_depth_map": True, **told}})
    plan, _, frames = read(root)
    assert plan.features[DEPTH] == Feature(dtype="uint16", shape=(32, 70, 1), units=("mm",))
    assert plan.image_encodings == {DEPTH: "png"}
    shown = np.stack([decode_frame(frame)[..., 0] for frame in frames[DEPTH]]).astype(int)
    truth = np.stack(depth_maps()).astype(int)
    scale = coding.decode(np.arange(4096)).astype(int)
    assert np.abs(shown - truth).max() <= np.diff(scale).max() // 2 + 1
    assert len(np.unique(shown)) > 500


@pytest.mark.parametrize("flag", ["info", "video_info"])
def test_sixteen_bit_depth_videos_hold_millimetres(flag: str, tmp_path: Path) -> None:
    """Lossless FFV1 of 16 bits, flagged in the old ways, comes back to the millimetre."""
    root = write_lerobot(tmp_path / "set", [toy(camera=True)])
    video = next((root / "videos").rglob("*.mp4"))
    write_depth_video(video, depth_maps(), "ffv1", "gray16le")
    describe(root, CAMERA, {"dtype": "video", "shape": [32, 70, 1], flag: {"video.is_depth_map": True}})
    _, _, frames = read(root, image_encoding="raw")
    shown = np.stack([np.frombuffer(f, "<u2").reshape(32, 70) for f in frames[DEPTH]])
    np.testing.assert_array_equal(shown, np.stack(depth_maps()))


def test_depth_in_eight_bits_is_left_out(tmp_path: Path) -> None:
    """What the grey levels of such a video mean is not told, so it is not taken for depth."""
    root = write_lerobot(tmp_path / "set", [toy(camera=True)])
    describe(root, CAMERA, {"dtype": "video", "shape": [32, 48, 3], "info": {"video.is_depth_map": True}})
    plan, _, frames = read(root)
    assert frames == {}
    assert "its video has 8 bits; what its grey levels mean is not known, left out" in warnings(plan)


def test_an_impossible_depth_scale_is_one_clear_error(tmp_path: Path) -> None:
    """A scale whose logarithm does not exist stops the conversion, before anything is decoded wrongly."""
    root = write_lerobot(tmp_path / "set", [toy(camera=True)])
    write_depth_video(next((root / "videos").rglob("*.mp4")), depth_maps(), "libx265", "gray12le")
    info = {"is_depth_map": True, "video.depth_min": 0.0, "video.shift": 0.0}
    describe(root, CAMERA, {"dtype": "video", "shape": [32, 70, 1], "info": info})
    with pytest.raises(DatasetError, match="which is no scale; correct"):
        read(root)


def _encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "unit", "expected"),
    [
        (Image.fromarray(np.full((8, 6), 1234, np.uint16)), "mm", 1234),
        (Image.fromarray(np.full((8, 6), 1234, np.uint16)), "", 1234),
        (Image.fromarray(np.full((8, 6), 1.2342, np.float32)), "m", 1234),
        (Image.fromarray(np.full((8, 6), 1.2342, np.float32)), "", 1234),
        (Image.fromarray(np.full((8, 6), np.nan, np.float32)), "m", 0),
        (Image.fromarray(np.full((8, 6), 99.0, np.float32)), "m", 65535),
    ],
)
def test_depth_in_image_columns(image: Image.Image, unit: str, expected: int, tmp_path: Path) -> None:
    """LeRobot's TIFF frames, integers in millimetres or floats in metres, become 16-bit PNG in millimetres."""
    root = write_lerobot(tmp_path / "set", [toy()])
    cells = [{"bytes": _encoded(image, "TIFF"), "path": None}] * 5
    replace_column(root, CAMERA, pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    info = {"is_depth_map": True} | ({"depth_unit": unit} if unit else {})
    describe(root, CAMERA, {"dtype": "image", "shape": [8, 6, 1], "info": info})
    plan, _, frames = read(root)
    assert plan.features[DEPTH].shape == (8, 6, 1)
    np.testing.assert_array_equal(decode_frame(frames[DEPTH][3]), expected)


def _column(kind: str, pixels: np.ndarray, root: Path) -> Any:
    png = [encode_frame(p, "png") for p in pixels]
    if kind == "bytes":
        return pa.array(png)
    if kind == "paths":
        for i, frame in enumerate(png):
            (root / f"f{i}.png").write_bytes(frame)
        return pa.array([f"f{i}.png" for i in range(len(png))])
    nested = pixels if kind == "height first" else pixels.transpose(0, 3, 1, 2)
    return pa.array(nested.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))


@pytest.mark.parametrize("kind", ["bytes", "paths", "height first", "channels first"])
def test_image_columns_of_every_kind(kind: str, tmp_path: Path) -> None:
    """Encoded bytes, paths inside the dataset, and nested lists of pixels in both orders give the same frames."""
    root = write_lerobot(tmp_path / "set", [toy()])
    replace_column(root, CAMERA, _column(kind, grey_frames(0, 5, (8, 6)), root))
    describe(root, CAMERA, {"dtype": "image", "shape": [8, 6, 3]})
    plan, _, frames = read(root)
    assert plan.features[CAMERA].shape == (8, 6, 3)
    np.testing.assert_array_equal(
        np.stack([decode_frame(f) for f in frames[CAMERA]]), grey_frames(0, 5, (8, 6))
    )


@pytest.mark.parametrize(
    ("mode", "format"),
    [(m, "PNG") for m in ("RGBA", "L", "P", "1")]
    + [("RGB", "WEBP"), ("L", "BMP"), ("P", "BMP"), ("RGB", "TIFF")],
)
def test_frames_of_other_kinds_become_colour(mode: str, format: str, tmp_path: Path) -> None:
    """Transparency, grey and palettes, and formats that a store does not know, are brought to RGB without loss."""
    image = Image.fromarray(np.full((8, 6, 3), 255, np.uint8)).convert(mode)
    root = write_lerobot(tmp_path / "set", [toy()])
    cells = [{"bytes": _encoded(image, format), "path": None}] * 5
    replace_column(root, CAMERA, pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    describe(root, CAMERA, {"dtype": "image", "shape": [8, 6, 3]})
    _, _, frames = read(root)
    np.testing.assert_array_equal(decode_frame(frames[CAMERA][0]), 255)


def test_a_frame_that_is_no_image_costs_its_episode(tmp_path: Path) -> None:
    """Bytes that are no image are an episode's fault, named with file and column, found when it is read."""
    root = write_lerobot(tmp_path / "set", [toy(index=0), toy(index=1)])
    good = encode_frame(np.zeros((8, 6, 3), np.uint8), "png")
    for index, second in enumerate((good, b"no image")):
        table = TABLE.replace("000000.parquet", f"00000{index}.parquet")
        replace_column(root, CAMERA, pa.array([good, second, good, good, good]), table)
    importer = LeRobot()
    plan = importer.plan(root, resolve_options(importer, {}))
    first, second = [e for e in importer.episodes(plan, plan.refs) if isinstance(e, Episode)]
    assert len(list(first.images[CAMERA])) == 5
    with pytest.raises(
        DatasetError, match=r"episode_000001\.parquet: observation\.images\.top has a frame that is no"
    ):
        list(second.images[CAMERA])


def _annotation(style: str, content: str, at: float | None = None, **more: Any) -> dict[str, Any]:
    row = {"role": None, "content": content, "style": style, "camera": None, "tool_calls": None} | more
    return row if at is None else row | {"timestamp": at}


def test_language_columns_become_segments(tmp_path: Path) -> None:
    """Subtasks last until the next one, paraphrases all along, events one step; each keeps its text."""
    root = write_lerobot(tmp_path / "set", [toy(6)], fps=10)
    lasting = [
        _annotation("subtask", "reach", 0.0),
        _annotation("subtask", "grasp", 0.2),
        _annotation("task_aug", "one wording", 0.0),
        _annotation("task_aug", "another wording", 0.0),
        _annotation("subtask", "too late", 9.0),
    ]
    question = _annotation("vqa", "what?", role="user", camera="observation.images.top")
    answer = _annotation("vqa", "a cup", role="assistant", camera="observation.images.top")
    events = [[], [], [], [question, answer], [_annotation("interjection", "stop", role="user")], []]
    replace_column(root, "language_persistent", pa.array([lasting] * 6))
    replace_column(root, "language_events", pa.array(events))
    describe(root, "language_persistent", {"dtype": "language", "shape": [1], "names": None})
    plan, episodes, _ = read(root)
    parts = [Segment.of(part) for part in episodes[0].segments]
    assert sorted((p.start, p.end, p.tag, p.text) for p in parts) == [
        (0, 2, "subtask", "reach"),
        (0, 6, "task_aug", "another wording"),
        (0, 6, "task_aug", "one wording"),
        (2, 6, "subtask", "grasp"),
        (3, 4, "vqa.assistant.top", "a cup"),
        (3, 4, "vqa.user.top", "what?"),
        (4, 5, "interjection.user", "stop"),
    ]
    assert list(plan.features) == ["action"]


def test_instructions_in_a_text_column(tmp_path: Path) -> None:
    """Without numbers of instructions, a text column that is named like one is taken."""
    root = write_lerobot(tmp_path / "set", [toy(3)])
    (root / "meta" / "tasks.jsonl").unlink()
    replace_column(root, "language_instruction", pa.array(["pick", "pick", "place"]))
    _, episodes, _ = read(root)
    assert episodes[0].task == "pick; place"
    assert [Segment.of(part).text for part in episodes[0].segments][:2] == ["pick", "place"]


def test_a_version_that_was_only_announced(tmp_path: Path) -> None:
    """lerobot_RoboMIND: v3.0 in info.json, but a file for each episode and jsonl tables, and totals of another set."""
    episodes = [toy(4, 0, camera=True), toy(3, 1, camera=True)]
    root = write_lerobot(tmp_path / "set", episodes, version="v3.0", shared=False)
    edit_info(
        root, total_episodes=500, data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    )
    plan, found, frames = read(root)
    assert [e.task for e in found] == ["task 0", "task 1"]
    np.testing.assert_allclose(levels(frames[CAMERA]), [*grey_levels(0, 4), *grey_levels(1, 3)], atol=3)
    assert "declares v3.0, but the files below data/ are one for each episode" in warnings(plan)
    assert "declares 500 episodes, 2 were found" in warnings(plan)


def test_shared_files_under_an_old_version(tmp_path: Path) -> None:
    """The other way round: v2.1 in info.json and shared files with their own tables."""
    root = write_lerobot(tmp_path / "set", [toy(4, 0, camera=True), toy(3, 1, camera=True)], version="v3.0")
    edit_info(root, codebase_version="v2.1")
    plan, found, frames = read(root)
    assert [e.n_steps for e in found] == [4, 3]
    np.testing.assert_allclose(levels(frames[CAMERA]), [*grey_levels(0, 4), *grey_levels(1, 3)], atol=3)
    assert "declares v2.1, but the files below videos/ are shared by episodes" in warnings(plan)


@pytest.mark.parametrize(
    ("times", "fps", "message"),
    [
        (lambda n: np.arange(n) * 33.333, 30.0, "timestamp is in ms, expected s"),
        (lambda n: (np.arange(n) * 33_333_333).astype(np.int64), 30.0, "timestamp is in ns, expected s"),
        (lambda n: (1.7e9 + np.arange(n) / 30).astype(np.float32), 30.0, "timestamp does not advance"),
        (lambda n: 1.7e9 + np.arange(n) / 30, 30.0, ""),
        (lambda n: np.arange(n) / 15, 15.0, "recorded times are 15 Hz apart; 15 Hz is used"),
    ],
    ids=["milliseconds", "nanoseconds", "wall clock in float32", "wall clock", "another rate"],
)
def test_times_of_every_kind(
    times: Callable[[int], np.ndarray], fps: float, message: str, tmp_path: Path
) -> None:
    """Units other than seconds and wall clocks are recognised; only a true contradiction changes the rate."""
    root = write_lerobot(tmp_path / "set", [toy(20)])
    replace_column(root, "timestamp", pa.array(times(20)))
    plan, _, _ = read(root)
    assert plan.fps == fps
    assert message in warnings(plan)
    assert bool(message) == ("timestamp" in warnings(plan) or "recorded" in warnings(plan))


def _packed(folder: Path, archive: Path, inside: str) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*")):
                packed.write(path, f"{inside}/{path.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(folder, inside)
    shutil.rmtree(folder)
    return archive


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_dataset_in_an_archive(name: str, version: str, tmp_path: Path) -> None:
    """A downloaded archive is read as it is."""
    root = write_lerobot(tmp_path / "set", [toy(4, 0, camera=True), toy(3, 1, camera=True)], version=version)
    archive = _packed(root, tmp_path / name, "some/folder")
    _, found, frames = read(archive)
    assert [e.task for e in found] == ["task 0", "task 1"]
    np.testing.assert_allclose(levels(frames[CAMERA]), [*grey_levels(0, 4), *grey_levels(1, 3)], atol=3)


def test_an_archive_of_two_datasets_is_no_dataset(tmp_path: Path) -> None:
    """Which one is meant cannot be told."""
    for name in ("a", "b"):
        write_lerobot(tmp_path / "both" / name, [toy()])
    archive = _packed(tmp_path / "both", tmp_path / "both.tar.gz", "both")
    with pytest.raises(DatasetError, match=r"holds 2 datasets \(both/a, both/b\)"):
        read(archive)


def test_paraphrases_of_the_episode_table(tmp_path: Path) -> None:
    """Texts of an episode's row besides the instruction of its steps are other wordings of it."""
    episode = toy(3)
    episode.paraphrases = ("do it", "go on")
    _, found, _ = read(write_lerobot(tmp_path / "set", [episode]))
    assert [(Segment.of(p).tag, Segment.of(p).text) for p in found[0].segments] == [
        ("paraphrase", "do it"),
        ("paraphrase", "go on"),
    ]


def _three(root: Path) -> Path:
    return write_lerobot(root, [toy(4 + i, i) for i in range(3)])


@pytest.mark.parametrize(
    "column",
    [pa.array(["text"] * 4), pa.array([None] * 4), pa.array([[1.0, 2.0, 3.0]] * 4, pa.list_(pa.float32()))],
    ids=["text", "nulls", "another width"],
)
def test_one_damaged_episode_does_not_decide_for_all(column: Any, tmp_path: Path) -> None:
    """If the first file contradicts info.json, the others are asked; it alone is set aside."""
    root = _three(tmp_path / "set")
    replace_column(root, "action", column)
    importer = LeRobot()
    plan = importer.plan(root, resolve_options(importer, {}))
    assert plan.features["action"].shape == (2,)
    results = list(importer.episodes(plan, plan.refs))
    assert [isinstance(result, Rejected) for result in results] == [True, False, False]
    assert "episode_000000.parquet: action" in results[0].reason  # type: ignore[union-attr]


def test_contradictions_between_rows_and_tables_are_warnings(tmp_path: Path) -> None:
    """Too few rows, rows out of order, another episode's number, and an instruction of its own are told."""
    root = _three(tmp_path / "set")
    table = pq.read_table(root / TABLE)
    pq.write_table(table.take([1, 0, 2]), root / TABLE)
    replace_column(root, "episode_index", pa.array([7, 7, 7]))
    lines = [{"task_index": i, "task": text} for i, text in enumerate(("task 0", "another", "task 2"))]
    (root / "meta" / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines[:2])))
    _, episodes, _ = read(root)
    assert episodes[0].warnings == [
        "it has 3 rows, the episode table says 4; the rows are taken",
        "frame_index does not count 0, 1, 2, ...; rows were left out, repeated or rearranged",
        "episode_index is 7 in the file of episode 0",
    ]
    assert episodes[1].warnings == [
        "the instruction is 'another', the episode table says 'task 1'; the former is taken"
    ]
    assert episodes[2].task == "task 2"
    assert "task_index is 2, which the table of instructions lacks" in episodes[2].warnings[0]


def test_damaged_lines_of_metadata_cost_themselves(tmp_path: Path) -> None:
    """A line that is no JSON, a number that is none and a repeated row are left out with a warning each."""
    root = _three(tmp_path / "set")
    path = root / "meta" / "episodes.jsonl"
    lines = path.read_text().splitlines()
    wrong = json.dumps({"episode_index": 2, "length": {"a": 1}, "tasks": ["task 2", 5]})
    path.write_text("\n".join(["<html>", lines[0], lines[0], wrong, '{"length": 3}']))
    plan, episodes, _ = read(root)
    assert [episode.task for episode in episodes] == ["task 0", "task 1", "task 2"]
    for text in (
        "1 of 5 lines are no JSON objects, the first is 1",
        "several rows of episode 0",
        "episode 2: length is {'a': 1}, expected a whole number",
        "episode 2: tasks are ['task 2', 5], expected texts",
        "a row without a usable episode_index",
    ):
        assert text in warnings(plan)


def test_wrong_kinds_in_info_are_ignored_with_a_warning(tmp_path: Path) -> None:
    """Fields of info.json that are not what they should be do not stop the conversion."""
    root = _three(tmp_path / "set")
    describe(root, "action", {"dtype": 5, "shape": "wide", "names": 7})
    edit_info(root, fps="fast", robot_type=[1])
    plan, episodes, _ = read(root)
    assert (plan.fps, plan.embodiment, len(episodes)) == (30, "", 3)
    for text in ("the rate 'fast'", "robot_type '[1]'", "action of type '5'", "of shape 'wide'", "names 7"):
        assert text in warnings(plan)
