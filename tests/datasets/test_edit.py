"""Tools that make a new store of old ones: content kept to the byte, nothing half done."""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.check import check_store
from robot_datasets.edit import Edit, apply, drop, merge, rename, split, trim
from robot_datasets.edit.filters import FACTS, Filter
from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.split import split_episodes
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.testing import tree_digest

TOP = "observation.images.top"
LENGTHS = (6, 9, 4, 7)


def _write(
    path: Path, *, seed: int = 0, robot: str = "arm", fps: float = 10.0, **changes: Any
) -> EpisodeStore:
    """Four episodes with JPEG frames, segments, warnings, tasks, marks, and one that was set aside."""
    feature = Feature(dtype="float32", shape=(2,), names=("x", "y"), units=("m",))
    features = {
        STATE: feature,
        ACTION: Feature(dtype="float32", shape=(2,), names=("x", "y"), meaning="next"),
        TOP: Feature(dtype="uint8", shape=(16, 16, 3)),
    } | changes
    random = np.random.default_rng(seed)
    with EpisodeStoreWriter(
        path,
        features=features,
        fps=fps,
        embodiment=robot,
        source={"name": "demo"},
        conversion={"importer": "test", "version": 1, "options": {}, "checksum": str(seed)},
        image_encodings={TOP: "jpeg"},
    ) as writer:
        writer.quarantine("broken", "no frames")
        for i, n in enumerate(LENGTHS):
            pixels = random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
            data = {
                name: random.normal(size=(n, *f.shape)).astype(np.float32)
                for name, f in features.items()
                if name != TOP
            }
            writer.add_episode(
                Episode(
                    f"e{i}",
                    data,
                    {TOP: (encode_frame(frame, "jpeg") for frame in pixels)},
                    task=("pick", "place")[i % 2],
                    success=(True, False, None, True)[i],
                    split=("train", "val")[i == 3],
                    segments=[Segment(1, n - 1, "move", "moves")],
                    warnings=[f"odd {i}"] if i == 2 else [],
                )
            )
        writer.publish()
    return EpisodeStore.open(path)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example store, not to be changed."""
    path = tmp_path_factory.mktemp("edit") / "a.zarr"
    _write(path)
    return path


@pytest.fixture
def store(example: Path, tmp_path: Path) -> EpisodeStore:
    """A copy of the example store."""
    shutil.copytree(example, tmp_path / "a.zarr")
    return EpisodeStore.open(tmp_path / "a.zarr")


def _apply(edit: Edit, path: Path, **options: Any) -> EpisodeStore:
    apply(edit, path, **options)
    made = EpisodeStore.open(path)
    assert check_store(made).problems == []
    return made


def _assert_same_steps(new: EpisodeStore, i: int, old: EpisodeStore, j: int, start: int, end: int) -> None:
    """Episode i of `new` is steps [start, end) of episode j of `old`, frames byte for byte."""
    a, b = int(new.episode_starts[i]), int(old.episode_starts[j])
    assert int(new.episode_ends[i]) - a == end - start
    for name in new.spec.low_dim:
        np.testing.assert_array_equal(
            new.column(name)[a : a + end - start], old.column(name)[b + start : b + end]
        )
    for name in new.spec.image_features:
        for step in range(end - start):
            assert new.images(name).encoded(a + step) == old.images(name).encoded(b + start + step)


def test_merging_keeps_everything(store: EpisodeStore, tmp_path: Path) -> None:
    """All episodes of both stores are there in order, with labels; equal names get their store's in front."""
    other = _write(tmp_path / "b.zarr", seed=1)
    made = _apply(merge([store, other]), tmp_path / "out.zarr")
    assert made.episodes["source_id"] == [f"{s}/e{i}" for s in "ab" for i in range(4)]
    for i in range(8):
        source = (store, other)[i // 4]
        _assert_same_steps(made, i, source, i % 4, 0, LENGTHS[i % 4])
    assert made.tasks == ["pick", "place"]
    assert made.episodes["success"].tolist() == [1, 0, -1, 1] * 2
    assert made.episodes["segments"][5] == [Segment(1, 8, "move", "moves")]
    assert made.warnings == {2: ["odd 2"], 6: ["odd 2"]}
    assert made.quarantined == {"a/broken": "no frames", "b/broken": "no frames"}
    origin = made.attributes["source"]["made_from"]
    assert [entry["fingerprint"] for entry in origin] == [store.fingerprint, other.fingerprint]


def test_what_both_stores_set_aside_stays_listed(store: EpisodeStore, tmp_path: Path) -> None:
    """A name that one store set aside and the other holds is no reason to forget why."""
    renamed = _apply(drop(store, episodes=[0]), tmp_path / "b.zarr")
    made = _apply(
        merge([_apply(drop(store, episodes=[1, 2, 3]), tmp_path / "c.zarr"), renamed]), tmp_path / "o.zarr"
    )
    assert made.episodes["source_id"] == ["e0", "e1", "e2", "e3"]
    assert made.quarantined == {
        "c/broken": "no frames",
        **{f"c/e{i}": "dropped by number" for i in (1, 2, 3)},
        "b/broken": "no frames",
        "b/e0": "dropped by number",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 20.0}, r"b.zarr runs at 20 Hz, .*a.zarr at 10 Hz; convert one of them again"),
        ({"robot": "leg"}, r"different robots \(arm, leg\); train them as a mixture"),
        (
            {"extra": Feature(dtype="float32", shape=(1,))},
            r"has extra, .* has not; .*drop .* --feature extra",
        ),
        ({STATE: Feature(dtype="float32", shape=(3,))}, r"observation.state differs in shape: \(2,\) in"),
        (
            {ACTION: Feature(dtype="float32", shape=(2,), names=("x", "y"), meaning="same")},
            "action differs in meaning: next in .*same --option action",
        ),
    ],
)
def test_stores_that_differ_are_not_merged(
    change: Any, message: str, store: EpisodeStore, tmp_path: Path
) -> None:
    """Another rate, robot or feature is an error that names both and says what would help."""
    with pytest.raises(DatasetError, match=message):
        merge([store, _write(tmp_path / "b.zarr", **change)])


def test_merging_one_store_is_an_error(store: EpisodeStore) -> None:
    """One store is nothing to merge."""
    with pytest.raises(DatasetError, match="give two or more"):
        merge([store])


def test_split_is_that_of_training(store: EpisodeStore, tmp_path: Path) -> None:
    """The parts are marked, disjoint, together complete, and equal to what training holds out."""
    train, val = split(store, val_ratio=0.5, seed=3)
    expected = split_episodes(4, val_ratio=0.5, seed=3)
    for edit, part, mark in zip((train, val), expected, ("train", "val"), strict=True):
        made = _apply(edit, tmp_path / f"{mark}.zarr")
        assert made.episodes["source_id"] == [f"e{i}" for i in part]
        assert set(made.episodes["split"]) == {mark}
        _assert_same_steps(made, 0, store, int(part[0]), 0, LENGTHS[part[0]])


def test_split_by_mark(store: EpisodeStore, tmp_path: Path) -> None:
    """The marks of the source are followed; episodes without one are an error."""
    train, val = split(store, by_mark=True)
    assert ([p.episode for p in train.pieces], [p.episode for p in val.pieces]) == ([0, 1, 2], [3])
    _, unmarked = split(store, val_ratio=0.25)
    with pytest.raises(DatasetError, match="would have 0 and 1 episodes"):
        split(_apply(unmarked, tmp_path / "v.zarr"), by_mark=True)


def test_trimming_cuts_steps_frames_and_segments(store: EpisodeStore, tmp_path: Path) -> None:
    """Ranges count like Python's; single episodes have their own; what is too short is set aside."""
    made = _apply(trim(store, steps=(1, -1), episodes={1: (2, 5)}, min_steps=3), tmp_path / "out.zarr")
    assert made.episodes["source_id"] == ["e0", "e1", "e3"]
    _assert_same_steps(made, 0, store, 0, 1, 5)
    _assert_same_steps(made, 1, store, 1, 2, 5)
    assert made.episodes["segments"][0] == [Segment(0, 4, "move", "moves")]
    assert made.episodes["segments"][1] == [Segment(0, 3, "move", "moves")]
    assert made.quarantined["e2"] == "trimmed to 2 steps, fewer than 3"


def test_idle_ends_are_cut(tmp_path: Path) -> None:
    """Waiting at both ends goes, but for the margin; waiting in the middle stays; an idle episode stays whole."""
    feature = Feature(dtype="float32", shape=(1,), names=("x",))
    with EpisodeStoreWriter(
        tmp_path / "s.zarr", features={STATE: feature, ACTION: feature}, fps=10, embodiment="arm"
    ) as writer:
        moving = np.concatenate(
            [np.zeros(20), np.arange(10), np.full(15, 9), np.arange(9, 15), np.full(30, 14)]
        )
        for i, x in enumerate((moving, np.zeros(12))):
            values = x[:, None].astype(np.float32)
            writer.add_episode(Episode(f"e{i}", {STATE: values, ACTION: values}))
        writer.publish()
    edit = trim(EpisodeStore.open(tmp_path / "s.zarr"), idle=True, margin=0.3)
    assert [(p.start, p.end) for p in edit.pieces] == [(20 - 3, 20 + 10 + 15 + 6 + 3), (0, 12)]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"episodes": [0, 2]}, [1, 3]),
        ({"failed": True}, [0, 2, 3]),
        ({"where": "n_steps < 7 and success != None"}, [1, 2, 3]),
        ({"where": "task == 'place' or warnings > 0"}, [0]),
        ({"where": "not (split in ['val'])"}, [3]),
        ({"where": "0.5 < seconds <= 0.7"}, [1, 2]),
        ({"where": "episode == 1 and -n_steps < -8"}, [0, 2, 3]),
        ({"where": "'2' in source_id"}, [0, 1, 3]),
        ({"source_ids": {"e1": "spike", "broken": ""}}, [0, 2, 3]),
    ],
)  # fmt: skip
def test_dropping_episodes(options: Any, left: list[int], store: EpisodeStore, tmp_path: Path) -> None:
    """Episodes go by number, name, outcome or condition; they are listed with the reason."""
    made = _apply(drop(store, **options), tmp_path / "out.zarr")
    assert made.episodes["source_id"] == [f"e{i}" for i in left]
    for position, i in enumerate(left):
        _assert_same_steps(made, position, store, i, 0, LENGTHS[i])
    gone = {f"e{i}" for i in range(4)} - {f"e{i}" for i in left}
    assert set(made.quarantined) == gone | {"broken"}
    assert all(made.quarantined[name].startswith("dropped") for name in gone)


def test_dropping_a_feature(store: EpisodeStore, tmp_path: Path) -> None:
    """The feature is gone, everything else is unchanged."""
    made = _apply(drop(store, features=[TOP]), tmp_path / "out.zarr")
    assert sorted(made.features) == [ACTION, STATE]
    _assert_same_steps(made, 3, store, 3, 0, 7)


def test_renaming(store: EpisodeStore, tmp_path: Path) -> None:
    """Features and tasks have their new names, two tasks may become one, and the content is the same."""
    edit = rename(
        store,
        features={TOP: "observation.images.head", STATE: "observation.pose"},
        tasks={"place": "pick"},
        embodiment="panda",
    )
    made = _apply(edit, tmp_path / "out.zarr")
    assert sorted(made.features) == [ACTION, "observation.images.head", "observation.pose"]
    np.testing.assert_array_equal(made.column("observation.pose"), store.column(STATE))
    assert made.images("observation.images.head").encoded(5) == store.images(TOP).encoded(5)
    assert (made.tasks, made.embodiment) == (["pick"], "panda")
    back = rename(
        made, features={"observation.images.head": TOP, "observation.pose": STATE}, embodiment="arm"
    )
    again = _apply(back, tmp_path / "back.zarr")
    np.testing.assert_array_equal(again.episodes["checksum"], store.episodes["checksum"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: rename(s, features={"observation.stat": "x"}), "did you mean 'observation.state'"),
        (lambda s: rename(s, features={STATE: ACTION}), "the name action is taken"),
        (lambda s: rename(s, features={STATE: "x", ACTION: "x"}), "the name x is taken"),
        (lambda s: rename(s, features={TOP: "observation.top"}), "is a colour camera, the name .* is for a vector"),
        (lambda s: rename(s, tasks={"plac": "x"}), "did you mean 'place'"),
        (lambda s: rename(s), "was not told what"),
        (lambda s: drop(s), "was not told what"),
        (lambda s: drop(s, episodes=[4]), "no episode 4; the store has 0 to 3"),
        (lambda s: drop(s, features=["acton"]), "did you mean 'action'"),
        (lambda s: drop(s, source_ids={"e9": ""}), "unknown episode 'e9'"),
        (lambda s: trim(s), "was not told what"),
        (lambda s: trim(s, episodes={7: (0, 1)}), "no episode 7"),
        (lambda s: trim(s, idle=True, margin=float("nan")), "margin is nan s; expected 0 or more"),
        (lambda s: trim(s, idle=True, margin=float("inf")), "margin is inf s; expected 0 or more"),
        (lambda s: trim(s, steps=(2, 2), min_steps=0), "an episode has at least one step"),
        (lambda s: split(s, val_ratio=0.0), "would have 4 and 0 episodes"),
        (lambda s: split(s, val_ratio=1.5), "val_ratio must lie in"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(make: Any, message: str, store: EpisodeStore) -> None:
    """Unknown names, taken names, empty parts: one line, before anything is written."""
    with pytest.raises(DatasetError, match=message):
        make(store)


def test_nothing_left_is_an_error(store: EpisodeStore, tmp_path: Path) -> None:
    """Dropping all episodes writes no store and leaves no staging directory."""
    with pytest.raises(DatasetError, match="would leave no episode"):
        apply(drop(store, where="n_steps > 0"), tmp_path / "out.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_damaged_source_leaves_nothing_behind(store: EpisodeStore, tmp_path: Path) -> None:
    """A store whose columns cannot be read ends the edit before its first episode, and no staging stays."""
    for file in (Path(store.path) / "data" / "action" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:3])
    damaged = EpisodeStore.open(store.path)
    with pytest.raises(DatasetError, match="the store is damaged, copy or convert it again"):
        apply(trim(damaged, steps=(1, None)), tmp_path / "out.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_nothing_is_written_into_a_store(store: EpisodeStore) -> None:
    """What would lie within a store is refused, by edits as by exports."""
    inside = Path(store.path) / "data" / "out.zarr"
    for write in (
        lambda: apply(trim(store, steps=(1, None)), inside),
        lambda: export(store, inside, format="diffusion_policy_zarr"),
    ):
        with pytest.raises(
            DatasetError, match=r"lies within the episode store .*a\.zarr; choose a place outside"
        ):
            write()
    assert not list(Path(store.path).rglob("*.staging"))


def test_the_source_is_swapped_at_the_end(store: EpisodeStore, tmp_path: Path) -> None:
    """In place, the old store is read until the new one is whole; nothing else is left in the folder."""
    before = _apply(drop(store, episodes=[1]), tmp_path / "elsewhere.zarr")
    made = _apply(drop(store, episodes=[1]), tmp_path / "a.zarr", overwrite=True)
    assert made.fingerprint == before.fingerprint
    assert {p.name for p in tmp_path.iterdir()} == {"a.zarr", "elsewhere.zarr"}


def test_an_edit_is_repeatable_and_idempotent(store: EpisodeStore, tmp_path: Path) -> None:
    """The same edit gives the same bytes, and finds its own result; another one does not overwrite it."""
    for name in ("b", "c"):
        assert not apply(trim(store, steps=(1, None)), tmp_path / f"{name}.zarr").unchanged
    assert tree_digest(tmp_path / "b.zarr") == tree_digest(tmp_path / "c.zarr")
    assert apply(trim(store, steps=(1, None)), tmp_path / "b.zarr").unchanged
    with pytest.raises(DatasetError, match="already exists; choose another path or pass --overwrite"):
        apply(trim(store, steps=(2, None)), tmp_path / "b.zarr")


def test_an_interrupted_edit_goes_on(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash the source is untouched, and the same edit ends in the same bytes."""
    apply(drop(store, episodes=[0]), tmp_path / "whole.zarr")
    before = tree_digest(tmp_path / "a.zarr")

    def crash(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(drop(store, episodes=[0]), tmp_path / "out.zarr", progress=crash)
    assert not (tmp_path / "out.zarr").exists()
    apply(drop(store, episodes=[0]), tmp_path / "out.zarr")
    assert tree_digest(tmp_path / "out.zarr") == tree_digest(tmp_path / "whole.zarr")
    assert tree_digest(tmp_path / "a.zarr") == before


def test_a_full_disk_is_one_line(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space left: the message says so and how to go on; once there is room, the same edit finishes."""

    def full(writer: EpisodeStoreWriter) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    edit = drop(store, episodes=[0])
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeStoreWriter, "publish", full)
        with pytest.raises(
            DatasetError, match="No space left on device; free some space and run the same command"
        ):
            apply(edit, tmp_path / "out.zarr")
    assert apply(edit, tmp_path / "out.zarr").n_episodes == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_step < 3", "unknown fact 'n_step'; did you mean 'n_steps'"),
        ("__import__('os').system('x')", "is not understood"),
        ("n_steps.real > 1", "n_steps.real is not understood"),
        ("[x for x in ()]", "is not understood"),
        ("n_steps ** 9 ** 9", "is not understood"),
        ("n_steps <", "is no condition"),
        ("", "is no condition"),
        ("lambda: 1", "is not understood"),
        ("f'{n_steps}'", "is not understood"),
        ("(" * 5000, "has 5000 characters"),
        ("(" * 1500 + ")" * 1500, "has 3000 characters"),
        ("(" * 900 + "1" + ")" * 900, "is no condition"),
    ],
)
def test_conditions_are_parsed_not_executed(text: str, message: str) -> None:
    """Anything but comparisons of facts is refused with what was not understood."""
    with pytest.raises(DatasetError, match=message):
        Filter(text)


def test_a_comparison_of_unlike_things_is_an_error(store: EpisodeStore) -> None:
    """A number compared with a text is a message, not a traceback."""
    with pytest.raises(DatasetError, match="compares things that cannot be"):
        drop(store, where="n_steps < 'a'")


_TERM = st.sampled_from([*FACTS, "3", "'pick'", "None", "True", "-1.5", "[1, 'val']"])
_COMPARISON = st.tuples(_TERM, st.sampled_from(["==", "!=", "in", "not in", "is"]), _TERM)
_CONDITION = st.lists(_COMPARISON.map(" ".join), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from([" and ", " or "]).map(lambda word: word.join(parts))
)


@given(_CONDITION)
@settings(max_examples=100, deadline=None)
def test_conditions_mean_what_python_means(text: str) -> None:
    """A condition holds exactly when Python, given the facts as variables, says so."""
    facts: dict[str, Any] = {
        "episode": 3, "source_id": "e3", "n_steps": 7, "seconds": 0.7, "task": "pick", "split": "val",
        "success": None, "warnings": 0,
    }  # fmt: skip
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "is" with a literal
        try:
            expected = bool(eval(text, {"__builtins__": {}}, facts))
        except TypeError:
            with pytest.raises(DatasetError, match="compares things"):
                Filter(text)(facts)
        else:
            assert Filter(text)(facts) == expected
