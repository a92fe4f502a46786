"""Mirror images of PushT demonstrations are demonstrations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.edit import apply
from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, ENVIRONMENT_STATE, STATE, Feature
from robot_datasets.image_codec import decode_frame, encode_frame
from robot_datasets.schemas import load_schema
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_sim.mirror import mirror
from robot_sim.registry import TaskError
from robot_sim.replay import FULL_STATE, make_environment, plan_replay, replay_episode
from robot_sim.tasks.pusht import PushT, block_keypoints
from robot_sim.tasks.pusht_mirror import CONTACTS, block_pose, mirror_values, place_keypoints

TOP = "observation.images.top"


def record(path: Path, *, steps: int = 40, **extra: Feature) -> EpisodeStore:
    """An episode in which the agent is pulled through the block to and fro."""
    schema = load_schema("pusht")
    features = {name: schema.feature(name) for name in (STATE, ENVIRONMENT_STATE, FULL_STATE)}
    features |= {ACTION: schema.action(), TOP: Feature(dtype="uint8", shape=(96, 96, 3)), **extra}
    env = PushT(images=True)
    start = np.array([150.0, 260.0, 250.0, 200.0, 0.7])
    observation, _ = env.reset(seed=0, options={"state": start})
    rows: dict[str, list[np.ndarray]] = {name: [] for name in features}
    for step in range(steps):
        action = np.array([150 + 7 * step, 260 + 40 * math.sin(step / 4)], dtype=np.float32)
        position, angle = block_pose(observation[ENVIRONMENT_STATE].reshape(1, 9, 2).astype(np.float64))
        full = np.concatenate([observation[STATE], position[0], np.mod(angle, 2 * math.pi)])
        for name, value in {**observation, FULL_STATE: full, ACTION: action}.items():
            rows[name].append(np.asarray(value, dtype=features[name].dtype))
        for name in extra:
            rows[name].append(np.zeros(extra[name].shape, dtype=np.float32))
        observation, *_ = env.step(action)
    env.close()
    frames = [encode_frame(image, "png") for image in rows.pop(TOP)]
    with EpisodeStoreWriter(path, features=features, fps=10, embodiment="pusht") as writer:
        writer.add_episode(
            Episode("a", {n: np.stack(v) for n, v in rows.items()}, {TOP: frames}, task="push")
        )
        writer.publish()
    return EpisodeStore.open(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[EpisodeStore, EpisodeStore]:
    folder = tmp_path_factory.mktemp("mirror")
    store = record(folder / "plain.zarr")
    apply(mirror(store), folder / "mirrored.zarr")
    return store, EpisodeStore.open(folder / "mirrored.zarr")


def test_keypoints_and_poses_are_inverse() -> None:
    """The pose that is fitted to keypoints is the pose they were placed at."""
    poses = [(100.0, 200.0, 0.3), (300.0, 250.0, -2.5), (256.0, 256.0, math.pi / 4)]
    keypoints = np.stack([block_keypoints(*pose) for pose in poses])
    position, angle = block_pose(keypoints)
    np.testing.assert_allclose(np.column_stack([position, angle]), poses, atol=1e-9)
    np.testing.assert_allclose(place_keypoints(position, angle), keypoints, atol=1e-9)


def test_the_target_is_its_own_mirror_image() -> None:
    """Otherwise a mirrored demonstration would push the block elsewhere."""
    target = block_keypoints(256.0, 256.0, math.pi / 4).reshape(1, 18)
    np.testing.assert_allclose(mirror_values(ENVIRONMENT_STATE, target), target, atol=1e-4)


def test_mirrored_twice_is_the_original(stores) -> None:
    """For every feature; a keypoint keeps its place on the block."""
    store, mirrored = stores
    for name in (STATE, ENVIRONMENT_STATE, ACTION, FULL_STATE):
        twice = mirror_values(name, mirrored.column(name))
        np.testing.assert_allclose(twice, store.column(name), atol=1e-3, err_msg=name)


def test_physics_agrees_with_the_mirror(stores) -> None:
    """Carried out in the simulator, mirrored actions lead where the mirrored record says."""
    _, mirrored = stores
    plan = plan_replay(mirrored)
    env = make_environment(plan)
    replay = replay_episode(env, mirrored, 0, plan)
    env.close()
    moved = np.ptp(mirrored.column(FULL_STATE)[:, 2:4], axis=0).max()
    assert moved > 20
    assert max(float(errors.max()) for errors in replay.errors.values()) < 0.5


def test_pictures_show_what_the_numbers_say(stores) -> None:
    """A mirrored frame is what the simulator draws of the mirrored state."""
    _, mirrored = stores
    env = PushT(images=True)
    drawn, _ = env.reset(seed=0, options={"state": mirrored.column(FULL_STATE)[20]})
    env.close()
    stored = decode_frame(bytes(mirrored.images(TOP).encoded(20)))
    differ = np.abs(drawn[TOP].astype(int) - stored.astype(int)).max(axis=-1) > 60
    assert differ.mean() < 0.02


def test_the_published_count_of_contacts_stays(tmp_path: Path) -> None:
    """The published demonstrations carry one, and are mirrored as they were converted."""
    store = record(tmp_path / "x.zarr", steps=2, **{CONTACTS: Feature(dtype="float32", shape=(1,))})
    apply(mirror(store), tmp_path / "mirrored.zarr")
    assert CONTACTS in EpisodeStore.open(tmp_path / "mirrored.zarr").features
    np.testing.assert_array_equal(mirror_values(CONTACTS, np.array([[3.0], [0.0]])), [[3.0], [0.0]])


def test_what_has_no_mirror_is_refused(stores, tmp_path) -> None:
    """Another robot, or a feature the mirror does not know."""
    store, _ = stores
    extra = record(
        tmp_path / "x.zarr", steps=2, **{"observation.touch": Feature(dtype="float32", shape=(1,))}
    )
    with pytest.raises(
        TaskError, match=r"does not know observation\.touch; leave it out with: robot-policies drop"
    ):
        mirror(extra)
    object.__setattr__(store.spec, "embodiment", "panda")
    with pytest.raises(TaskError, match="no mirror is known for 'panda'; there is one for: pusht"):
        mirror(store)
