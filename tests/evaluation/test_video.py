"""Videos: playable, true to the episode, bounded."""

import av
import numpy as np
import pytest

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.evaluate import evaluate_policy
from robot_policies.evaluation.point_mass import PointMass
from robot_policies.evaluation.video import (
    FAILED,
    PASSED,
    Film,
    Tile,
    VideoConfig,
    VideoWriter,
    film_episode,
    read_frames,
    write_grid,
)

SEEDS = range(1000, 1006)


def still(colour, n, path, size=48):
    """Write a video of `n` frames of one colour."""
    with VideoWriter(path, fps=10) as video:
        for _ in range(n):
            video.add(np.full((size, size, 3), colour, dtype=np.uint8))
    return path


def test_video_is_h264_yuv420p_and_true(tmp_path):
    """What is written is H.264 in 4:2:0 at the given rate, and decodes to the same picture."""
    frames = [np.full((33, 47, 3), (10 * i, 120, 200 - 10 * i), dtype=np.uint8) for i in range(12)]
    with VideoWriter(tmp_path / "a.mp4", fps=20) as video:
        for frame in frames:
            video.add(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 20
    decoded = list(read_frames(tmp_path / "a.mp4"))
    assert len(decoded) == 12
    assert decoded[0].shape == (34, 48, 3)
    assert np.abs(decoded[5].astype(int) - frames[5][0, 0]).max() < 12


def test_no_video_after_an_error(tmp_path):
    """A video whose making failed leaves nothing behind."""

    def break_off():
        with VideoWriter(tmp_path / "a.mp4", fps=10) as video:
            video.add(np.zeros((16, 16, 3), dtype=np.uint8))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        break_off()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_replay_shows_the_episode(tmp_path, policy, point_mass, workers):
    """One frame per state: the start and each step; replays equal the evaluated episodes."""
    results = evaluate_policy(
        policy, point_mass(), SEEDS, workers=workers, video=VideoConfig(count=2), video_folder=tmp_path
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1000.mp4", "1001.mp4"]
    assert sum(1 for _ in read_frames(tmp_path / "1000.mp4")) == results[0].steps + 1


def test_only_kept_episodes_are_rendered(tmp_path, policy, monkeypatch):
    """Rolling out renders nothing; filming renders the chosen episodes."""
    calls = []
    render = PointMass.render
    monkeypatch.setattr(PointMass, "render", lambda self: calls.append(1) or render(self))
    results = evaluate_policy(policy, PointMass, SEEDS, workers=0)
    assert calls == []
    evaluate_policy(policy, PointMass, SEEDS, workers=0, video=VideoConfig(count=1), video_folder=tmp_path)
    assert len(calls) == results[0].steps + 1


def test_replay_notices_a_task_that_is_not_deterministic(tmp_path):
    """If the replay's rewards are not the recorded ones, the video does not pass for the truth."""
    env = PointMass()
    actions = np.zeros((4, 2), dtype=np.float32)
    env.reset(seed=1)
    rewards = np.array([env.step(a)[1] for a in actions])
    assert film_episode(env, Film(path=tmp_path / "a.mp4", seed=1, actions=actions, rewards=rewards)) == ""
    rewards[2] += 0.1
    problem = film_episode(env, Film(path=tmp_path / "b.mp4", seed=1, actions=actions, rewards=rewards))
    assert "from step 3 on" in problem


def test_a_failed_episode_is_filmed_up_to_its_end(tmp_path, policy, point_mass):
    """The steps before a crash can be watched; an episode without any step has no video."""
    evaluate_policy(
        policy, point_mass(raises=(1000,)), [1000], workers=0, video=VideoConfig(keep="failures"),
        video_folder=tmp_path,
    )  # fmt: skip
    assert sum(1 for _ in read_frames(tmp_path / "1000.mp4")) == 3


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("none", []), ("first-n", [1000, 1001]), ("failures", [1001, 1003]), ("all", [1000, 1001, 1003, 1004])],
)
def test_selection(policy, point_mass, keep, expected):
    """Each policy keeps what its name says, at most `count` of them."""
    results = evaluate_policy(policy, point_mass(raises=(1001, 1003, 1005)), SEEDS, workers=0)
    shown = [r for r in results if r.seed != 1002]
    shown = [r for r in shown if r.success or r.failure]
    chosen = [r.seed for r in VideoConfig(keep=keep, count=2).select(shown)]
    if keep == "all":
        assert chosen == [r.seed for r in shown]
    else:
        assert chosen == expected


def test_count_must_be_positive():
    """Zero videos are asked for with keep=none."""
    with pytest.raises(ConfigError, match="keep=none"):
        VideoConfig(count=0)


def test_grid_marks_success_and_waits_for_the_longest(tmp_path):
    """Borders are green or red; a short episode stays on its last frame, darker, until a second after the end."""
    tiles = [
        Tile(path=still(200, 4, tmp_path / "a.mp4"), label="1", passed=True),
        Tile(path=still(200, 9, tmp_path / "b.mp4"), label="2", passed=False),
    ]
    write_grid(tmp_path / "grid.mp4", tiles, fps=10)
    frames = list(read_frames(tmp_path / "grid.mp4"))
    assert len(frames) == 9 + 10
    last = frames[8].astype(int)
    height, width = last.shape[:2]
    edge = height // 3
    left, right = last[edge, : width // 2], last[edge, width // 2 :]
    assert np.abs(left - PASSED).sum(axis=1).min() < 60
    assert np.abs(right - FAILED).sum(axis=1).min() < 60
    middle_left, middle_right = last[edge, width // 4], last[edge, 3 * width // 4]
    assert middle_left.mean() < middle_right.mean() - 30


def test_grid_is_bounded(tmp_path):
    """A hundred episodes make a grid of 25 tiles, no wider than a screen."""
    tile = Tile(path=still(90, 2, tmp_path / "a.mp4"), label="1", passed=True)
    write_grid(tmp_path / "grid.mp4", [tile] * 100, fps=10)
    frame = next(read_frames(tmp_path / "grid.mp4"))
    assert frame.shape[1] <= 1300
