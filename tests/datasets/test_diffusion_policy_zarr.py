"""The importer of diffusion_policy replay buffers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from robot_datasets.convert import convert
from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import decode_frame
from robot_datasets.importers.base import Importer, resolve_options
from robot_datasets.importers.diffusion_policy_zarr import DiffusionPolicyZarr
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests


def _open(source: Path | ZipStore) -> Any:
    return zarr.open_group(source if isinstance(source, ZipStore) else str(source), mode="r", zarr_format=2)


class TestReplayBufferDirectory(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return DiffusionPolicyZarr()

    @pytest.fixture
    def source(self, tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> Path:
        return write_replay_buffer(tmp_path / "buffer.zarr")


class TestReplayBufferInZip(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return DiffusionPolicyZarr()

    @pytest.fixture
    def source(self, tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> Path:
        write_replay_buffer(tmp_path / "zipped" / "inner" / "buffer.zarr")
        return Path(shutil.make_archive(str(tmp_path / "buffer.zarr"), "zip", tmp_path / "zipped"))


def test_pusht_arrays_become_named_features(tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> None:
    """State and keypoints are split into the features that the simulated task has, values untouched."""
    source = write_replay_buffer(tmp_path / "buffer.zarr")
    convert(source, tmp_path / "out.zarr")
    store, data = EpisodeStore.open(tmp_path / "out.zarr"), _open(source)["data"]
    np.testing.assert_array_equal(store.column("observation.state"), data["state"][:, :2])
    np.testing.assert_array_equal(store.column("observation.full_state"), data["state"][:])
    np.testing.assert_array_equal(
        store.column("observation.environment_state"), data["keypoint"][:].reshape(-1, 18)
    )
    np.testing.assert_array_equal(store.column("action"), data["action"][:])
    np.testing.assert_array_equal(
        store.images("observation.images.top").decode(np.arange(19)), data["img"][:]
    )
    assert store.fps == 10
    assert store.embodiment == "pusht"


def test_features_are_those_of_the_simulated_task() -> None:
    """A policy trained on the demonstrations fits the simulated task: same names, units and meaning."""
    task = pytest.importorskip("robot_sim.tasks.pusht")
    from robot_datasets.features import compare_features
    from robot_datasets.schemas import load_schema

    schema = load_schema("pusht")
    offered = {**task.FEATURES, "action": task.ACTION_FEATURE}
    needed = {name: schema.feature(name) for name in task.FEATURES} | {"action": schema.action()}
    assert compare_features(needed, offered) == []


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_lossless_encodings_keep_every_pixel(
    encoding: str, tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """PNG and raw frames decode to exactly the source's pixels."""
    source = write_replay_buffer(tmp_path / "buffer.zarr")
    convert(source, tmp_path / "out.zarr", options={"image_encoding": encoding})
    images = EpisodeStore.open(tmp_path / "out.zarr").images("observation.images.top")
    assert images.encoding == encoding
    np.testing.assert_array_equal(images.decode(np.arange(19)), _open(source)["data/img"][:])


def test_other_buffers_keep_their_keys(tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> None:
    """Keys without a known meaning become observation.<key>, cameras observation.images.<key>."""
    random = np.random.default_rng(0)
    arrays = {
        "action": random.random((7, 10)),
        "robot0_eef_pos": random.random((7, 3)),
        "agentview_image": random.integers(0, 256, (7, 4, 6, 3), dtype=np.uint8),
        "stage": np.arange(7, dtype=np.int64)[:, None],
    }
    source = write_replay_buffer(tmp_path / "buffer.zarr", (3, 4), arrays=arrays)
    convert(source, tmp_path / "out.zarr", options={"fps": "20", "task": "stack"})
    store = EpisodeStore.open(tmp_path / "out.zarr")
    assert sorted(store.features) == [
        "action",
        "observation.images.agentview_image",
        "observation.robot0_eef_pos",
        "observation.stage",
    ]
    assert store.column("observation.stage").dtype == np.int64
    assert store.tasks == ["stack"]


def test_rate_must_be_given_if_unknown(tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> None:
    """A buffer that is not PushT does not tell its rate, and none is invented."""
    source = write_replay_buffer(tmp_path / "b.zarr", (2, 2), arrays={"action": np.zeros((4, 2), np.float32)})
    with pytest.raises(DatasetError, match=r"--option fps="):
        convert(source, tmp_path / "out.zarr")


@pytest.mark.parametrize(("scale", "policy", "expected"), [(1.0, "round", 3), (1 / 255, "unit", 4)])
def test_fractional_images_are_refused_unless_chosen(
    scale: float, policy: str, expected: int, tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """Float frames that are not whole grey levels are not rounded silently."""
    level = 3.4 if policy == "round" else 4.0
    arrays = {
        "action": np.zeros((2, 2), np.float32),
        "img": np.full((2, 4, 4, 3), level * scale, np.float32),
    }
    source = write_replay_buffer(tmp_path / "buffer.zarr", (2,), arrays=arrays)
    with pytest.raises(DatasetError, match="whole numbers"):
        convert(source, tmp_path / "out.zarr", options={"fps": "10"})
    assert not (tmp_path / "out.zarr").exists()
    convert(source, tmp_path / "out.zarr", options={"fps": "10", "float_images": policy})
    images = EpisodeStore.open(tmp_path / "out.zarr").images("observation.images.img")
    assert (images.decode([0, 1]) == expected).all()


def test_missing_episode_ends_are_an_error_with_a_remedy(
    tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """Without boundaries, and with no block to infer them from, the buffer is refused."""
    arrays = {"action": np.zeros((4, 2), np.float32)}
    source = write_replay_buffer(tmp_path / "buffer.zarr", (4,), ends=False, arrays=arrays)
    with pytest.raises(DatasetError, match=r"no meta/episode_ends.*episode_ends=FILE.npy"):
        convert(source, tmp_path / "out.zarr", options={"fps": "10"})
    assert not (tmp_path / "out.zarr").exists()


def test_pusht_without_episode_ends_is_inferred_loudly(
    tmp_path: Path, write_replay_buffer: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """PushT's boundaries are found where the block jumps; a warning and the store say so."""
    source = write_replay_buffer(tmp_path / "buffer.zarr", ends=False)
    convert(source, tmp_path / "out.zarr")
    assert "has no meta/episode_ends; found 4 episodes where the block jumps" in caplog.text
    store = EpisodeStore.open(tmp_path / "out.zarr")
    assert store.episode_ends.tolist() == [5, 6, 15, 19]
    assert store.attributes["conversion"]["options"]["episode_ends"] == "block_jump"


def test_stored_episode_ends_are_preferred_and_not_recorded(
    tmp_path: Path, write_replay_buffer: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A buffer that has boundaries is read as it is, without a warning."""
    convert(write_replay_buffer(tmp_path / "buffer.zarr"), tmp_path / "out.zarr")
    assert "meta/episode_ends" not in caplog.text
    store = EpisodeStore.open(tmp_path / "out.zarr")
    assert store.attributes["conversion"]["options"]["episode_ends"] == ""


def test_ambiguous_block_moves_are_not_guessed(
    tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """A move that could be a push or a reset ends in an error that names the step."""
    state = np.zeros((4, 5), np.float32)
    state[2:, 2] = 22.0
    arrays = {"state": state, "keypoint": np.zeros((4, 9, 2)), "action": np.zeros((4, 2))}
    source = write_replay_buffer(tmp_path / "buffer.zarr", (4,), ends=False, arrays=arrays)
    with pytest.raises(DatasetError, match=r"moves 22.0 px at step 1, neither clearly pushed"):
        convert(source, tmp_path / "out.zarr")


def test_episode_ends_from_a_file(tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> None:
    """Boundaries may lie in a .npy file; its content is recorded, not its path."""
    source = write_replay_buffer(tmp_path / "buffer.zarr", ends=False)
    np.save(tmp_path / "ends.npy", np.array([10, 19]))
    convert(source, tmp_path / "out.zarr", options={"episode_ends": str(tmp_path / "ends.npy")})
    store = EpisodeStore.open(tmp_path / "out.zarr")
    assert store.episode_ends.tolist() == [10, 19]
    assert store.attributes["conversion"]["options"]["episode_ends"].startswith("blake2b:")


def test_truncated_zip_is_one_clear_line(tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> None:
    """A zip that was cut short is refused and nothing is written."""
    write_replay_buffer(tmp_path / "folder")
    archive = Path(shutil.make_archive(str(tmp_path / "buffer"), "zip", tmp_path / "folder"))
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"cannot be opened as a replay buffer"):
        convert(archive, tmp_path / "out.zarr", format="diffusion_policy_zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["buffer.zip", "folder"]


def test_damaged_chunk_sets_its_episodes_aside(
    tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """Episodes that need an unreadable chunk are set aside with the reason; the others are converted."""
    source = write_replay_buffer(tmp_path / "buffer.zarr", (6, 6, 6), chunk=6)
    (source / "data" / "action" / "1.0").write_bytes(b"garbage")
    report = convert(source, tmp_path / "out.zarr")
    assert list(report.quarantined) == ["episode_000001"]
    assert "data/action steps 6..12 cannot be read" in report.quarantined["episode_000001"]
    assert report.n_episodes == 2


def test_lengths_that_disagree_are_refused(tmp_path: Path, write_replay_buffer: Callable[..., Path]) -> None:
    """Arrays of another length than the last episode end mean a damaged buffer."""
    source = write_replay_buffer(tmp_path / "b.zarr", (2, 3), arrays={"action": np.zeros((4, 2), np.float32)})
    with pytest.raises(DatasetError, match=r"4.*steps but episodes end at 5"):
        convert(source, tmp_path / "out.zarr", options={"fps": "10"})


@pytest.mark.parametrize(
    ("array", "key", "value"),
    [("meta/episode_ends", "shape", [10**12]), ("data/img", "chunks", [6, 0, 8, 3])],
)
def test_absurd_sizes_are_refused(
    array: str, key: str, value: list[int], tmp_path: Path, write_replay_buffer: Callable[..., Path]
) -> None:
    """More chunks than memory could list, or chunks of nothing: one line names the array."""
    source = write_replay_buffer(tmp_path / "b.zarr")
    metadata = source / array / ".zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {key: value}))
    with pytest.raises(DatasetError, match=f"{array} has shape .* damaged, copy it again"):
        convert(source, tmp_path / "out.zarr", options={"fps": "10"})


def test_real_pusht_demonstrations_are_read_exactly(shared_data: Path) -> None:
    """The published ones: 206 episodes, 25,650 steps, every action as in the source; frames of every fortieth."""
    source = shared_data / "pusht" / "pusht_cchi_v7_replay.zarr.zip"
    importer = DiffusionPolicyZarr()
    plan = importer.plan(source, resolve_options(importer, {}))
    data, start, lengths = _open(ZipStore(source, mode="r"))["data"], 0, []
    actions = data["action"][:]
    for number, episode in enumerate(importer.episodes(plan, plan.refs)):
        assert isinstance(episode, Episode)
        end = start + episode.n_steps
        np.testing.assert_array_equal(episode.data["action"], actions[start:end])
        if number % 40 == 0:
            frames = [decode_frame(frame) for frame in episode.images["observation.images.top"]]
            np.testing.assert_array_equal(np.stack(frames), data["img"][start:end])
        lengths.append(episode.n_steps)
        start = end
    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (206, 25650, 49, 246)
