"""The twin's commands on a surrogate's recordings: from a recording to demonstrations, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.store import EpisodeStore
from robot_policies.cli.main import main


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a surrogate, recorded by the command."""
    folder = tmp_path_factory.mktemp("logs")
    assert (
        main(
            [
                "twin",
                "surrogate",
                "tabletop_push_t",
                "--episodes",
                "1",
                "--seconds",
                "1",
                "--output",
                str(folder),
            ]
        )
        == 0
    )
    return folder / "0000"


def test_check_says_what_a_cell_holds(capsys: pytest.CaptureFixture[str]):
    """As JSON: objects, cameras and rate."""
    assert main(["twin", "check", "tabletop_push_t", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["objects"]["block"] == {"mass": 0.3, "friction": 0.5}
    assert said["twin_hz"] == 60.0


def test_demonstrations_have_the_twins_states_and_any_viewpoint(log: Path, tmp_path: Path):
    """The calibrated camera of the cell and the scene's own that stands in its place draw the same picture."""
    target = tmp_path / "demos.zarr"
    cameras = ["--camera", "top", "--camera", "topview", "--size", "160"]
    assert main(["twin", "record", "tabletop_push_t", str(log), *cameras, "--output", str(target)]) == 0
    store = EpisodeStore.open(target)
    assert store.n_episodes == 1
    assert store.column("action").shape == (store.n_steps, 2)
    pictures = [store.images(f"observation.images.{name}").decode([2])[0] for name in ("top", "topview")]
    assert pictures[0].std() > 5
    assert np.abs(pictures[0].astype(float) - pictures[1]).mean() < 2.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "tabletop_pusht"], "did you mean 'tabletop_push_t'"),
        (["calibrate", "tabletop_push_t", "nowhere", "--output", "c.yaml"], "no readable log"),
        (["eval", "tabletop_push_t", "nowhere"], "nowhere"),
        (["view", "tabletop_push_t", "--save", "cell.txt"], "ends in .rrd"),
        (["surrogate", "tabletop_push_t", "--episodes", "0", "--output", "x"], "expected at least 1"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    """Bad input ends with status 2 and one line that helps."""
    assert main(["twin", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
