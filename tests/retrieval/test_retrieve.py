"""Retrieval from a planted prior, of which is known what is useful."""

import json

import numpy as np
import pytest
import torch

from robot_datasets.errors import DatasetError, UserError
from robot_datasets.selection import Selection
from robot_datasets.testing import write_example_store
from robot_policies.cli import retrieve as command
from robot_policies.configuration import ConfigError
from robot_policies.retrieval.report import count_sources, source_labels, summarise
from robot_policies.retrieval.retrieve import RetrievalConfig, retrieve
from robot_policies.retrieval.vectors import read_vectors

VAE = {"steps": 200, "width": 32, "latent": 4, "lr": 3e-3, "batch_size": 128}


def useful_steps(store):
    labels = np.array(source_labels(store)) == "useful"
    return np.repeat(labels, np.diff(store.episode_ends, prepend=0))


def precision(result):
    """Share of all draws that go to useful steps."""
    return result.weights[useful_steps(result.prior)].sum() / result.weights.sum()


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"embedding": "raw"}, 0.9),
        ({"embedding": "raw", "window": 5}, 0.95),
        ({"embedding": "raw", "method": "importance"}, 0.85),
        ({"embedding": "raw", "threshold": 0.9}, 0.7),
        ({"vae": VAE}, 0.85),
        ({"vae": VAE, "window": 5}, 0.85),
    ],
)
def test_the_useful_part_of_a_prior_is_found(planted, options, least):
    """A third of the prior does the target's task; what is drawn is mostly that."""
    prior, target = planted()
    result = retrieve(prior, target, RetrievalConfig.parse(options))
    assert precision(result) > least
    assert precision(result) > 2 * useful_steps(result.prior).mean()


def test_bad_actions_in_familiar_states_are_told_apart_by_the_action_only(planted):
    """Without the appended action, episodes that begin alike are retrieved whatever is done in them."""
    prior, target = planted()
    start = np.zeros(prior.n_steps, bool)
    start[prior.episode_starts] = True
    first = {}
    for weight in (0.0, 3.0):
        config = RetrievalConfig.parse({"embedding": "raw", "action_weight": weight, "fraction": 0.3})
        first[weight] = retrieve(prior, target, config)
    useful = useful_steps(prior)

    def share(result):
        return (result.weights[start & ~useful] > 0).mean()

    assert share(first[3.0]) < share(first[0.0])


def test_fraction_and_threshold_mean_what_they_say(planted):
    """A fraction is a share of the steps; a threshold cuts at a likeness; more is never less."""
    prior, target = planted(4)
    kept = {}
    for name, options in {
        "tenth": {"fraction": 0.1},
        "half": {"fraction": 0.5},
        "strict": {"threshold": 0.95},
        "all": {"threshold": 0.0},
    }.items():
        config = RetrievalConfig.parse({"embedding": "raw", **options})
        kept[name] = retrieve(prior, target, config).weights > 0
    assert kept["tenth"].sum() == round(0.1 * prior.n_steps)
    assert kept["half"].sum() == round(0.5 * prior.n_steps)
    assert (kept["half"] >= kept["tenth"]).all()
    assert 0 < kept["strict"].sum() < kept["all"].sum() == prior.n_steps


def test_importance_discounts_what_the_prior_is_full_of(planted):
    """A step of the target's kind weighs less, the more often its like occurs in the prior."""
    prior, target = planted(6)
    config = RetrievalConfig.parse({"embedding": "raw", "method": "importance"})
    result = retrieve(prior, target, config)
    assert result.weights.max() == 1
    assert (result.weights >= 0).all()
    nearest = retrieve(prior, target, RetrievalConfig.parse({"embedding": "raw"}))
    # Where the nearest-neighbour score cannot tell two steps apart, the density does.
    assert np.unique(result.weights[nearest.weights > 0]).size > 10


def test_the_same_seed_gives_the_same_selection(planted):
    """The VAE's randomness is its seed's, and the caller's generator is left alone."""
    prior, target = planted(2)
    config = RetrievalConfig.parse({"vae": {**VAE, "steps": 20}})
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = retrieve(prior, target, config)
    assert torch.rand(1) == expected
    second = retrieve(prior, target, config)
    np.testing.assert_array_equal(first.distances, second.distances)
    other = retrieve(prior, target, RetrievalConfig.parse({"vae": {**VAE, "steps": 20}, "seed": 1}))
    assert not np.array_equal(first.distances, other.distances)


def test_windows_hold_the_following_actions_of_their_own_episode(planted):
    """Row t is a_t ... a_{t+W-1} over sqrt(W), the last action repeated at the episode's end."""
    prior, _ = planted(1)
    (one,) = read_vectors([prior], ["observation.state"], window=1, image_size=8)
    (three,) = read_vectors([prior], ["observation.state"], window=3, image_size=8)
    actions = one.actions / 3**0.5
    torch.testing.assert_close(three.actions[5], torch.cat([actions[5], actions[6], actions[7]]))
    torch.testing.assert_close(three.actions[18], torch.cat([actions[18], actions[19], actions[19]]))


def test_images_are_compared_through_the_vae(planted):
    """With a camera and no state, frames like the target's are nearer."""
    prior, target = planted(3, images=True)
    config = RetrievalConfig.parse(
        {
            "observation": ["observation.images.top"],
            "image_size": 8,
            "vae": {**VAE, "steps": 100, "batch_size": 64},
        }
    )
    result = retrieve(prior, target, config)
    assert precision(result) > 0.6
    with pytest.raises(ConfigError, match="cannot compare images"):
        retrieve(prior, target, RetrievalConfig.parse({"embedding": "raw"}))


def test_sources_are_counted(planted):
    """Counts add up to the store, shares of the draws to one."""
    prior, target = planted(2)
    result = retrieve(prior, target, RetrievalConfig.parse({"embedding": "raw"}))
    counts = count_sources(result, source_labels(result.prior))
    assert {c.name: c.episodes for c in counts} == {"useful": 2, "irrelevant": 2, "bad": 2}
    assert sum(c.steps for c in counts) == result.prior.n_steps
    assert sum(c.weight for c in counts) == pytest.approx(1)
    assert counts[0].name == "useful"
    assert [t["name"] for t in summarise(result)["tasks"]] == ["walk to A", "walk"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "0 < x <= 1"),
        ({"threshold": 2.0}, "0 <= x <= 1"),
        ({"fraction": 0.1, "threshold": 0.5}, "exclude each other"),
        ({"window": 0}, "must be >= 1"),
        ({"method": "nearst"}, "did you mean 'nearest'"),
        ({"vae": {"steps": 0}}, "steps >= 1"),
        ({"cut": 1.0}, "cut < 1"),
    ],
)
def test_bad_options_are_explained(options, message):
    """Every option is checked before any data is read."""
    with pytest.raises(ConfigError, match=message):
        RetrievalConfig.parse(options)


def test_stores_that_do_not_fit_are_refused(planted, tmp_path):
    """Another robot's state, or a feature that is not there, is named."""
    prior, target = planted(1)
    other = write_example_store(tmp_path / "other.zarr", [5])
    with pytest.raises(DatasetError, match="of the same robot"):
        retrieve(other, target, RetrievalConfig())
    with pytest.raises(DatasetError, match=r"did you mean 'observation\.state'"):
        retrieve(prior, target, RetrievalConfig(observation=("observation.stat",)))


def test_the_command_writes_selection_report_and_numbers(planted, tmp_path, capsys):
    """The selection fits the prior; the page holds pictures and counts; a second run is refused."""
    prior, target = planted(2, images=True)
    out = tmp_path / "out"
    arguments = [prior.path, target.path, str(out), "--vae-steps", "2", "--json", "--fraction", "0.25"]
    assert command.run(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    selection = Selection.load(out / "selection.npz")
    assert selection.fingerprint == prior.fingerprint
    assert int((selection.weights > 0).sum()) == summary["selected_steps"] == prior.n_steps // 4
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") > 20
    assert "irrelevant" in page
    assert json.loads((out / "retrieval.json").read_text())["prior_steps"] == prior.n_steps
    with pytest.raises(UserError, match="already holds a selection"):
        command.run(arguments)


def test_a_failed_retrieval_leaves_nothing(planted, tmp_path):
    """Neither a folder nor half a file, if the stores do not fit or a number is missing."""
    _, target = planted(1)
    other = write_example_store(tmp_path / "other.zarr", [5])
    with pytest.raises(DatasetError, match="does not fit"):
        command.run([other.path, target.path, str(tmp_path / "out"), "--vae-steps", "1"])
    assert not (tmp_path / "out").exists()
