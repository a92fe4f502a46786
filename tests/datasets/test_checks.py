"""The linter: each rule finds the fault it looks for, and is silent on clean data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robot_datasets.checks import EPISODE_RULES, STORE_RULES, lint, rule_codes
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature, is_image
from robot_datasets.image_codec import encode_frame
from robot_datasets.statistics import FeatureStats
from robot_datasets.testing import write_example_store

STATE, ACTION, POSE, TIME = "observation.state", "action", "observation.end_effector", "timestamp"
TOP, DEPTH = "observation.images.top", "observation.depth.top"
FPS, STEPS, EPISODES = 10.0, 80, 6
JOINTS = ("joint1", "joint2", "gripper")


class MemoryStore:
    """The reading interface of an episode store, over arrays in memory."""

    def __init__(
        self, features: dict[str, Feature], columns: dict[str, np.ndarray], lengths: list[int]
    ) -> None:
        self.features = features
        self.columns = columns
        self.path, self.fps = "memory", FPS
        self.episode_ends = np.cumsum(lengths)
        self.episode_starts = self.episode_ends - lengths
        self.n_episodes = len(lengths)
        self.tasks = ["pick"]
        self.episodes = {
            "source_id": [f"e{i}" for i in range(len(lengths))],
            "task_index": np.zeros(len(lengths), np.int64),
        }
        self.frames: dict[str, list[bytes]] = {}
        names = sorted(features)
        self.spec = SimpleNamespace(
            low_dim=[n for n in names if not is_image(n)], image_features=[n for n in names if is_image(n)]
        )

    def column(self, name: str) -> np.ndarray:
        return self.columns[name]

    def stats(self, name: str) -> FeatureStats:
        return FeatureStats.of(self.columns[name])

    def images(self, name: str) -> Any:
        frames = self.frames[name]
        return SimpleNamespace(
            feature=self.features[name],
            encoding="png",
            offsets=np.cumsum([0, *map(len, frames)]),
            encoded=lambda step: frames[step],
        )

    def rows(self, name: str, episode: int) -> np.ndarray:
        """A view of an episode's part of a column."""
        return self.columns[name][self.episode_starts[episode] : self.episode_ends[episode]]


def _clean(lengths: Sequence[int] = (STEPS,) * EPISODES) -> MemoryStore:
    """Two joints and a gripper that follow their command by one step, the pose of the hand, and times."""
    random = np.random.default_rng(0)
    parts: dict[str, list[np.ndarray]] = {STATE: [], ACTION: [], POSE: [], TIME: []}
    for i, n in enumerate(lengths):
        t = np.arange(n + 1) / FPS
        joints = np.stack([np.sin(1.3 * t + i), 0.7 * np.cos(0.9 * t + 2 * i)], axis=1)
        joints += 0.002 * random.normal(size=joints.shape)
        gripper = np.clip(0.5 + 2 * np.sin(0.8 * t + i), 0, 1)[:, None]
        body = np.concatenate([joints, gripper], axis=1)
        half = joints[:, :1] / 2
        zero = np.zeros_like(half)
        parts[STATE].append(body[:-1])
        parts[ACTION].append(body[1:])
        parts[POSE].append(np.concatenate([np.sin(joints), zero, np.sin(half), np.cos(half)], axis=1)[:-1])
        parts[TIME].append(t[:-1, None] + random.uniform(-0.005, 0.005, (n, 1)))
    joint = Feature(
        dtype="float64",
        shape=(3,),
        names=JOINTS,
        units=("rad", "rad", "1"),
        gripper="0=open,1=closed",
        meaning="",
    )
    pose = Feature(
        dtype="float64",
        shape=(5,),
        names=("x", "qx", "qy", "qz", "qw"),
        units=("m", "1", "1", "1", "1"),
        rotation="quat_xyzw",
    )
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    x, _, zeros, sines, cosines = columns[POSE].T
    columns[POSE] = np.stack([x, sines, zeros, zeros, cosines], axis=1)
    features = {
        STATE: joint,
        ACTION: joint,
        POSE: pose,
        TIME: Feature(dtype="float64", shape=(1,), units=("s",)),
    }
    return MemoryStore(features, columns, list(lengths))


def _with_camera(store: MemoryStore, episode: int | None = None, change: Any = None) -> MemoryStore:
    """Add a camera that sees the joints; `change` alters the frames (T, 8, 8, 3) of one episode."""
    frames = []
    for i in range(store.n_episodes):
        body = store.rows(STATE, i)
        pixels = np.random.default_rng(i).integers(40, 60, (len(body), 8, 8, 3))
        pixels[:, :, :, 0] += ((body[:, 0] + 1) * 60).astype(int)[:, None, None]
        if i == episode:
            pixels = change(pixels)
        frames += [encode_frame(frame.astype(np.uint8), "png") for frame in pixels]
    store.features[TOP] = Feature(dtype="uint8", shape=(8, 8, 3))
    store.spec.image_features.append(TOP)
    store.frames[TOP] = frames
    return store


def _repeat(times: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: pixels[np.arange(len(pixels)) // times * times]


def _freeze(pixels: np.ndarray) -> np.ndarray:
    pixels[20:50] = pixels[20]
    return pixels


def _wait(store: MemoryStore, episode: int, steps: slice) -> None:
    for name in (STATE, ACTION):
        rows = store.rows(name, episode)
        rows[steps] = rows[steps][0]


def _set(store: MemoryStore, name: str, episode: int, steps: Any, value: Any) -> None:
    store.rows(name, episode)[steps] = value


def _delay(store: MemoryStore, steps: int) -> None:
    """Let the action come `steps` later than it does."""
    for i in range(store.n_episodes):
        rows = store.rows(ACTION, i)
        rows[:] = np.concatenate([np.repeat(rows[:1], steps, axis=0), rows])[: len(rows)]


def _hold(store: MemoryStore) -> None:
    rows = store.rows(POSE, 2)
    rows[:] = rows[np.arange(len(rows)) // 3 * 3]


def _duplicate(store: MemoryStore) -> None:
    for name in store.columns:
        _set(store, name, 4, slice(None), store.rows(name, 1))


def _degrees(store: MemoryStore) -> None:
    for name in (STATE, ACTION):
        store.columns[name][:, :2] *= 180 / np.pi


def _gripper(store: MemoryStore, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    store.columns[name][:, 2] = change(store.columns[name][:, 2])


def _depth(store: MemoryStore, largest: int) -> None:
    store.features[DEPTH] = Feature(dtype="uint16", shape=(4, 4, 1), units=("mm",))
    store.columns[DEPTH] = np.full((3, 1), largest, np.uint16)
    store.spec.image_features.append(DEPTH)
    pixels = np.random.default_rng(0).integers(0, largest + 1, (int(store.episode_ends[-1]), 4, 4, 1))
    store.frames[DEPTH] = [encode_frame(frame.astype(np.uint16), "png") for frame in pixels]


def _untasked(store: MemoryStore) -> None:
    store.tasks = ["pick", ""]
    store.episodes["task_index"][3] = 1


PLANTS: dict[str, tuple[Callable[[MemoryStore], Any], str, int | None]] = {
    "time-order": (lambda s: _set(s, TIME, 2, 9, s.rows(TIME, 2)[7] - 0.01), TIME, 2),
    "rate-jitter": (lambda s: _set(s, TIME, 2, slice(20, 50, 3), s.rows(TIME, 2)[20:50:3] + 0.04), TIME, 2),
    "time-gap": (lambda s: _set(s, TIME, 2, slice(40, None), s.rows(TIME, 2)[40:] + 0.6), TIME, 2),
    "rate-mismatch": (lambda s: _set(s, TIME, 2, slice(None), s.rows(TIME, 2) * 1.1), TIME, 2),
    "frozen-signal": (lambda s: _set(s, POSE, 2, slice(None), s.rows(POSE, 2)[0]), POSE, 2),
    "stuck-signal": (lambda s: _set(s, POSE, 2, slice(20, 45), s.rows(POSE, 2)[20]), POSE, 2),
    "slow-signal": (_hold, POSE, 2),
    "spike": (lambda s: _set(s, STATE, 2, (30, 0), s.rows(STATE, 2)[30, 0] + 3), STATE, 2),
    "angle-wrap": (lambda s: _set(s, STATE, 2, (slice(40, None), 0), s.rows(STATE, 2)[40:, 0] - 2 * np.pi), STATE, 2),
    "idle-ends": (lambda s: _wait(s, 2, slice(55, None)), "", 2),
    "pause": (lambda s: _wait(s, 2, slice(20, 65)), "", 2),
    "motionless": (lambda s: _wait(s, 2, slice(None)), "", 2),
    "black-frames": (lambda s: _with_camera(s, 2, lambda p: p * 0), TOP, 2),
    "blank-frames": (lambda s: _with_camera(s, 2, lambda p: p * 0 + 90), TOP, 2),
    "frozen-frames": (lambda s: _with_camera(s, 2, _freeze), TOP, 2),
    "slow-camera": (lambda s: _with_camera(s, 2, _repeat(3)), TOP, 2),
    "constant-component": (lambda s: s.columns[ACTION].__setitem__((slice(None), 1), 0.5), ACTION, None),
    "outlier": (lambda s: _set(s, STATE, 2, (slice(30, 33), 1), 25.0), STATE, 2),
    "idle-ratio": (lambda s: [_wait(s, i, slice(20, 50)) for i in range(EPISODES)], "", None),
    "action-is-state": (lambda s: s.columns.__setitem__(ACTION, s.columns[STATE].copy()), ACTION, None),
    "action-lag": (lambda s: _delay(s, 3), ACTION, None),
    "not-finite": (lambda s: _set(s, ACTION, 2, (30, 1), np.nan), ACTION, 2),
    "unit-range": (_degrees, STATE, None),
    "quaternion-norm": (lambda s: _set(s, POSE, 2, (slice(10, 15), slice(1, 5)), 0.0), POSE, 2),
    "gripper-polarity": (lambda s: _gripper(s, ACTION, lambda g: 1 - g), ACTION, None),
    "gripper-range": (lambda s: _gripper(s, STATE, lambda g: 80 * g), STATE, None),
    "depth-unit": (lambda s: _depth(s, 3), DEPTH, None),
    "empty-depth": (lambda s: _depth(s, 0), DEPTH, None),
    "duplicate-episode": (_duplicate, "", 4),
    "no-instruction": (_untasked, "", None),
}  # fmt: skip

RULE_OF = {"black-frames": "dark-frames", "blank-frames": "dark-frames", "empty-depth": "depth-unit"}


def _lint(store: MemoryStore, **options: Any) -> Any:
    return lint(store, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", PLANTS)
def test_a_rule_finds_its_fault(code: str) -> None:
    """A planted fault is found by its rule, in its feature and episode, with a number and a remedy."""
    plant, feature, episode = PLANTS[code]
    store = _clean()
    plant(store)
    found = [f for f in _lint(store, only=[RULE_OF.get(code, code)]).findings if f.code == code]
    assert (feature, episode) in {(f.feature, f.episode) for f in found}
    assert all(f.number is not None and f.remedy and f.severity for f in found)
    if episode is not None:
        assert {f.episode for f in found} == {episode}
        assert found[0].source_id == f"e{episode}"


def test_a_feature_that_is_not_finite_disturbs_no_other_rule() -> None:
    """With NaN and infinity in two features, all rules run, and only that is found."""
    store = _clean()
    _set(store, ACTION, 2, (30, 1), np.nan)
    _set(store, POSE, 3, 5, np.inf)
    assert _lint(store).counts == {"not-finite": 2}


def test_short_episodes_are_found() -> None:
    """An episode of a few steps among long ones is a broken-off recording."""
    (finding,) = _lint(_clean((80, 80, 4, 80)), only=["short-episode"]).findings
    assert (finding.episode, finding.number) == (2, 4)


def test_every_rule_has_a_planted_fault() -> None:
    """No rule is without a test."""
    tested = {RULE_OF.get(code, code) for code in PLANTS} | {"short-episode"}
    assert tested == set(rule_codes()) == {*EPISODE_RULES, *STORE_RULES}


def test_clean_data_has_no_findings() -> None:
    """No rule fires on clean data but one note: two components of the quaternion are always 0."""
    report = _lint(_with_camera(_clean()))
    assert [(f.code, f.feature) for f in report.findings] == [("constant-component", POSE)]
    assert report.worst() == "note"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: _set(s, STATE, 2, (slice(30, None), 2), 0.0), id="a gripper that opens at once"),
        pytest.param(lambda s: _set(s, ACTION, 2, (slice(30, None, 4), 2), 1.0), id="a command switched on and off"),
        pytest.param(lambda s: _wait(s, 2, slice(30, 40)), id="one second of waiting"),
        pytest.param(lambda s: _with_camera(s, 2, _repeat(1)), id="a camera that sees noise"),
        pytest.param(lambda s: _depth(s, 1500), id="depth in millimetres"),
        pytest.param(lambda s: _set(s, POSE, 3, slice(None), -s.rows(POSE, 3)), id="the other quaternion"),
    ],
)  # fmt: skip
def test_what_is_no_fault_is_not_reported(change: Callable[[MemoryStore], Any]) -> None:
    """Things that look odd but are right stay without a warning."""
    store = _clean()
    change(store)
    assert [f for f in _lint(store, skip=["action-lag"]).findings if f.severity != "note"] == []


def test_rules_are_chosen_by_name() -> None:
    """Single rules are run or left out; a misspelt one is an error with the nearest."""
    store = _clean()
    PLANTS["spike"][0](store)
    assert "spike" in _lint(store).counts
    assert "spike" not in _lint(store, skip=["spike"]).counts
    with pytest.raises(DatasetError, match="did you mean 'spike'"):
        _lint(store, only=["spik"])


def test_long_lists_are_cut_but_counted() -> None:
    """Of one code at most 100 findings are listed; all are counted."""
    store = _clean((12,) * 120)
    for i in range(120):
        _wait(store, i, slice(None))
    report = _lint(store, only=["motionless"])
    assert len(report.findings) == 100
    assert report.counts == {"motionless": 120}


def test_a_real_store_is_read(tmp_path: Any) -> None:
    """The linter reads stores on disk, images included, and reports progress."""
    calls = []
    store = write_example_store(tmp_path / "s.zarr", [12, 15], image_size=8)
    report = lint(store, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    assert report.worst() in ("", "note")


def test_every_rule_is_documented() -> None:
    """The page of the tools has a row for each rule, and for no other."""
    page = Path(__file__).parents[2] / "docs" / "datasets" / "tools.md"
    section = page.read_text(encoding="utf-8").split("## check")[1].split("\n## ")[0]
    rules = section.split("| rule |")[1].split("\n\n")[0]
    documented = {line.split("`")[1] for line in rules.splitlines() if line.startswith("| `")}
    assert documented == set(rule_codes())
