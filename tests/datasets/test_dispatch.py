"""Who reads what next: order, batches, losses and the limit on what waits, without any process."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.engine.dispatch import MAX_BATCH, Dispatcher, Finished, Lost, Task
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import EpisodeRef
from robot_datasets.store.parts import EpisodePart


def refs(n: int, *, groups: list[str] | None = None) -> list[EpisodeRef]:
    return [EpisodeRef(f"e{i}", group=groups[i] if groups else "") for i in range(n)]


def finished(task: Task, *, n_bytes: int = 1, seconds: float = 1.0) -> Finished:
    part = EpisodePart({"source_id": task.ref.source_id}, Path(str(task.slot)), n_row_bytes=n_bytes)
    return Finished(task, part, seconds)


def take(dispatcher: Dispatcher) -> list[EpisodePart]:
    return [part for _, part in dispatcher.ready()]


@given(st.data())
def test_results_come_in_order_whatever_happens(data: st.DataObject) -> None:
    """Batches end in any order and workers die at any time; every episode comes out once, in order."""
    n = data.draw(st.integers(1, 30))
    groups = data.draw(st.lists(st.sampled_from(["", "", "a", "b"]), min_size=n, max_size=n))
    seconds = data.draw(st.sampled_from([0.001, 0.1, 10.0]))
    dispatcher = Dispatcher(refs(n, groups=groups), workers=data.draw(st.integers(1, 4)), max_ahead_bytes=3)
    running: list[list[Task]] = []
    results: list[EpisodePart] = []
    for _ in range(2000):
        if dispatcher.is_done:
            break
        if len(running) < 4 and (tasks := dispatcher.next_batch()):
            running.append(list(tasks))
            continue
        assert running, "nothing runs and nothing is begun"
        batch = running[data.draw(st.integers(0, len(running) - 1))]
        fate = data.draw(st.sampled_from(["ok", "ok", "ok", "ok", "died", "vanished"]))
        if fate == "ok":
            dispatcher.note(finished(batch.pop(0), seconds=seconds))
        else:
            try:
                dispatcher.note(Lost(tuple(batch), "killed", culprit_known=fate == "died"))
            except DatasetError:
                return  # so many in a row that it gives up
            batch.clear()
        running = [b for b in running if b]
        in_use = {task.slot for b in running for task in b}
        for _, part in dispatcher.ready():
            assert part.folder is None or int(part.folder.name) not in in_use, (
                "a folder is written and read at once"
            )
            results.append(part)
    assert [part.source_id for part in results] == [f"e{i}" for i in range(n)]


def test_a_group_is_one_batch() -> None:
    """Episodes that share a group are read in one go, whatever their number."""
    groups = ["a"] * (MAX_BATCH + 3) + ["", "b", "b"]
    dispatcher = Dispatcher(refs(len(groups), groups=groups), workers=2)
    batches = [len(dispatcher.next_batch()) for _ in range(3)]
    assert batches == [MAX_BATCH + 3, 1, 2]
    assert dispatcher.next_batch() == ()


def test_short_episodes_are_read_many_at_a_time() -> None:
    """Batches grow until they take about half a second, and shrink towards the end."""
    dispatcher = Dispatcher(refs(400), workers=2)
    sizes = []
    while tasks := dispatcher.next_batch():
        sizes.append(len(tasks))
        for task in tasks:
            dispatcher.note(finished(task, seconds=0.02))
    assert sizes[0] == 1
    assert max(sizes) == 25
    assert sizes[-4:] == [1, 1, 1, 1]


def test_nothing_is_begun_while_too_much_waits() -> None:
    """If the first episode takes long, the others stop at the limit on disk space."""
    dispatcher = Dispatcher(refs(9), workers=1, max_ahead_bytes=25)
    (first,) = dispatcher.next_batch()
    for _ in range(3):
        (task,) = dispatcher.next_batch()
        dispatcher.note(finished(task, n_bytes=10))
    assert dispatcher.next_batch() == ()
    dispatcher.note(finished(first, n_bytes=10))
    assert len(take(dispatcher)) == 4
    assert len(dispatcher.next_batch()) == 1


def test_an_episode_whose_reader_dies_three_times_is_set_aside() -> None:
    """Those behind it in the batch are read by another worker, it itself twice more."""
    dispatcher = Dispatcher(refs(3, groups=["a"] * 3), workers=1)
    tasks = dispatcher.next_batch()
    dispatcher.note(finished(tasks[0]))
    dispatcher.note(Lost(tasks[1:], "killed by SIGKILL", culprit_known=True))
    for _ in range(2):
        again = dispatcher.next_batch()
        assert [task.index for task in again] == [1]
        dispatcher.note(Lost(again, "killed by SIGKILL", culprit_known=True))
    for task in dispatcher.next_batch():
        dispatcher.note(finished(task))
    parts = take(dispatcher)
    assert [part.source_id for part in parts] == ["e0", "e1", "e2"]
    assert "died 3 times (killed by SIGKILL)" in parts[1].entry["reason"]
    assert dispatcher.n_losses == 3


def test_a_withdrawal_has_all_read_again_but_what_is_known_to_be_unusable() -> None:
    """Neither results that wait nor those taken and given back count; a reader's death is not forgotten."""
    dispatcher = Dispatcher(refs(4, groups=["a"] * 4), workers=1)
    tasks = dispatcher.next_batch()
    left_out = EpisodePart.left_out("e1", "crossed out")
    for event in (finished(tasks[0]), Finished(tasks[1], left_out, 1.0), Lost(tasks[2:], "killed", True)):
        dispatcher.note(event)
    dispatcher.withdraw(list(dispatcher.ready()))
    (first,) = dispatcher.next_batch()
    dispatcher.note(finished(first))
    assert [part.source_id for part in take(dispatcher)] == ["e0", "e1"]
    assert [[task.index for task in dispatcher.next_batch()] for _ in range(3)] == [[2], [3], []]


def test_batches_are_no_longer_than_a_worker_can_hold() -> None:
    """Long episodes are read one at a time, so that none waits for many others of its neighbour."""
    dispatcher = Dispatcher(refs(400), workers=1, batch_bytes=100)
    sizes = []
    for _ in range(30):
        tasks = dispatcher.next_batch()
        sizes.append(len(tasks))
        for task in tasks:
            dispatcher.note(finished(task, n_bytes=20, seconds=0.001))
    assert sizes[0] == 1
    assert max(sizes) == 5


def test_a_lost_batch_is_read_one_by_one_to_find_the_culprit() -> None:
    """Where it is not known which episode was being read, none is blamed."""
    dispatcher = Dispatcher(refs(2, groups=["a"] * 2), workers=1)
    dispatcher.note(Lost(dispatcher.next_batch(), "node died", culprit_known=False))
    for _ in range(2):
        (task,) = dispatcher.next_batch()
        dispatcher.note(finished(task))
    assert [part.folder is None for part in take(dispatcher)] == [False, False]


def test_workers_that_only_die_end_the_conversion() -> None:
    """If no worker gets anything done, the machine is at fault and not a hundred episodes."""
    dispatcher = Dispatcher(refs(100), workers=2)
    for _ in range(9):
        dispatcher.note(Lost(dispatcher.next_batch(), "out of memory", culprit_known=True))
    with pytest.raises(DatasetError, match="10 workers died one after the other"):
        dispatcher.note(Lost(dispatcher.next_batch(), "out of memory", culprit_known=True))
