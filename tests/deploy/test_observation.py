"""Rings and windows: samples by stamp, interpolation, and a named reason whenever something is missing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.features import STATE, Feature
from robot_datasets.mapping import ConfigError
from robot_deploy.observation.rings import Reason, SampleRing, SourceConfig
from robot_deploy.observation.window import FeatureSource, Problem, Window, WindowBuilder
from robot_policies.spec import PolicySpec

MS = 1_000_000
START = 10**18  # today's nanoseconds: more than a double resolves
IMAGE = "observation.images.top"


def _spec(observation: dict[str, Feature]) -> PolicySpec:
    action = Feature(dtype="float32", shape=(2,))
    return PolicySpec(
        observation=observation, action=action, n_obs_steps=2, horizon=4, n_action_steps=2, fps=10.0
    )


def _state_builder(names: tuple[str, ...] = ("a", "b"), **source) -> tuple[WindowBuilder, SampleRing]:
    ring = SampleRing(SourceConfig(kind="state", names=("a", "b"), **source))
    feature = Feature(dtype="float32", shape=(len(names),), names=names)
    parts = {STATE: (FeatureSource(source="joints", names=names),)}
    return WindowBuilder(_spec({STATE: feature}), {"joints": ring}, parts), ring


def _image_builder(**source) -> tuple[WindowBuilder, SampleRing]:
    ring = SampleRing(SourceConfig(kind="image", max_age_ms=150, max_gap_ms=150, **source))
    spec = _spec({IMAGE: Feature(dtype="uint8", shape=(4, 5, 3))})
    decode = lambda payload: np.frombuffer(payload, np.uint8).reshape(4, 5, 3)  # noqa: E731
    return WindowBuilder(spec, {"cam": ring}, {IMAGE: (FeatureSource(source="cam"),)}, decode=decode), ring


def _reasons(built: Window | list[Problem]) -> list[Reason]:
    assert isinstance(built, list)
    return [problem.reason for problem in built]


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 9), st.permutations(["a", "b", "c"]))
def test_states_are_interpolated_at_the_policys_rate(every_ms, jitter, order):
    """A state linear in time is met exactly at each step, from any rate and order of names, to 1 ns."""
    builder, ring = _state_builder()
    for number in range(60):
        stamp = START + number * every_ms * MS + (number % 2) * jitter * MS // 10
        t = (stamp - START) * 1e-9
        ring.add(
            [{"a": t, "b": -2 * t, "c": 9.0}[n] for n in order], stamp_ns=stamp, now_ns=stamp, names=order
        )
    now = (ring.newest_ns or 0) + 2 * MS
    built = builder.build(now)
    if 59 * every_ms < 110:
        assert Reason.GAP in _reasons(built)  # the history is not there yet, and is not made up
        return
    assert isinstance(built, Window)
    t = (built.time_ns - START) * 1e-9 + np.array([-0.1, 0.0])
    np.testing.assert_allclose(built.arrays[STATE], np.stack([t, -2 * t], 1), atol=1e-6)
    assert built.ages_ms["joints"] == pytest.approx(2.0)
    assert built.arrays[STATE].dtype == np.float32


@pytest.mark.parametrize(
    ("values", "names", "stamp", "reason"),
    [
        ([1.0, 2.0], ("a", "b"), 0, Reason.ZERO_STAMP),
        ([1.0, 2.0], ("a", "b"), START + 50 * MS, Reason.FUTURE_STAMP),
        ([1.0, 2.0], ("a", "b"), START, Reason.BACKWARDS),
        ([1.0, 2.0], ("a", "b"), START - MS, Reason.BACKWARDS),
        ([1.0, np.nan], ("a", "b"), START + MS, Reason.NOT_FINITE),
        ([1.0, np.inf], ("a", "b"), START + MS, Reason.NOT_FINITE),
        ([1.0], ("a",), START + MS, Reason.MISSING_JOINT),
        ([1.0, 2.0, 3.0], ("a", "b"), START + MS, Reason.WRONG_SIZE),
        ([1.0, 2.0], ("a", "a"), START + MS, Reason.WRONG_SIZE),
    ],
)
def test_what_cannot_be_right_is_refused(values, names, stamp, reason):
    """Zero, future and repeated stamps, NaN, missing joints and wrong sizes are refused with their reason."""
    _, ring = _state_builder()
    assert ring.add([0.0, 0.0], stamp_ns=START, now_ns=START, names=("a", "b")) is None
    assert ring.add(values, stamp_ns=stamp, now_ns=START + 2 * MS, names=names) is reason
    assert ring.refused[reason] == 1
    assert ring.newest_ns == START


def test_stale_and_missing_sources_are_named():
    """Without samples, or with old ones, there is no window but the source, the reason and the figures."""
    builder, ring = _state_builder()
    assert _reasons(builder.build(START)) == [Reason.MISSING]
    for number in range(30):
        ring.add(
            [0.0, 0.0], stamp_ns=START + number * 10 * MS, now_ns=START + number * 10 * MS, names=("a", "b")
        )
    assert isinstance(builder.build(START + 300 * MS), Window)
    late = builder.build(START + 400 * MS)
    assert isinstance(late, list)
    assert _reasons(late) == [Reason.STALE]
    assert "joints: stale (110 ms old, at most 50)" in [str(p) for p in late]


def test_a_gap_is_not_bridged():
    """A hole in the samples at a step of the window is a reason, not an interpolation across it."""
    builder, ring = _state_builder()
    for ms in [*range(0, 100, 10), *range(290, 310, 10)]:  # the step before now lies in the hole
        ring.add([0.0, 0.0], stamp_ns=START + ms * MS, now_ns=START + ms * MS, names=("a", "b"))
    assert _reasons(builder.build(START + 300 * MS)) == [Reason.GAP]


def test_images_are_the_last_ones_before_each_step():
    """Of two cameras' frames the ones at or before each step are taken, and only these are decoded."""
    builder, ring = _image_builder()
    for number in range(10):
        frame = bytes([number * 20 + i % 7 for i in range(60)])
        ring.add(frame, stamp_ns=START + number * 33 * MS, now_ns=START + number * 33 * MS)
    built = builder.build(START + 300 * MS)
    assert isinstance(built, Window)
    assert built.arrays[IMAGE].shape == (2, 4, 5, 3)
    assert built.arrays[IMAGE][:, 0, 0, 0].tolist() == [5 * 20, 9 * 20]  # 297 ms and, before 197 ms, 165 ms


def test_frozen_and_blank_cameras_are_noticed():
    """The same bytes for too long, or an image without contrast, are reasons of their own."""
    builder, ring = _image_builder(frozen_ms=200.0)
    for number in range(10):
        ring.add(b"\x05\x90" * 30, stamp_ns=START + number * 33 * MS, now_ns=START + number * 33 * MS)
    assert _reasons(builder.build(START + 300 * MS)) == [Reason.FROZEN]
    builder, ring = _image_builder(min_contrast=5.0)
    for number in range(10):
        ring.add(bytes(60), stamp_ns=START + number * 33 * MS, now_ns=START + number * 33 * MS)
    assert _reasons(builder.build(START + 300 * MS)) == [Reason.BLANK]


def test_an_image_of_another_size_is_a_reason():
    """A camera that sends another size than the policy was trained on is named with both."""
    builder, ring = _image_builder()
    builder._decode = lambda payload: np.zeros((4, 6, 3), np.uint8)
    for number in range(10):
        ring.add(b"x", stamp_ns=START + number * 33 * MS, now_ns=START + number * 33 * MS)
    assert _reasons(builder.build(START + 300 * MS)) == [Reason.WRONG_SIZE]


def test_poses_turn_on_the_shortest_arc():
    """Positions of a pose go along lines, its quaternion along the shortest arc, also across its sign."""
    ring = SampleRing(SourceConfig(kind="pose"))
    spec = _spec({"observation.pose": Feature(dtype="float32", shape=(7,))})
    builder = WindowBuilder(spec, {"tool": ring}, {"observation.pose": (FeatureSource(source="tool"),)})
    for number in range(0, 31, 3):
        half, sign = number * 0.01, -1.0 if number % 2 else 1.0
        turn = sign * np.array([0.0, 0.0, np.sin(half), np.cos(half)])
        stamp = START + number * 10 * MS
        ring.add([number * 1.0, 0, 0, *turn], stamp_ns=stamp, now_ns=stamp)
    built = builder.build(START + 300 * MS)
    assert isinstance(built, Window)
    place, turn = built.arrays["observation.pose"][0, :3], built.arrays["observation.pose"][0, 3:]
    assert place[0] == pytest.approx(20.0)
    assert abs(turn[2]) == pytest.approx(np.sin(0.2), abs=1e-6)


def test_a_sensors_latency_is_subtracted():
    """A camera that stamps 30 ms late is aligned with the states of 30 ms before."""
    ring = SampleRing(SourceConfig(kind="state", names=("a", "b"), latency_ms=30.0))
    ring.add([1, 2], stamp_ns=START, now_ns=START, names=("a", "b"))
    assert ring.newest_ns == START - 30 * MS


def test_old_samples_are_forgotten():
    """A ring never holds more than its capacity, and clearing it after a clock jump accepts earlier stamps."""
    ring = SampleRing(SourceConfig(kind="state", names=("a",), capacity=5))
    for number in range(100):
        ring.add([number], stamp_ns=START + number, now_ns=START + number, names=("a",))
    assert len(ring.samples()[1]) == 5
    ring.clear()
    assert ring.add([1.0], stamp_ns=START, now_ns=START, names=("a",)) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [(("b", "a", "c"), "did you mean"), (("a",), "gives 1 numbers")],
)
def test_features_that_cannot_be_built_are_refused(names, message):
    """A component that no source has, or another number of them, is an error when the robot is configured."""
    ring = SampleRing(SourceConfig(kind="state", names=("a", "b")))
    spec = _spec({STATE: Feature(dtype="float32", shape=(2,))})
    with pytest.raises(ConfigError, match=message if message != "did you mean" else "unknown component 'c'"):
        WindowBuilder(spec, {"j": ring}, {STATE: (FeatureSource(source="j", names=names),)})


def test_the_policys_order_of_names_is_required():
    """Components in another order than the policy's are refused rather than fed to it."""
    ring = SampleRing(SourceConfig(kind="state", names=("a", "b")))
    spec = _spec({STATE: Feature(dtype="float32", shape=(2,), names=("b", "a"))})
    with pytest.raises(ConfigError, match="in the policy's order"):
        WindowBuilder(spec, {"j": ring}, {STATE: (FeatureSource(source="j"),)})
