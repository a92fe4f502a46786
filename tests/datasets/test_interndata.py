"""The importer of InternData-A1: every embodiment and layout, archives, and the traps that are documented."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_datasets.archives import index_archive
from robot_datasets.convert import convert
from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, STATE
from robot_datasets.image_codec import decode_frame
from robot_datasets.importers import detect_importer
from robot_datasets.importers.base import Importer, Rejected, resolve_options
from robot_datasets.importers.interndata import InternData
from robot_datasets.schemas import load_schema
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests
from robot_datasets.testing.interndata import WrittenSet, pack, write_interndata_set
from robot_datasets.testing.lerobot import ToyEpisode, edit_info, grey_frames, grey_levels, write_lerobot

DUAL_ARM = ["left_joint", "left_gripper", "right_joint", "right_gripper"]
ORDER = {
    "franka": ["joint", "gripper"],
    "franka_robotiq": ["joint", "gripper"],
    "genie1": ["left_joint", "right_joint", "left_gripper", "right_gripper"],
    "lift2": DUAL_ARM,
    "split_aloha": DUAL_ARM,
    "ac_one": DUAL_ARM,
}
CAMERA = "observation.images.head"


class Read:
    """A source read without writing a store: what a store would hold of it, at a tenth of the time."""

    def __init__(self, source: Path, **options: str) -> None:
        importer = detect_importer(source)
        assert isinstance(importer, InternData)
        self.plan = importer.plan(source, resolve_options(importer, options))
        self.features, self.fps, self.embodiment = self.plan.features, self.plan.fps, self.plan.embodiment
        self.quarantined = {rejected.source_id: rejected.reason for rejected in self.plan.rejected}
        self.episodes: list[Episode] = []
        self.frames: list[bytes] = []
        for result in importer.episodes(self.plan, self.plan.refs):
            if isinstance(result, Rejected):
                self.quarantined[result.source_id] = result.reason
                continue
            frames = {name: list(images) for name, images in result.images.items()}
            assert {len(f) for f in frames.values()} <= {result.n_steps}
            self.frames += frames.get(CAMERA, [])
            self.episodes.append(result)
        assert self.episodes
        self.n_steps = [episode.n_steps for episode in self.episodes]
        self.n_episodes = len(self.episodes)
        self.tasks = list(dict.fromkeys(episode.task for episode in self.episodes))
        self.names = [episode.source_id for episode in self.episodes]
        self.warnings = "\n".join(text for episode in self.episodes for text in episode.warnings)
        self.plan_warnings = "\n".join(self.plan.notes["warnings"])

    def column(self, name: str) -> np.ndarray:
        """One feature of all episodes."""
        return np.concatenate([episode.data[name] for episode in self.episodes])

    def levels(self) -> np.ndarray:
        """Grey level of every frame of the head camera."""
        return np.asarray([decode_frame(frame)[4:-4, 4:-4].mean() for frame in self.frames])


def _columns(written: WrittenSet, keys: list[str]) -> np.ndarray:
    return np.concatenate([np.concatenate([c[k] for k in keys], axis=1) for c in written.columns])


class TestUnpackedTree(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return InternData()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        root = tmp_path / "franka" / "Pick_up"
        for number in range(2):
            write_interndata_set(root / f"set_{number}", lengths=(3, 4), seed=number)
        (root / "set_1" / "videos" / "chunk-000" / "images.rgb.head" / "episode_000001.mp4").unlink()
        return tmp_path / "franka"


class TestArchives(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return InternData()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        for name, version in (("Pick_up", "v2.1"), ("Put_down", "v3.0")):
            root = write_interndata_set(tmp_path / name, "lift2", version=version, lengths=(3, 4)).root
            pack(root, tmp_path / "lift2" / f"{name}.tar.gz")
        (tmp_path / "lift2" / "Broken.tar.gz").write_bytes(b"\x1f\x8b and no more")
        return tmp_path / "lift2"


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("robot", ORDER)
def test_every_embodiment_keeps_its_order_of_arms_and_grippers(
    robot: str, version: str, tmp_path: Path
) -> None:
    """State and action are the documented columns side by side, to the bit; grippers take no part in differences."""
    written = write_interndata_set(tmp_path / "set_0", robot, version=version)
    store = Read(tmp_path / "set_0")
    for feature, group in ((STATE, "states"), (ACTION, "actions")):
        expected = _columns(written, [f"{group}.{part}.position" for part in ORDER[robot]])
        np.testing.assert_array_equal(store.column(feature), expected)
        is_gripper = ["gripper" in name for name in store.features[feature].names]
        assert is_gripper == [p.endswith("gripper") for p in ORDER[robot] for _ in range(_width(written, p))]
    schema = load_schema(f"interndata_{robot}")
    assert list(schema.mask()) == [not gripper for gripper in is_gripper]
    assert (store.embodiment, store.fps) == (schema.robot, 30)
    np.testing.assert_allclose(store.levels()[:6], grey_levels(0, 6), atol=3)


def _width(written: WrittenSet, part: str) -> int:
    return written.columns[0][f"states.{part}.position"].shape[1]


def test_real_recordings_of_genie_have_other_columns(tmp_path: Path) -> None:
    """A2D: both arms in one column, both grippers in another; the left arm's joints come first."""
    written = write_interndata_set(tmp_path / "set_0", "real_genie1")
    store = Read(tmp_path / "set_0")
    keys = ["observation.states.joint.position", "observation.states.effector.position"]
    np.testing.assert_array_equal(store.column(STATE), _columns(written, keys))
    assert store.features[STATE].names[:2] == ("left_joint1", "left_joint2")
    assert store.features[STATE].names[-2:] == ("left_gripper", "right_gripper")
    assert store.embodiment == "genie1"


@pytest.mark.parametrize("rotation", ["quat_wxyz", "quat_xyzw"])
@pytest.mark.parametrize("robot", ["franka", "genie1"])
def test_quaternions_give_the_poses_they_were_made_of(robot: str, rotation: str, tmp_path: Path) -> None:
    """A known arm comes back, whichever order of components is asked for, and the feature says which it is."""
    written = write_interndata_set(tmp_path / "set_0", robot, lengths=(20, 8))
    store = Read(tmp_path / "set_0", rotation=rotation)
    feature = store.features["observation.tcp_pose"]
    assert (feature.rotation, feature.frame) == (rotation, "robot_base")
    for side, arms in written.arms.items():
        prefix = "" if len(written.arms) == 1 else f"{side}_"
        at = {name: feature.names.index(prefix + name) for name in ("x", "qx", "qw")}
        first = min(at["qx"], at["qw"])
        assert (at["qw"] < at["qx"]) == (rotation == "quat_wxyz")
        for e, arm in enumerate(arms):
            rows = store.episodes[e].data["observation.tcp_pose"].astype(np.float64)
            quaternions = rows[:, first : first + 4]
            xyzw = np.roll(quaternions, -1, axis=1) if rotation == "quat_wxyz" else quaternions
            arm.assert_same_poses(rows[:, at["x"] : at["x"] + 3], Rotation.from_quat(xyzw), atol=1e-5)


def test_angles_of_the_hand_are_extrinsic(tmp_path: Path) -> None:
    """Franka's gripper.pose holds roll, pitch, yaw about fixed axes."""
    written = write_interndata_set(tmp_path / "set_0", "franka", lengths=(20,))
    store = Read(tmp_path / "set_0", action="next_gripper_pose")
    poses = store.column("observation.gripper_pose").astype(np.float64)
    assert store.features["observation.gripper_pose"].rotation == "rpy_extrinsic"
    rotation = Rotation.from_euler("xyz", poses[:, 3:])
    written.arms["right"][0].assert_same_poses(poses[:, :3], rotation, atol=1e-5)
    np.testing.assert_array_equal(store.column(ACTION)[:-1, :6], store.column("observation.gripper_pose")[1:])


@pytest.mark.parametrize(
    ("action", "keys"),
    [
        ("next_state", ["actions.joint.position", "actions.gripper.position"]),
        ("next_state_openness", ["actions.joint.position", "master_actions.gripper.openness"]),
        ("command", ["master_actions.joint.position", "master_actions.gripper.openness"]),
        ("next_gripper_pose", ["actions.gripper.pose", "actions.gripper.openness"]),
        ("next_tcp_pose", ["actions.tcp_to_robot_pose", "master_actions.gripper.openness"]),
    ],
)
def test_action_choices(action: str, keys: list[str], tmp_path: Path) -> None:
    """Each named choice is the documented columns, and the store records which it is."""
    written = write_interndata_set(tmp_path / "set_0", "franka")
    store = Read(tmp_path / "set_0", action=action)
    np.testing.assert_array_equal(store.column(ACTION), _columns(written, keys))
    assert store.plan.options["action"] == action
    assert store.features[ACTION].gripper == "0=closed,1=open"


def test_openness_is_one_when_open(tmp_path: Path) -> None:
    """Position and commanded openness of the gripper grow together."""
    write_interndata_set(tmp_path / "set_0", "franka", lengths=(12,))
    store = Read(tmp_path / "set_0", action="command")
    width, openness = store.column(STATE)[:, -1], store.column(ACTION)[:, -1]
    assert width[openness == 1].min() > width[openness == 0].max()


def test_a_gripper_command_needs_its_column(tmp_path: Path) -> None:
    """Real recordings lack the controller's command; the choice says so and names the others."""
    write_interndata_set(tmp_path / "set_0", "lift2", without=["master_actions.left_gripper.openness"])
    assert Read(tmp_path / "set_0").n_episodes == 3
    with pytest.raises(DatasetError, match=r"action command: it has no column .*openness; choose another of"):
        Read(tmp_path / "set_0", action="command")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_sets_thinned_out_afterwards_are_noticed(version: str, tmp_path: Path) -> None:
    """Their actions are one recorded step ahead, not one stored step; recomputed ones are, and lose the last step."""
    write_interndata_set(tmp_path / "set_0", "franka", thinned=3, version=version)
    store = Read(tmp_path / "set_0")
    assert "actions.joint.position is not the next stored state" in store.warnings
    assert store.fps == 10
    store = Read(tmp_path / "set_0", action="recomputed_next")
    assert store.n_steps == [5, 3, 4]
    np.testing.assert_array_equal(store.column(ACTION)[:4], store.column(STATE)[1:5])
    np.testing.assert_allclose(store.levels()[:5], grey_levels(0, 6)[:5], atol=3)


def test_sound_sets_have_no_warnings(tmp_path: Path) -> None:
    """What is as documented is not complained of."""
    write_interndata_set(tmp_path / "set_0", "franka", lengths=(30,))
    store = Read(tmp_path / "set_0")
    assert (store.warnings, store.plan_warnings) == ("", "")


@pytest.mark.parametrize(
    ("robot", "robot_type"),
    [
        ("franka", "FRANKA"),
        ("lift2", "arx_lift2"),
        ("lift2", "Lift-2"),
        ("split_aloha", "agilex split-aloha"),
        ("split_aloha", "piper"),
        ("genie1", "genie 1"),
        ("franka", "piper"),  # as published converters write it
        ("genie1", "piper"),
        ("real_genie1", "A2D"),
        ("franka_robotiq", "Franka Robotiq"),
    ],
)
def test_robot_types_are_told_in_any_spelling(robot: str, robot_type: str, tmp_path: Path) -> None:
    """Case, spaces, hyphens and aliases do not matter, and the columns overrule a name that does not fit them."""
    write_interndata_set(tmp_path / "set_0", robot, robot_type=robot_type, lengths=(3,))
    assert Read(tmp_path / "set_0").embodiment == load_schema(f"interndata_{robot}").robot


def test_the_folder_tells_what_the_metadata_do_not(tmp_path: Path) -> None:
    """The published converter calls the Robotiq robot Franka; the folder's name comes first."""
    root = tmp_path / "franka_robotiq" / "Pick_up" / "set_0"
    write_interndata_set(root, "franka_robotiq", robot_type="Franka", lengths=(3,))
    assert Read(tmp_path / "franka_robotiq").embodiment == "franka_robotiq"
    store = Read(root)
    assert store.embodiment == "franka"
    assert "probably the Robotiq gripper; --option robot=interndata_franka_robotiq" in store.warnings
    store = Read(root, robot="franka_robotiq")
    assert (store.embodiment, store.warnings) == ("franka_robotiq", "")
    assert "because of --option robot" in store.plan_warnings


def test_ebench_shares_a_name_with_other_columns(tmp_path: Path) -> None:
    """EBench's robot_type is lift2 as well; its columns say which it is."""
    columns = {"state.joints": 12, "state.base": 3, "state.gripper": 4} | {
        "action.joints": 12,
        "action.base": 3,
        "action.gripper": 4,
    }
    data = {
        key: np.random.default_rng(0).normal(size=(5, n)).astype(np.float32) for key, n in columns.items()
    }
    cameras = {f"video.{name}_camera_view": grey_frames(0, 5) for name in ("overlook", "left", "right")}
    write_lerobot(tmp_path / "ebench", [ToyEpisode(data, cameras)], fps=15, robot_type="lift2")
    store = Read(tmp_path / "ebench")
    assert store.features[STATE].shape == (19,)
    np.testing.assert_array_equal(store.column(ACTION)[:, 15:], data["action.gripper"])


def test_an_unknown_robot_is_one_clear_error(tmp_path: Path) -> None:
    """Three robots have the same columns; without a known name the choice is the user's."""
    write_interndata_set(tmp_path / "set_0", "lift2", robot_type="mystery", lengths=(3,))
    with pytest.raises(
        DatasetError, match=r"'mystery' is not known and its columns fit interndata_ac_one, .*--option robot="
    ):
        Read(tmp_path / "set_0")
    assert Read(tmp_path / "set_0", robot="Lift 2").embodiment == "arx_lift2"
    with pytest.raises(
        DatasetError, match=r"not of robot interndata_genie1: .* has 6 components, expected 7"
    ):
        Read(tmp_path / "set_0", robot="genie1")
    with pytest.raises(DatasetError, match="did you mean 'lift2'"):
        Read(tmp_path / "set_0", robot="lift22")
    with pytest.raises(DatasetError, match="schema pusht is for diffusion_policy_zarr"):
        Read(tmp_path / "set_0", robot="pusht")


def test_camera_parameters_and_base_pose_are_kept(tmp_path: Path) -> None:
    """Intrinsics, extrinsics and the robot's place in the room are features; the latter changes between sets."""
    for number in range(2):
        write_interndata_set(tmp_path / "lift2" / f"set_{number}", "lift2", lengths=(3,), seed=number)
    store = Read(tmp_path / "lift2")
    np.testing.assert_array_equal(store.column("observation.head_camera_intrinsics")[0], [300, 301, 160, 90])
    assert store.features["observation.head_camera_intrinsics"].names == ("fx", "fy", "cx", "cy")
    assert store.features["observation.hand_left_camera_to_robot"].rotation == "quat_wxyz"
    np.testing.assert_allclose(store.column("observation.robot_to_env")[[0, 3], 0], [0.1, 0.2], rtol=1e-6)


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    """A feature that only some sets have is left out with a warning; one that none has, silently."""
    gone = ["states.robot_to_env_pose"]
    write_interndata_set(tmp_path / "t" / "franka" / "set_0", lengths=(3,), without=gone)
    write_interndata_set(
        tmp_path / "t" / "franka" / "set_1", lengths=(3,), without=["head_camera_intrinsics", *gone]
    )
    store = Read(tmp_path / "t")
    assert "observation.robot_to_env" not in store.features
    assert "observation.head_camera_intrinsics" not in store.features
    assert "head_camera_intrinsics is left out, because some of the 2 sets lack it" in store.plan_warnings
    assert "robot_to_env" not in store.plan_warnings


def test_known_faults_are_reported(tmp_path: Path) -> None:
    """A head camera that moves with the hand, and quaternions of zeros, are warnings of their episode."""
    write_interndata_set(tmp_path / "a" / "set_0", lengths=(20,), hand_pose_as_head=True)
    assert "equals hand_camera_to_robot_extrinsics" in Read(tmp_path / "a").warnings
    gone = ["hand_camera_to_robot_extrinsics"]
    write_interndata_set(tmp_path / "b" / "set_0", lengths=(20,), hand_pose_as_head=True, without=gone)
    assert "which a fixed camera does not: it is probably the hand" in Read(tmp_path / "b").warnings
    write_interndata_set(tmp_path / "c" / "set_0", lengths=(4, 4), bad_quaternions=True)
    store = Read(tmp_path / "c")
    assert "states.tcp_to_robot_pose: 1 of 4 quaternions are not of length 1" in store.episodes[0].warnings[0]


def test_instruction_and_paraphrases(tmp_path: Path) -> None:
    """The instruction is the task; other texts of the episode table are labelled parts of the whole episode."""
    write_interndata_set(
        tmp_path / "set_0", task="Pick up the cup.", paraphrases=("Grab the mug.",), lengths=(3,)
    )
    store = Read(tmp_path / "set_0")
    assert store.tasks == ["Pick up the cup."]
    part = Segment.of(store.episodes[0].segments[0])
    assert (part.start, part.end, part.tag, part.text) == (0, 3, "paraphrase", "Grab the mug.")


@pytest.mark.parametrize("inside", ["set_0", "Pick_up/set_0"])
@pytest.mark.parametrize("suffix", [".tar.gz", ".tar", ".tar.xz"])
def test_archives_give_what_the_folder_gives(inside: str, suffix: str, tmp_path: Path) -> None:
    """Columns, frames, names and tasks are the same whether a set is unpacked or not, whatever comes first in it."""
    root = tmp_path / "plain" / "Pick_up" / "set_0"
    write_interndata_set(root, "split_aloha", lengths=(4, 3, 5))
    plain = Read(tmp_path / "plain", image_encoding="png")
    archive = tmp_path / "packed" / f"Pick_up{suffix}"
    pack(root, archive, inside=inside, order=("videos", "meta", "data"))
    store = Read(tmp_path / "packed", image_encoding="png")
    assert (store.names, store.tasks, store.frames) == (plain.names, plain.tasks, plain.frames)
    for name in (STATE, ACTION, "observation.tcp_pose"):
        np.testing.assert_array_equal(store.column(name), plain.column(name))
    assert sorted(p.name for p in archive.parent.iterdir()) == [archive.name]


def test_one_archive_is_a_source(tmp_path: Path) -> None:
    """A single archive, and one with several sets, can be named directly."""
    for number in range(2):
        write_interndata_set(tmp_path / "t" / f"set_{number}", lengths=(3,), seed=number)
    with tarfile.open(tmp_path / "Pick_up.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "t", "Pick_up")
    assert isinstance(detect_importer(tmp_path / "Pick_up.tar.gz"), InternData)
    store = Read(tmp_path / "Pick_up.tar.gz")
    assert store.names == ["Pick_up/set_0/episode_000000", "Pick_up/set_1/episode_000000"]


def test_temporary_space_is_one_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converting an archive never holds more files outside it than one episode has."""
    monkeypatch.setattr("robot_datasets.archives._IN_MEMORY", 0)
    root = write_interndata_set(tmp_path / "set_0", "lift2", lengths=(3,) * 6).root
    pack(root, tmp_path / "lift2" / "Pick_up.tar.gz")
    files: list[weakref.ref[Any]] = []
    most = 0
    make = tempfile.TemporaryFile

    def counted() -> Any:
        nonlocal most
        file = make()
        files.append(weakref.ref(file))
        most = max(most, sum(f() is not None and not f().closed for f in files))  # type: ignore[union-attr]
        return file

    monkeypatch.setattr("tempfile.TemporaryFile", counted)
    assert Read(tmp_path / "lift2").n_episodes == 6
    assert 0 < most <= 5  # a table and three videos, and one that is about to be closed


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar"])
def test_a_broken_download_gives_its_healthy_episodes(suffix: str, tmp_path: Path) -> None:
    """Episodes whose files are before the end are converted; the others say that the archive is truncated."""
    root = write_interndata_set(tmp_path / "set_0", lengths=(12,) * 6, without=["images.rgb.hand"]).root
    archive = pack(root, tmp_path / "t" / f"Pick_up{suffix}")
    content, left = archive.read_bytes(), 6
    while left > 4:  # cut it shorter and shorter, until two videos are gone
        content = content[: len(content) * 99 // 100]
        archive.write_bytes(content)
        left = sum(name.endswith(".mp4") for name in index_archive(archive).members)
    store = Read(tmp_path / "t")
    assert 1 <= left == store.n_episodes == 6 - len(store.quarantined)
    assert all("no video of images.rgb.head" in reason for reason in store.quarantined.values())
    assert "truncated" in next(iter(store.quarantined.values()))
    assert "the archive is damaged" in store.plan_warnings
    np.testing.assert_allclose(store.levels()[:12], grey_levels(0, 12), atol=3)


def test_a_camera_lost_to_damage_is_not_dropped_silently(tmp_path: Path) -> None:
    """If a broken download cost a whole camera, no episode is complete; the others can be chosen."""
    root = write_interndata_set(tmp_path / "set_0", lengths=(12,) * 4).root
    archive = pack(root, tmp_path / "t" / "Pick_up.tar", order=("meta", "data", "videos"))
    with tarfile.open(archive) as packed:
        end = min(member.offset for member in packed if member.name.endswith("images.rgb.head"))
    archive.write_bytes(archive.read_bytes()[:end])
    with pytest.raises(DatasetError, match=r"no videos of camera head; .*--option cameras=hand"):
        Read(tmp_path / "t")
    assert Read(tmp_path / "t", cameras="hand").n_episodes == 4


def test_archives_that_cannot_be_used_are_set_aside(tmp_path: Path) -> None:
    """One that is no archive, one without metadata, and a bomb; the healthy one is converted."""
    tree = tmp_path / "t"
    for name in ("Good", "Cut", "Bomb"):
        pack(
            write_interndata_set(tmp_path / name, lengths=(3,)).root,
            tree / f"{name}.tar.gz",
            keep=0.05 if name == "Cut" else 1,
        )
    (tree / "Pointer.tar.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with tarfile.open(tree / "Bomb.tar.gz", "w:gz") as packed:
        info = tarfile.TarInfo("set_0/meta/zeros")
        info.size = 90 << 20
        packed.addfile(info, io.BytesIO(bytes(info.size)))
    store = Read(tree)
    assert store.n_episodes == 1
    reasons = store.quarantined
    assert sorted(reasons) == ["Bomb.tar.gz", "Cut.tar.gz", "Pointer.tar.gz"]
    assert "more than 250 times its size; if it is trusted, raise the limit" in reasons["Bomb.tar.gz"]
    assert "it holds no meta/info.json before the damage" in reasons["Cut.tar.gz"]
    assert "pointer of Git LFS" in reasons["Pointer.tar.gz"]


def test_limits_are_options(tmp_path: Path) -> None:
    """A user who trusts an archive can raise the limit, or lower it; nonsense is refused."""
    pack(write_interndata_set(tmp_path / "set_0", lengths=(3,)).root, tmp_path / "t" / "Pick.tar.gz")
    assert Read(tmp_path / "t", archive_ratio="1000").n_episodes == 1
    with pytest.raises(DatasetError, match="more than 10000 bytes"):
        Read(tmp_path / "t", archive_total_gb="0.00001")
    with pytest.raises(DatasetError, match="option archive_ratio is 'much'; expected a positive number"):
        Read(tmp_path / "t", archive_ratio="much")


def test_members_that_lead_outside_are_not_read(tmp_path: Path) -> None:
    """A video whose path escapes is no video; nothing appears outside, and the other episodes are converted."""
    root = write_interndata_set(tmp_path / "set_0", lengths=(3, 4)).root
    (tmp_path / "t").mkdir()
    with tarfile.open(tmp_path / "t" / "Pick.tar.gz", "w:gz") as packed:
        for path in sorted(root.rglob("*")):
            name = f"set_0/{path.relative_to(root).as_posix()}"
            escapes = name.endswith("images.rgb.head/episode_000001.mp4")
            packed.add(path, "set_0/../../../escaped.mp4" if escapes else name, recursive=False)
    shutil.rmtree(root)
    store = Read(tmp_path / "t")
    assert store.n_episodes == 1
    assert "no video of images.rgb.head" in store.quarantined["Pick/set_0/episode_000001"]
    assert not list(tmp_path.rglob("escaped.mp4"))


def test_an_archive_beside_its_folder_is_read_once(tmp_path: Path) -> None:
    """Unpacked by hand and not deleted: the folder counts, and a warning says so."""
    root = tmp_path / "t" / "Pick_up" / "set_0"
    write_interndata_set(root, lengths=(3,))
    shutil.copytree(root, tmp_path / "copy")
    pack(tmp_path / "copy", tmp_path / "t" / "Pick_up.tar.gz")
    store = Read(tmp_path / "t")
    assert store.n_episodes == 1
    assert "Pick_up.tar.gz lies beside the folder unpacked from it" in store.plan_warnings


def test_several_robots_need_a_choice(tmp_path: Path) -> None:
    """A tree of two robots is an error that lists them; the choice sets the other's sets aside."""
    write_interndata_set(tmp_path / "t" / "lift2" / "set_0", "lift2", lengths=(3,))
    write_interndata_set(tmp_path / "t" / "split_aloha" / "set_0", "split_aloha", lengths=(4,))
    with pytest.raises(DatasetError, match=r"several robots: interndata_lift2 \(1 sets\), .*--option robot="):
        Read(tmp_path / "t")
    store = Read(tmp_path / "t", robot="split_aloha")
    assert (store.n_steps, store.embodiment) == ([4], "agilex_split_aloha")
    assert store.quarantined == {"lift2/set_0": "it is of robot interndata_lift2, not interndata_split_aloha"}


def test_sets_of_another_rate_are_set_aside(tmp_path: Path) -> None:
    """A store has one rate: the commonest, or the one asked for."""
    for number in range(3):
        write_interndata_set(tmp_path / "t" / f"set_{number}", thinned=3 if number == 1 else 1, lengths=(3,))
    store = Read(tmp_path / "t")
    assert (store.n_episodes, store.fps) == (2, 30)
    assert (
        "runs at 10 Hz, the store at 30; convert it apart with --option fps=10" in store.quarantined["set_1"]
    )
    assert Read(tmp_path / "t", fps="10").n_episodes == 1
    with pytest.raises(DatasetError, match="no set of 7 Hz; there are sets of 10, 30 Hz"):
        Read(tmp_path / "t", fps="7")


def test_sets_without_a_camera_are_set_aside(tmp_path: Path) -> None:
    """A set that lacks a camera does not cost the others theirs, unless that camera is not wanted."""
    write_interndata_set(tmp_path / "t" / "set_0", lengths=(3,))
    write_interndata_set(tmp_path / "t" / "set_1", lengths=(4,), without=["images.rgb.hand"])
    store = Read(tmp_path / "t")
    assert store.n_episodes == 1
    assert "no videos of camera hand; copy it again" in store.quarantined["set_1"]
    store = Read(tmp_path / "t", cameras="head")
    assert (store.n_episodes, list(store.plan.image_encodings)) == (2, [CAMERA])


def test_frames_of_different_size_share_a_feature(tmp_path: Path) -> None:
    """Head frames are 360 or 480 lines high, depending on the set; the feature says that the size varies."""
    write_interndata_set(tmp_path / "t" / "set_0", lengths=(3,))
    other = write_interndata_set(tmp_path / "t" / "set_1", lengths=(3,))
    columns = {k: v[:, 0] if v.shape[1] == 1 else v for k, v in other.columns[0].items()}
    shutil.rmtree(other.root)
    frames = {"images.rgb.head": grey_frames(0, 3, (64, 48)), "images.rgb.hand": grey_frames(0, 3, (48, 64))}
    write_lerobot(other.root, [ToyEpisode(columns, frames)], robot_type="franka")
    store = Read(tmp_path / "t")
    assert store.features[CAMERA].shape == (0, 0, 3)
    assert decode_frame(store.frames[3]).shape == (64, 48, 3)


def test_wrong_metadata_is_reported_and_survived(tmp_path: Path) -> None:
    """A wrong codec, wrong totals and a camera that is not there are warnings with the set's name."""
    write_interndata_set(tmp_path / "t" / "set_0", lengths=(3, 4))
    info = json.loads((tmp_path / "t" / "set_0" / "meta" / "info.json").read_text())
    info["features"]["images.rgb.head"]["info"] = {"video.codec": "av1"}
    edit_info(tmp_path / "t" / "set_0", features=info["features"], total_episodes=99)
    store = Read(tmp_path / "t")
    assert store.n_episodes == 2
    assert "set_0: info.json declares 99 episodes, 2 were found" in store.plan_warnings
    assert "is declared av1, its video is h264" in store.plan_warnings


def test_a_damaged_set_costs_itself_only(tmp_path: Path) -> None:
    """Metadata that are no JSON set one task aside; the others are converted."""
    write_interndata_set(tmp_path / "t" / "set_0", lengths=(3,))
    write_interndata_set(tmp_path / "t" / "set_1", lengths=(3,))
    (tmp_path / "t" / "set_1" / "meta" / "info.json").write_text("{")
    store = Read(tmp_path / "t")
    assert store.n_episodes == 1
    assert "meta/info.json is not JSON" in store.quarantined["set_1"]
    (tmp_path / "t" / "set_0" / "meta" / "info.json").write_text("{")
    with pytest.raises(
        DatasetError, match=r"no set that can be read; .* the first of 2: meta/info.json is not JSON"
    ):
        convert(tmp_path / "t", tmp_path / "x.zarr", format="interndata")


def test_it_is_told_apart_from_other_lerobot_datasets(tmp_path: Path) -> None:
    """Its columns are read by its own importer; --format lerobot keeps every column under its own name."""
    write_interndata_set(tmp_path / "set_0", lengths=(3,))
    assert isinstance(detect_importer(tmp_path / "set_0"), InternData)
    convert(tmp_path / "set_0", tmp_path / "raw.zarr", format="lerobot")
    assert "master_actions.gripper.openness" in EpisodeStore.open(tmp_path / "raw.zarr").features
    toy = ToyEpisode({"action": np.zeros((3, 2), np.float32)}, {})
    write_lerobot(tmp_path / "toy", [toy])
    assert detect_importer(tmp_path / "toy").name == "lerobot"


def test_frames_may_be_in_long_groups_of_pictures(tmp_path: Path) -> None:
    """AV1 without a group size, as published: frames are decoded once, in order, and belong to their steps."""
    write_interndata_set(tmp_path / "set_0", lengths=(12,), codec="libsvtav1")
    np.testing.assert_allclose(Read(tmp_path / "set_0").levels(), grey_levels(0, 12), atol=3)


def test_a_plan_can_be_carried_out_elsewhere(tmp_path: Path) -> None:
    """Episodes read one by one and backwards from archives are those read in order."""
    for name in ("A", "B"):
        pack(write_interndata_set(tmp_path / name, lengths=(3, 4)).root, tmp_path / "t" / f"{name}.tar.gz")
    importer = InternData()
    plan = importer.plan(tmp_path / "t", resolve_options(importer, {"image_encoding": "raw"}))

    def content(order: int) -> dict[str, bytes]:
        found = {}
        for ref in list(plan.refs)[::order]:
            for episode in importer.episodes(plan, [ref]):
                found[ref.source_id] = b"".join(episode.images[CAMERA]) + episode.data[ACTION].tobytes()  # type: ignore[union-attr]
        return found

    assert content(1) == content(-1)
    assert len(content(1)) == 4


def test_a_set_that_vanishes_costs_its_own_episodes(tmp_path: Path) -> None:
    """If the files of one task are gone when it is their turn, the others are still read."""
    for number in range(2):
        write_interndata_set(tmp_path / "t" / f"set_{number}", lengths=(3, 3))
    importer = InternData()
    plan = importer.plan(tmp_path / "t", resolve_options(importer, {}))
    shutil.rmtree(tmp_path / "t" / "set_0")
    results = list(importer.episodes(plan, plan.refs))
    assert [isinstance(result, Rejected) for result in results] == [True, True, False, False]
    assert "meta/info.json is missing" in results[0].reason  # type: ignore[union-attr]
