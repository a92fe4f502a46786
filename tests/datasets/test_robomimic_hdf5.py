"""The importer of robomimic datasets and raw robosuite recordings."""

# h5py types every access as group, dataset or datatype; what the fixture wrote is known here.
# pyright: reportIndexIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false, reportCallIssue=false

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.importers import robomimic_contents
from robot_datasets.importers.base import Importer, resolve_options
from robot_datasets.importers.robomimic_hdf5 import RobomimicHdf5
from robot_datasets.isolation import call_isolated_within
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import ImporterTests

LENGTHS = {"demo_2": 3, "demo_10": 5, "demo_1": 4}
ENVIRONMENT = {
    "env_name": "Lift",
    "env_kwargs": {
        "robots": ["Panda"],
        "control_freq": 20,
        "controller_configs": {"type": "OSC_POSE", "control_delta": True},
    },
}


def _write(path: Path, *, raw: bool = False, environment: dict[str, Any] | None = None) -> Path:
    """Write demonstrations 2, 10 and 1: robomimic's layout, or robosuite's raw one without observations."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        values = ENVIRONMENT if environment is None else environment
        data.attrs["env_info" if raw else "env_args"] = json.dumps(values)
        for name, n in LENGTHS.items():
            random = np.random.default_rng(n)
            demo = data.create_group(name)
            demo["actions"] = random.uniform(-1, 1, (n, 7))
            demo["states"] = np.concatenate(
                [np.arange(n)[:, None] * 0.05, random.normal(size=(n, 6))], axis=1
            )
            if not raw:
                _write_observations(demo, n, random)
        if not raw:
            file["mask/train"] = np.array([b"demo_1", b"demo_2"])
            file["mask/valid"] = np.array([b"demo_10"])
            file["mask/few"] = np.array([b"demo_10"])
    return path


def _write_observations(demo: h5py.Group, n: int, random: np.random.Generator) -> None:
    demo["rewards"] = np.eye(n)[n - 1] * (demo.name != "/data/demo_2")
    demo["dones"] = np.eye(n, dtype=np.int64)[n - 1]
    for key, width in (
        ("robot0_eef_pos", 3),
        ("robot0_eef_quat", 4),
        ("robot0_gripper_qpos", 2),
        ("object", 10),
    ):
        demo[f"obs/{key}"] = random.normal(size=(n, width))
        demo[f"next_obs/{key}"] = random.normal(size=(n, width))
    demo["obs/robot0_joint_pos"] = random.normal(size=(n, 7))
    demo["obs/agentview_image"] = random.integers(0, 256, (n, 8, 6, 3), dtype=np.uint8)
    demo["obs/agentview_depth"] = random.random((n, 8, 6, 1)).astype(np.float32)


def _converted(source: Path, **options: str) -> EpisodeStore:
    convert(source, source.parent / "out.zarr", options=options, overwrite=True)
    return EpisodeStore.open(source.parent / "out.zarr")


class TestRobomimic(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return RobomimicHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        (tmp_path / "in").mkdir()
        path = _write(tmp_path / "in" / "image.hdf5")
        with h5py.File(path, "a") as file:
            del file["data/demo_2/obs/robot0_joint_pos"]
        return path


class TestRawRobosuite(ImporterTests):
    @pytest.fixture
    def importer(self) -> Importer:
        return RobomimicHdf5()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        (tmp_path / "lift").mkdir()
        _write(tmp_path / "lift" / "demo.hdf5", raw=True)
        return tmp_path / "lift"


def test_observations_become_features(tmp_path: Path) -> None:
    """Numbers and pixels are kept to the bit, in the order of the demonstrations' numbers."""
    source = _write(tmp_path / "image.hdf5")
    store = _converted(source)
    assert store.episodes["source_id"] == ["demo_1", "demo_2", "demo_10"]
    with h5py.File(source) as file:
        demos = [file[f"data/{name}"] for name in store.episodes["source_id"]]
        state = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
        for name, keys in {
            "action": ["actions"],
            "observation.state": [f"obs/{key}" for key in state],
            "observation.environment_state": ["obs/object"],
            "observation.robot0_joint_pos": ["obs/robot0_joint_pos"],
        }.items():
            expected = np.concatenate([np.concatenate([d[k][...] for k in keys], axis=1) for d in demos])
            np.testing.assert_array_equal(store.column(name), expected)
        pixels = np.concatenate([d["obs/agentview_image"][...] for d in demos])
    np.testing.assert_array_equal(store.images("observation.images.agentview").decode(np.arange(12)), pixels)
    assert sorted(store.attributes["source"]["left_out"]) == ["next_obs", "obs/agentview_depth", "states"]


def test_labels_come_from_masks_rewards_and_environment(tmp_path: Path) -> None:
    """Split, success, rate, robot and conventions are those of the file."""
    store = _converted(_write(tmp_path / "image.hdf5"))
    assert store.episodes["split"] == ["train", "train", "val"]
    assert store.episodes["success"].tolist() == [1, 0, 1]
    assert (store.fps, store.embodiment, store.tasks) == (20, "panda", ["Lift"])
    action = store.features["action"]
    assert (action.meaning, action.gripper, action.names[-1]) == ("delta pose", "-1=open,1=closed", "gripper")
    assert store.features["observation.state"].rotation == "quat_xyzw"


def test_features_fit_the_simulated_task(tmp_path: Path) -> None:
    """A policy trained on robomimic's Lift fits the task of the same name: same names, units and conventions."""
    task = pytest.importorskip("robot_sim.tasks.lift")
    from robot_datasets.features import compare_features

    features = _converted(_write(tmp_path / "image.hdf5")).features
    names = ("observation.state", "observation.environment_state")
    assert compare_features({n: features[n] for n in names}, task.FEATURES) == []
    assert compare_features({"action": features["action"]}, {"action": task.ACTION_FEATURE}) == []


def test_raw_recordings_keep_the_simulator_state(tmp_path: Path) -> None:
    """Without observations the simulator's state is kept, and its clock tells the rate."""
    source = _write(tmp_path / "demo.hdf5", raw=True, environment={"env_name": "Lift", "robots": "Panda"})
    store = _converted(source)
    assert sorted(store.features) == ["action", "observation.simulator_state"]
    with h5py.File(source) as file:
        first = file["data/demo_1/states"][...]
    np.testing.assert_array_equal(store.column("observation.simulator_state")[: len(first)], first)
    assert store.fps == 20


def test_a_mask_chooses_demonstrations(tmp_path: Path) -> None:
    """Option filter takes one mask; an unknown one is answered with the nearest."""
    source = _write(tmp_path / "image.hdf5")
    assert _converted(source, filter="few").episodes["source_id"] == ["demo_10"]
    with pytest.raises(DatasetError, match="unknown mask 'fwe'; did you mean 'few'"):
        _converted(source, filter="fwe")


def test_a_damaged_demonstration_is_set_aside(tmp_path: Path) -> None:
    """Missing keys and arrays of other lengths cost one demonstration, with the reason."""
    source = _write(tmp_path / "image.hdf5")
    with h5py.File(source, "a") as file:
        del file["data/demo_1/obs/object"]
        del file["data/demo_2/actions"]
        file["data/demo_2/actions"] = np.zeros((2, 7))
    store = _converted(source)
    assert store.episodes["source_id"] == ["demo_10"]
    assert "obs/object is missing" in store.quarantined["demo_1"]
    assert "arrays differ in length" in store.quarantined["demo_2"]


def test_parts_of_another_rank_set_a_demonstration_aside(tmp_path: Path) -> None:
    """A hand position with one axis too many cannot stand beside orientation and fingers."""
    path = _write(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        position = file["data/demo_2/obs/robot0_eef_pos"][()]
        del file["data/demo_2/obs/robot0_eef_pos"]
        file["data/demo_2/obs/robot0_eef_pos"] = position[..., None]
    report = convert(path, tmp_path / "s.zarr")
    assert list(report.quarantined) == ["demo_2"]
    assert "observation.state: its parts have shapes (3, 3, 1)" in report.quarantined["demo_2"]
    assert report.n_episodes == 2


def test_actions_of_a_type_no_store_has_are_refused(tmp_path: Path) -> None:
    """A flipped bit in the type of the actions is named with their place in the file."""
    path = _write(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = np.zeros((3, 7), np.longdouble)
    with pytest.raises(
        DatasetError, match="actions is of type float128, expected numbers; copy the file again"
    ):
        convert(path, tmp_path / "s.zarr")


def test_attributes_that_cannot_be_read_in_time_are_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 can search a damaged file for a text without end; the conversion goes on to say so."""
    path = _write(tmp_path / "demos.hdf5")
    monkeypatch.setattr(
        robomimic_contents, "call_isolated_within", lambda *_: call_isolated_within(0.2, time.sleep, 60.0)
    )
    with pytest.raises(
        DatasetError, match=r"reading the attributes of data gives no answer within 0\.2 s; the file"
    ):
        convert(path, tmp_path / "s.zarr")


def test_a_truncated_file_is_one_clear_error(tmp_path: Path) -> None:
    """A file that HDF5 cannot open is named, with what to do."""
    source = _write(tmp_path / "image.hdf5")
    source.write_bytes(source.read_bytes()[:-500])
    with pytest.raises(DatasetError, match="truncated or not HDF5"):
        convert(source, tmp_path / "out.zarr", format="robomimic_hdf5")


def test_the_rate_is_not_invented(tmp_path: Path) -> None:
    """Without environment and clock the rate must be given."""
    source = _write(tmp_path / "image.hdf5", environment={})
    with h5py.File(source, "a") as file:
        for name in LENGTHS:
            del file[f"data/{name}/states"]
    with pytest.raises(DatasetError, match="--option fps="):
        _converted(source)
    assert _converted(source, fps="10").fps == 10


@pytest.mark.parametrize(
    ("folder", "lengths", "width"), [("lift", [482, 510, 392], 32), ("wipe/panda", [174], 15)]
)
def test_the_real_recordings_convert(
    folder: str, lengths: list[int], width: int, shared_data: Path, tmp_path: Path
) -> None:
    """Human demonstrations of robosuite 1.x: counts as published, 20 Hz from the simulator's clock."""
    source = shared_data / "robosuite_v1_lift_wipe" / folder
    if not source.is_dir():
        pytest.skip(f"no real recordings at {source}")
    plan = RobomimicHdf5().plan(source, resolve_options(RobomimicHdf5(), {}))
    assert (plan.fps, plan.embodiment) == (20, "panda")
    turned = [text for text in plan.notes["warnings"] if "negative of an action's rotation" in text]
    assert len(turned) == (folder == "wipe/panda")  # robosuite 1.0; lift is of 1.4
    assert plan.features["observation.simulator_state"].shape == (width,)
    convert(source, tmp_path / "out.zarr")
    assert EpisodeStore.open(tmp_path / "out.zarr").episodes["n_steps"].tolist() == lengths
