"""The shared layout: components of different robots at agreed places, padded, masked and brought back."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.schemas import load_schema
from robot_datasets.shared_layout import Placement, SharedLayout, Slot, load_layout
from robot_datasets.shared_view import (
    ACTION_IS_VALID,
    STATE_IS_VALID,
    MaskedDataset,
    ViewOptions,
    shared_views,
    slots_of,
)
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.windows import WindowDataset, WindowSpec

LAYOUT = SharedLayout(
    slots={"left_arm": Slot(size=3), "left_gripper": Slot(size=1), "right_arm": Slot(size=3)}
)


def _feature(*names: str, meaning: str = "", rotation: str = "") -> Feature:
    return Feature(dtype="float32", shape=(len(names),), names=names, meaning=meaning, rotation=rotation)


def _store(path: Path, names: tuple[str, ...], *, robot: str = "arm", scale: float = 1.0, **fields: str):
    """Two short episodes of random states; the action is the state."""
    feature = _feature(*names, **fields)
    random = np.random.default_rng(0)
    with EpisodeStoreWriter(
        path, features={STATE: feature, ACTION: feature}, fps=10, embodiment=robot
    ) as writer:
        for i in range(2):
            values = scale * random.normal(size=(6, len(names))).astype(np.float32)
            writer.add_episode(Episode(f"e{i}", {STATE: values, ACTION: values}, task="go"))
        writer.publish()
    return EpisodeStore.open(path)


@given(st.permutations(["l1", "l2", "l3", "g", "r1", "r2"]), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_padding_is_undone(order: list[str], seed: int) -> None:
    """Whatever the order of a robot's components, they come back unchanged, and the rest is 0 and masked."""
    slots = {"left_arm": ["l1", "l2", "l3"], "left_gripper": ["g"], "right_arm": ["r1", "r2"]}
    placement = Placement.of(ACTION, _feature(*order), slots, LAYOUT)
    values = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    padded = placement.pad(values)
    np.testing.assert_array_equal(placement.take(padded), values)
    assert placement.valid.tolist() == [True, True, True, True, True, True, False]
    assert (padded[:, ~placement.valid] == 0).all()
    by_name = dict(zip(order, values.T, strict=True))
    np.testing.assert_array_equal(padded[:, 4], by_name["r1"])


def test_a_part_of_a_state_may_have_no_place() -> None:
    """Components of a state without a slot are left out; those of an action are an error that names them."""
    slots = {"right_arm": ["r1"]}
    placement = Placement.of(STATE, _feature("r1", "torque"), slots, LAYOUT)
    assert placement.take(placement.pad(np.array([[2.0, 3.0]]))).tolist() == [[2.0, 0.0]]
    with pytest.raises(DatasetError, match="no place in the shared layout for torque"):
        Placement.of(ACTION, _feature("r1", "torque"), slots, LAYOUT)


@pytest.mark.parametrize(
    ("names", "slots", "message"),
    [
        (("a", "b", "c", "d"), {"right_arm": ["a", "b", "c", "d"]}, "takes 3 components, action has 4"),
        (("a",), {"right_am": ["a"]}, "unknown slot 'right_am'; did you mean 'right_arm'"),
        (("a",), {}, "no place in the shared layout for a"),
        ((), {"right_arm": ["a"]}, "has no component names"),
    ],
)
def test_what_does_not_fit_is_refused(names: tuple[str, ...], slots: dict, message: str) -> None:
    """Too many components, unknown slots and features without names are errors."""
    feature = Feature(dtype="float32", shape=(max(1, len(names)),), names=names)
    with pytest.raises(DatasetError, match=message):
        Placement.of(ACTION, feature, slots, LAYOUT)


def test_the_built_in_layout_holds_two_armed_humanoids() -> None:
    """The names of its components are unique, and cutting it down keeps its order."""
    layout = load_layout()
    assert len(set(layout.names)) == layout.width
    assert list(layout.only(["waist", "left_arm"]).slots) == ["left_arm", "waist"]
    with pytest.raises(DatasetError, match="did you mean 'shared'"):
        load_layout("shard")


def test_views_of_a_mixture_agree(tmp_path: Path) -> None:
    """Two robots get equal features; each keeps its values in its own slots, and the statistics fit."""
    one = _store(tmp_path / "a.zarr", ("j1", "j2", "g"))
    two = _store(tmp_path / "b.zarr", ("lj1", "rj1"), robot="two_arms")
    views = shared_views(
        [one, two],
        [
            ViewOptions(slots={"right_arm": ["j1", "j2"], "right_gripper": ["g"]}),
            ViewOptions(slots={"left_arm": ["lj1"], "right_arm": ["rj1"]}),
        ],
    )
    assert views[0].features == views[1].features
    assert views[0].features[ACTION].shape == (7 + 7 + 1,)
    padded = views[1].column(ACTION)
    np.testing.assert_array_equal(padded[:, [0, 7]], two.column(ACTION))
    assert views[1].action_is_valid.nonzero()[0].tolist() == [0, 7]
    np.testing.assert_array_equal(views[1].column(STATE_IS_VALID)[3] > 0, views[1].action_is_valid)
    for name in (STATE, ACTION):
        stats, values = views[1].stats(name, episodes=[0]), views[1].column(name)[:6]
        np.testing.assert_allclose(stats.mean, values.mean(axis=0, dtype=np.float64), atol=1e-7)
        np.testing.assert_array_equal(stats.max, values.max(axis=0))
    assert views[1].fps == 10
    assert pickle.loads(pickle.dumps(views[1])).features == views[1].features


def test_windows_of_a_view_carry_the_mask(tmp_path: Path) -> None:
    """A batch says for each row which components of the action its robot has."""
    (view,) = shared_views(
        [_store(tmp_path / "a.zarr", ("j1", "g"))],
        [ViewOptions(slots={"right_arm": ["j1"], "right_gripper": ["g"]})],
    )
    windows = WindowDataset(view, WindowSpec(1, 4, 2), observation=[STATE, STATE_IS_VALID])
    batch = MaskedDataset(windows, view.action_is_valid).__getitems__([0, 3])
    assert batch[ACTION].shape == (2, 4, 8)
    assert batch[ACTION_IS_VALID].tolist() == [[True, *[False] * 6, True]] * 2
    assert batch[STATE_IS_VALID].shape == (2, 1, 8)


def test_slots_are_found_by_embodiment(tmp_path: Path) -> None:
    """A store of a known robot needs no options; an unknown one is told what is missing."""
    franka = _store(tmp_path / "f.zarr", (*(f"joint{i}" for i in range(1, 8)), "gripper"), robot="franka")
    slots = slots_of(franka, ViewOptions())
    assert list(slots["right_arm"]) == [f"joint{i}" for i in range(1, 8)]
    with pytest.raises(DatasetError, match=r"embodiment 'arm' .*none does; name a schema or give slots"):
        slots_of(_store(tmp_path / "x.zarr", ("q",)), ViewOptions())


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"meaning": "puppet_next"},
            {"meaning": "delta pose"},
            "differences and positions cannot share a slot",
        ),
        ({"rotation": "quat_xyzw"}, {"rotation": "rpy_extrinsic"}, "both go into right_end_effector"),
    ],
)
def test_slots_do_not_hold_different_things(first: dict, second: dict, message: str, tmp_path: Path) -> None:
    """Deltas beside positions, or two rotation conventions in one slot, are refused with both stores named."""
    stores = [
        _store(tmp_path / "a.zarr", ("x", "y"), **first),
        _store(tmp_path / "b.zarr", ("x", "y"), **second),
    ]
    options = [ViewOptions(slots={"right_end_effector": ["x", "y"]})] * 2
    with pytest.raises(DatasetError, match=message) as caught:
        shared_views(stores, options)
    assert "a.zarr" in str(caught.value)
    assert "b.zarr" in str(caught.value)


def test_cameras_get_common_names(tmp_path: Path) -> None:
    """A camera is renamed, and one that a robot lacks is black in the size that another robot's has."""
    from robot_datasets.testing import write_example_store

    write_example_store(tmp_path / "a.zarr", [3, 2], image_size=8)
    store, slots = EpisodeStore.open(tmp_path / "a.zarr"), {"right_arm": ["vx", "vy", "vz", "x", "y", "z"]}
    names = store.features[ACTION].names + store.features[STATE].names
    slots = {"right_arm": names[:2], "left_arm": names[2:]}
    views = shared_views(
        [store, store],
        [
            ViewOptions(slots=slots, cameras={"head": "top"}),
            ViewOptions(slots=slots, cameras={"head": ""}),
        ],
    )
    assert views[0].features == views[1].features
    head = "observation.images.head"
    steps = np.array([0, 2])
    np.testing.assert_array_equal(
        views[0].images(head).decode(steps), store.images("observation.images.top").decode(steps)
    )
    assert not views[1].images(head).decode(steps).any()
    with pytest.raises(DatasetError, match=r"cameras.head: unknown camera 'tpo'; did you mean 'top'"):
        shared_views([store], [ViewOptions(slots=slots, cameras={"head": "tpo"})])
    with pytest.raises(DatasetError, match="camera 'wrist' is in no store"):
        shared_views([store], [ViewOptions(slots=slots, cameras={"wrist": ""})])


MIXED = {
    "franka": "robomind_franka_3rgb",
    "ur5e": "robomind_ur_1rgb",
    "agilex": "robomind_agilex_3rgb",
    "tienkung": "robomind_tienkung_gello",
    "lift2": "interndata_lift2",
}


def test_the_robots_of_the_large_datasets_mix(tmp_path: Path) -> None:
    """Franka, UR5e, AgileX, Tien Kung and Lift-2 share sixteen components without being told how."""
    stores = []
    for name, schema_name in MIXED.items():
        schema = load_schema(schema_name)
        features = {STATE: schema.feature(STATE), ACTION: schema.action()}
        with EpisodeStoreWriter(
            tmp_path / f"{name}.zarr", features=features, fps=30, embodiment=schema.robot
        ) as writer:
            random = np.random.default_rng(0)
            data = {key: random.normal(size=(4, *f.shape)).astype(f.dtype) for key, f in features.items()}
            writer.add_episode(Episode("e0", data))
            writer.publish()
        stores.append(EpisodeStore.open(tmp_path / f"{name}.zarr"))
    views = shared_views(stores, [ViewOptions()] * len(stores))
    assert {view.features[ACTION] for view in views} == {views[0].features[ACTION]}
    assert views[0].features[ACTION].shape == (16,)
    assert [int(view.action_is_valid.sum()) for view in views] == [8, 7, 14, 16, 14]
    for view, store in zip(views, stores, strict=True):
        placement = view.placements[ACTION]
        np.testing.assert_array_equal(placement.take(view.column(ACTION)), store.column(ACTION))
