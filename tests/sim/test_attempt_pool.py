"""Worker processes may die: no episode is lost, none counted twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from robot_datasets.errors import UserError
from robot_sim.attempt_pool import AttemptPool, WorkerDiedError, WorkerFailedError

Job = tuple[str, int, str]


def play(job: Job) -> str:
    """Answer; leave a mark for every time this job was started; die or raise as told."""
    folder, number, what = job
    marks = Path(folder) / str(number)
    marks.mkdir(exist_ok=True)
    tries = len(list(marks.iterdir()))
    (marks / str(tries)).touch()
    if what == "always" or (what == "once" and tries == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "refuse":
        raise UserError("no such thing")
    if what == "bug":
        raise ZeroDivisionError("oh")
    return f"played {number}"


def give_up(job: Job, ending: str) -> str:
    """Answer for a job whose worker died twice."""
    return f"gave up {job[1]}: {ending}"


def _run(folder: Path, whats: list[str], *, workers: int = 2) -> tuple[list[str], int]:
    pool = AttemptPool(play, give_up, workers=workers)
    try:
        return list(pool.run((str(folder), i, what) for i, what in enumerate(whats))), pool.n_deaths
    finally:
        pool.close()


def test_answers_come_in_order(tmp_path: Path) -> None:
    """Whoever finishes first, job 0 is answered first."""
    answers, deaths = _run(tmp_path, ["fine"] * 9)
    assert answers == [f"played {i}" for i in range(9)]
    assert deaths == 0


def test_an_episode_whose_worker_dies_is_tried_once_more(tmp_path: Path) -> None:
    """The second try counts; every other episode is played exactly once."""
    answers, deaths = _run(tmp_path, ["fine", "once", "fine", "fine", "once", "fine"])
    assert answers == [f"played {i}" for i in range(6)]
    assert deaths == 2
    assert [len(list((tmp_path / str(i)).iterdir())) for i in range(6)] == [1, 2, 1, 1, 2, 1]


def test_an_episode_that_kills_twice_is_given_up(tmp_path: Path) -> None:
    """It gets an answer like any other, with how the worker ended, and is not tried a third time."""
    answers, _ = _run(tmp_path, ["fine", "always", "fine"])
    assert answers == ["played 0", "gave up 1: killed by SIGKILL", "played 2"]
    assert len(list((tmp_path / "1").iterdir())) == 2


def test_workers_that_die_of_everything_end_the_run(tmp_path: Path) -> None:
    """Not an endless loop: after five deaths in a row there is one line with a remedy."""
    with pytest.raises(WorkerDiedError, match=r"5 worker processes died one after the other.*fewer workers"):
        _run(tmp_path, ["always"] * 20, workers=1)


@pytest.mark.parametrize(("what", "error"), [("refuse", UserError), ("bug", WorkerFailedError)])
def test_what_a_worker_raises_is_raised_here(tmp_path: Path, what: str, error: type[Exception]) -> None:
    """A message for the user keeps its type; a bug brings its traceback."""
    with pytest.raises(error, match="no such thing" if what == "refuse" else "ZeroDivisionError: oh"):
        _run(tmp_path, ["fine", what])
