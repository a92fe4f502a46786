"""Recorded actions carried out once more: they stay with the record, or it is said where they leave it."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from robot_datasets.edit import apply, drop, merge, rename, trim
from robot_datasets.episode import Episode
from robot_datasets.features import Feature, is_image
from robot_datasets.importers import get_importer
from robot_datasets.importers.base import resolve_options
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_policies.cli.main import main
from robot_sim.generate import GenerationPlan, generate
from robot_sim.registry import TaskError, make_task
from robot_sim.replay import (
    FULL_STATE,
    POSITIONS,
    SIMULATOR_STATE,
    make_environment,
    plan_replay,
    replay_episode,
)


@pytest.fixture(scope="module")
def pusht(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of PushT with random targets, recorded as the published demonstrations are."""
    from robot_datasets.schemas import load_schema

    path, schema = tmp_path_factory.mktemp("replay") / "pusht.zarr", load_schema("pusht")
    features = {name: schema.feature(name) for name in schema.features} | {"action": schema.action()}
    env, random = make_task("pusht"), np.random.default_rng(0)
    with EpisodeStoreWriter(path, features=features, fps=10, embodiment="pusht") as writer:
        for i in range(2):
            start = np.array([250, 300, 200 + 50 * i, 250, 1.0])
            observation, _ = env.reset(seed=0, options={"state": start})
            rows: dict[str, list[np.ndarray]] = {name: [] for name in features}
            for _ in range(12):
                action = random.uniform(100, 400, 2).astype(np.float32)
                block = env._benchmark.block  # type: ignore[attr-defined]
                pose = [block.position.x, block.position.y, block.angle]
                rows[FULL_STATE].append(np.array([*observation["observation.state"], *pose], np.float32))
                rows["action"].append(action)
                for name, value in observation.items():
                    rows[name].append(value)
                observation, *_ = env.step(action)
            writer.add_episode(
                Episode(f"e{i}", {n: np.stack(v).astype(np.float32) for n, v in rows.items()}, success=False)
            )
        writer.publish()
    env.close()
    return path


@pytest.fixture(scope="module")
def lift(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Two demonstrations of an expert that is disturbed."""
    path = tmp_path_factory.mktemp("replay") / "lift.zarr"
    generate(GenerationPlan(task="lift", episodes=2, expert_options={"noise": 0.3}), path, workers=0)
    return EpisodeStore.open(path)


def test_a_faithful_record_is_met_step_by_step(pusht: Path) -> None:
    """From the recorded start the actions lead through the recorded states."""
    store = EpisodeStore.open(pusht)
    plan = plan_replay(store)
    env = make_environment(plan)
    replay = replay_episode(env, store, 1, plan)
    env.close()
    assert (replay.n_steps, replay.success, replay.recorded_success) == (12, False, False)
    for errors in replay.errors.values():
        assert errors.shape == (12,)
        assert errors.max() < 1e-3
    assert replay.left_at(0.01) is None


def test_a_wrong_action_is_found_at_its_step(pusht: Path, tmp_path: Path) -> None:
    """An action that was changed after the recording shows in the next state, and not before."""
    import shutil

    import zarr

    shutil.copytree(pusht, tmp_path / "s.zarr")
    zarr.open_array(tmp_path / "s.zarr" / "data" / "action", mode="r+")[5] = (10, 10)
    store = EpisodeStore.open(tmp_path / "s.zarr")
    plan = plan_replay(store)
    env = make_environment(plan)
    replay = replay_episode(env, store, 0, plan)
    env.close()
    assert replay.left_at(0.01) == 6


def test_generated_demonstrations_replay_exactly(lift: EpisodeStore, tmp_path: Path) -> None:
    """The seed and the expert's disturbance are repeated, also after merging, dropping and renaming."""
    apply(drop(lift, episodes=[0]), tmp_path / "a.zarr")
    apply(rename(lift, tasks={"lift the cube": "lift"}), tmp_path / "b.zarr")
    stores = [EpisodeStore.open(tmp_path / f"{name}.zarr") for name in "ab"]
    apply(merge(stores), tmp_path / "c.zarr")
    merged = EpisodeStore.open(tmp_path / "c.zarr")
    plan = plan_replay(merged)
    env = make_environment(plan)
    replay = replay_episode(env, merged, 2, plan)
    env.close()
    assert plan.expert_options == {"noise": 0.3}
    assert replay.success
    assert replay.recorded_success
    assert max(errors.max() for errors in replay.errors.values()) == 0


def test_a_trimmed_start_is_noticed(
    lift: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generated episode without its first steps differs at once, and the command says why that may be."""
    apply(trim(lift, steps=(8, None)), tmp_path / "t.zarr")
    assert main(["replay", str(tmp_path / "t.zarr"), "--episode", "0", "--tolerance", "0.001"]) == 1
    out = capsys.readouterr().out
    assert "differs at its very start: was it trimmed" in out
    assert "leaves its record at step 0" in out


def test_recordings_of_other_robots_are_refused(tmp_path: Path) -> None:
    """Without a simulator that knows the robot there is no replay."""
    from robot_datasets.testing import write_example_store

    with pytest.raises(TaskError, match="no simulator knows this recording of 'example'"):
        plan_replay(write_example_store(tmp_path / "s.zarr", [3]))


def test_the_command_reports_and_films(
    pusht: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest difference is printed per feature, a tolerance decides the exit status, and a video is made."""
    assert main(["replay", str(pusht), "--tolerance", "0.01"]) == 0
    assert "observation.environment_state" in capsys.readouterr().out
    assert main(["replay", str(pusht), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert len(entries) == 2
    assert len(entries[0]["errors"]["observation.state"]) == 12
    video = tmp_path / "replay.mp4"
    assert main(["replay", str(pusht), "--episode", "1", "--video", str(video)]) == 0
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episode", "2"], "no episode 2; the store has 0 to 1"),
        (["--video", "x.mp4"], "--video films one episode, 2 were asked for"),
        (["--episode", "0", "--video", "absent/x.mp4"], "absent is no folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, pusht: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong numbers and places end with status 2 and one line."""
    assert main(["replay", str(pusht), *arguments]) == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]


def test_published_demonstrations_replay(shared_data: Path, tmp_path: Path) -> None:
    """The human PushT demonstrations are met: the agent exactly, the block to a tenth of a pixel."""
    importer = get_importer("diffusion_policy_zarr")
    path = shared_data / "pusht" / "pusht_cchi_v7_replay.zarr.zip"
    full = importer.plan(path, resolve_options(importer, {}))
    features = {name: feature for name, feature in full.features.items() if not is_image(name)}
    with EpisodeStoreWriter(
        tmp_path / "s.zarr", features=features, fps=full.fps, embodiment="pusht"
    ) as writer:
        for episode in importer.episodes(full, full.refs[:2]):
            assert isinstance(episode, Episode)
            writer.add_episode(replace(episode, images={}))
        writer.publish()
    store = EpisodeStore.open(tmp_path / "s.zarr")
    plan = plan_replay(store)
    env = make_environment(plan)
    for number in range(2):
        replay = replay_episode(env, store, number, plan)
        assert replay.errors["observation.state"].max() < 1e-3
        assert replay.errors["observation.environment_state"].max() < 0.1
    env.close()


needs_robosuite = pytest.mark.skipif(find_spec("robosuite") is None, reason="the sim extra is not installed")


def _store_of_states(
    path: Path, environment: dict, episodes: dict[str, tuple[np.ndarray, np.ndarray]]
) -> EpisodeStore:
    """Write simulator states (T, 32) and actions (T, 7) as converted robosuite recordings have them."""
    features = {
        SIMULATOR_STATE: Feature(dtype="float64", shape=(32,)),
        "action": Feature(dtype="float32", shape=(7,)),
    }
    source = {"environment": environment}
    with EpisodeStoreWriter(path, features=features, fps=20, embodiment="panda", source=source) as writer:
        for name, (states, actions) in episodes.items():
            writer.add_episode(Episode(name, {SIMULATOR_STATE: states, "action": actions}))
        writer.publish()
    return EpisodeStore.open(path)


@needs_robosuite
def test_robosuite_recordings_replay_exactly(tmp_path: Path) -> None:
    """What robosuite's own recorder writes is met to rounding; other actions lead elsewhere."""
    from robosuite.wrappers import DataCollectionWrapper

    env = make_task("robosuite/Lift", horizon=12)
    recorder = DataCollectionWrapper(env.unwrapped._env, str(tmp_path))  # type: ignore[attr-defined]
    np.random.seed(7)  # noqa: NPY002  robosuite draws the start from it
    recorder.reset()
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (8, 7)).astype(np.float32)
    for action in actions:
        recorder.step(action)
    states = np.stack(recorder.states[:-1])
    env.close()
    episodes = {"as recorded": (states, actions), "other": (states, actions[::-1])}
    store = _store_of_states(tmp_path / "s.zarr", {"env_name": "Lift", "robots": "Panda"}, episodes)
    plan = plan_replay(store)
    env = make_environment(plan)
    same, other = (replay_episode(env, store, episode, plan) for episode in range(2))
    env.close()
    assert (plan.task, same.n_steps, len(same.errors[POSITIONS])) == ("robosuite/Lift", 8, 8)
    assert same.errors[POSITIONS].max() < 1e-6
    assert other.errors[POSITIONS].max() > 0.03


@needs_robosuite
def test_recordings_of_older_robosuite_replay(shared_data: Path, tmp_path: Path) -> None:
    """A person's Lift of robosuite 1.4: the arm and the fingers are met, in spite of 1.5's other control law."""
    import h5py

    with h5py.File(shared_data / "robosuite_v1_lift_wipe" / "lift" / "demo.hdf5") as opened:
        file: Any = opened
        environment = json.loads(file["data"].attrs["env_info"])
        demo = file["data/demo_1"]
        states, actions = demo["states"][:20], demo["actions"][:20].astype(np.float32)
    store = _store_of_states(tmp_path / "s.zarr", environment, {"demo_1": (states, actions)})
    plan = plan_replay(store)
    env = make_environment(plan)
    env.reset(seed=0, options={"state": states[0]})
    joints = []
    for action in actions:
        joints.append(env.unwrapped.simulator_positions()[:9])  # type: ignore[attr-defined]
        env.step(action)
    env.close()
    assert np.abs(np.stack(joints) - states[:, 1:10]).max() < 1e-4
