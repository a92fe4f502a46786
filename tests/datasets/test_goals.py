"""Hindsight goals: where they lie, how far, and that they are a pure function of seed, draw and window."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.goals import GoalSpec, goal_steps, uniform
from robot_datasets.windows import WindowDataset, WindowSpec

STATE, TOP = "observation.state", "observation.images.top"
SAMPLINGS = ("geometric", "uniform", "final")


def make_store(lengths: list[int]) -> Any:
    """A store whose values spell their step; episodes alternate between two instructions."""
    n = sum(lengths)
    columns = {
        STATE: np.arange(n, dtype=np.float32)[:, None],
        "action": np.arange(n, dtype=np.float32)[:, None] * -1,
    }
    frames = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 3, 3))
    features = {name: Feature(dtype="float32", shape=(1,)) for name in columns}
    features[TOP] = Feature(dtype="uint8", shape=(2, 3, 3))
    return SimpleNamespace(
        features=features,
        episode_ends=np.cumsum(lengths),
        episodes={"task_index": [i % 2 for i in range(len(lengths))]},
        tasks=["push", "pull"],
        column=columns.__getitem__,
        images=lambda name: SimpleNamespace(decode=lambda indices: frames[indices]),
    )


def draw(spec: GoalSpec, now: int, last: int, n: int) -> np.ndarray:
    """Goal steps (n, G) of `n` windows that are all at `now` in an episode that ends with `last`."""
    at = np.full(n, now)
    return goal_steps(spec, np.arange(n), np.zeros(n, np.int64), now=at, last=np.full(n, last))


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from(SAMPLINGS),
    st.integers(0, 6),
    st.integers(0, 2**32 - 1),
    st.integers(0, 50),
)
def test_goals_lie_in_the_future_of_the_same_episode(lengths, n_steps, sampling, least, seed, epoch):
    """Every frame is between now and the episode's end, in order, and as far off as asked where there is room."""
    spec = GoalSpec(
        features=(STATE,),
        n_steps=n_steps,
        sampling=sampling,
        mean_distance=3.0,
        min_distance=least,
        seed=seed,
    )
    dataset = WindowDataset(make_store(lengths), WindowSpec(1, 1, 1), observation=[STATE], goals=spec)
    windows = np.arange(len(dataset))
    batch = dataset.__getitems__(windows, np.full(len(windows), epoch))
    goals = batch["goal.observation.state"][..., 0].astype(int)
    now = batch[STATE][:, -1, 0].astype(int)
    last = np.repeat(np.cumsum(lengths) - 1, lengths)
    assert goals.shape == (len(windows), n_steps)
    assert (goals >= now[:, None]).all()
    assert (goals <= last[:, None]).all()
    assert (np.diff(goals, axis=1) <= 1).all()
    assert (np.diff(goals, axis=1) >= 0).all()
    assert (goals[:, -1] - now >= np.minimum(least, last - now)).all()
    if sampling == "final":
        assert (goals[:, -1] == last).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_goal_is_a_pure_function_of_seed_draw_and_window(sampling: str) -> None:
    """Alone or in company, now or later: the same; another epoch or seed: others, unless the goal is the end."""
    store = make_store([60, 60])

    def goals(windows, epoch=0, seed=7):
        spec = GoalSpec(features=(STATE,), sampling=sampling, seed=seed)  # type: ignore[arg-type]
        dataset = WindowDataset(store, WindowSpec(2, 8, 4), observation=[STATE], goals=spec)
        return dataset.__getitems__(windows, np.full(len(windows), epoch))["goal.observation.state"]

    together = goals([3, 40, 70, 5], epoch=2)
    assert goals([70], epoch=2).tolist() == together[2:3].tolist()
    everything = np.arange(100)
    varies = sampling != "final"
    assert bool((goals(everything, epoch=1) != goals(everything, epoch=2)).any()) == varies
    assert bool((goals(everything, seed=1) != goals(everything, seed=2)).any()) == varies


def test_uniform_distances_are_uniform() -> None:
    """Each step that is left is as likely as any other."""
    spec = GoalSpec(features=(STATE,), sampling="uniform", min_distance=2)
    counts = np.bincount(draw(spec, 10, 19, 40_000)[:, 0], minlength=20)
    assert counts[:12].sum() == 0
    assert abs(counts[12:] / 5000 - 1).max() < 0.06


def test_geometric_distances_are_geometric() -> None:
    """Far from the end the mean is the one asked for; near it the distribution is conditioned, not clipped."""
    spec = GoalSpec(features=(STATE,), mean_distance=8.0)
    distances = draw(spec, 0, 10_000, 40_000)[:, 0]
    assert abs(distances.mean() - 8.0) < 0.15
    assert distances.min() == 1
    decay = 1 - 1 / 8
    expected = decay ** np.arange(4) / (decay ** np.arange(4)).sum()
    shares = np.bincount(draw(spec, 0, 4, 40_000)[:, 0], minlength=5)[1:] / 40_000
    np.testing.assert_allclose(shares, expected, atol=0.01)


def test_the_stateless_generator_is_uniform_and_uncorrelated() -> None:
    """Its numbers fill [0, 1) evenly, over windows as over epochs, and neighbours say nothing of each other."""
    windows, zeros = np.arange(50_000), np.zeros(50_000, np.int64)
    for u in (uniform(3, zeros, windows), uniform(3, windows, zeros)):
        assert u.min() >= 0
        assert u.max() < 1
        assert abs(np.sort(u) - np.linspace(0, 1, len(u))).max() < 0.01
        assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.02


def test_goals_may_be_images() -> None:
    """Images come as (B, G, C, H, W), whether or not they are observed."""
    spec = GoalSpec(features=(TOP,), n_steps=2, sampling="final")
    store = make_store([5, 5])
    batch = WindowDataset(store, WindowSpec(1, 1, 1), observation=[STATE], goals=spec).__getitems__([0, 7])
    assert batch["goal." + TOP].shape == (2, 2, 3, 2, 3)
    assert batch["goal." + TOP][:, :, 0, 0, 0].tolist() == [[3, 4], [8, 9]]
    assert TOP not in batch


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"features": ()}, "name at least one feature"),
        ({"features": (STATE,), "n_steps": 0}, "n_steps >= 1"),
        ({"features": (STATE,), "mean_distance": 1.0}, "mean_distance > 1"),
        ({"features": (STATE,), "mean_distance": float("nan")}, "mean_distance > 1"),
        ({"features": (STATE,), "mean_distance": float("inf")}, "mean_distance > 1"),
        ({"features": ("observation.stat",)}, "did you mean 'observation.state'"),
    ],
)
def test_bad_goals_are_explained(spec: dict, message: str) -> None:
    """Impossible numbers and features that are not there are refused in one line."""
    with pytest.raises(DatasetError, match=message):
        WindowDataset(make_store([5]), WindowSpec(1, 1, 1), observation=[STATE], goals=GoalSpec(**spec))
