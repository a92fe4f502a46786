"""The convert command's report: beside the store, about this source, and kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.engine.report import HTML_NAME, JSON_NAME, group_by_kind
from robot_datasets.testing import tree_digest
from robot_policies.cli.main import main
from robot_policies.pages.conversion import write_conversion_page


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    """A replay buffer of three episodes, one of which holds NaN."""
    import zarr

    root = zarr.create_group(str(tmp_path / "buffer.zarr"), zarr_format=2)
    action = np.arange(20, dtype=np.float32).reshape(10, 2)
    action[6] = np.nan
    root.create_group("data").create_array("action", shape=(10, 2), dtype="f4", fill_value=0)[...] = action
    ends = [2, 5, 10]
    root.create_group("meta").create_array("episode_ends", shape=(3,), dtype="i8", fill_value=0)[...] = ends
    return tmp_path / "buffer.zarr"


def convert(source: Path, store: Path, *more: str) -> int:
    return main(["convert", str(source), str(store), "--option", "fps=10", *more])


def test_the_report_lies_beside_the_store(buffer: Path, tmp_path: Path) -> None:
    """Both files tell what came in, what came out and why the rest did not; the store holds no part of it."""
    assert convert(buffer, tmp_path / "a.zarr") == 0
    assert convert(buffer, tmp_path / "b.zarr", "--no-report") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "a.zarr.report", "b.zarr", "buffer.zarr"]
    content = json.loads((tmp_path / "a.zarr.report" / JSON_NAME).read_text())
    assert (content["n_source"], content["n_episodes"], content["outcome"]) == (3, 2, "converted in part")
    assert content["skipped_by_reason"][0]["first_episodes"] == ["episode_000002"]
    assert content["options"]["fps"] == "10"
    assert "--option fps=10" in content["command"]
    page = (tmp_path / "a.zarr.report" / HTML_NAME).read_text()
    assert "action has NaN or infinity in 1 of 5 steps" in page
    assert "http" not in page
    assert tree_digest(tmp_path / "a.zarr") == tree_digest(tmp_path / "b.zarr")


def test_a_run_that_finds_nothing_to_do_keeps_the_report(buffer: Path, tmp_path: Path) -> None:
    """The report of the run that made the store is not replaced by one that did nothing."""
    assert convert(buffer, tmp_path / "a.zarr", "--report", str(tmp_path / "r")) == 0
    before = (tmp_path / "r" / JSON_NAME).read_bytes()
    assert convert(buffer, tmp_path / "a.zarr", "--report", str(tmp_path / "r")) == 0
    assert (tmp_path / "r" / JSON_NAME).read_bytes() == before


def test_nothing_converted_fails_and_still_reports(
    tmp_path: Path, buffer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero episodes end with status 2; the report says why for each."""
    import zarr

    actions = zarr.open_array(str(buffer / "data" / "action"), mode="r+")
    actions[...] = np.nan
    assert convert(buffer, tmp_path / "a.zarr") == 2
    assert "3 were set aside" in capsys.readouterr().err
    assert not (tmp_path / "a.zarr").exists()
    content = json.loads((tmp_path / "a.zarr.report" / JSON_NAME).read_text())
    assert (content["outcome"], content["n_episodes"]) == ("nothing converted", 0)
    assert "Nothing was converted" in (tmp_path / "a.zarr.report" / HTML_NAME).read_text()


def test_a_report_that_cannot_be_written_is_one_line(
    buffer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store is there; the message says where the trouble is."""
    (tmp_path / "taken").write_text("a file")
    assert convert(buffer, tmp_path / "a.zarr", "--report", str(tmp_path / "taken")) == 2
    assert "choose another folder with --report" in capsys.readouterr().err
    assert (tmp_path / "a.zarr").exists()


def test_messages_that_differ_in_numbers_are_one_kind() -> None:
    """Numbers and the episode's own name do not make a new kind; the commonest comes first."""
    kinds = group_by_kind(
        [
            ("a/1", "a/1: state has 7 rows"),
            ("b", "too short"),
            ("a/2", "a/2: state has 1.5e3 rows"),
            ("a/2", "a/2: state has 9 rows"),
        ]
    )
    assert [(kind.text, kind.n_messages, kind.episodes) for kind in kinds] == [
        ("a/1: state has 7 rows", 3, ["a/1", "a/2"]),
        ("too short", 1, ["b"]),
    ]


def test_text_of_a_source_is_shown_as_text(buffer: Path, tmp_path: Path) -> None:
    """Names and messages come from foreign files; none of them becomes part of the page's code."""
    assert convert(buffer, tmp_path / "a.zarr") == 0
    content = json.loads((tmp_path / "a.zarr.report" / JSON_NAME).read_text())
    script = "<script>alert(1)</script>"
    content |= {
        "source": script,
        "quarantined": {script: script},
        "skipped_by_reason": [{"example": script, "messages": 1, "episodes": 1, "first_episodes": [script]}],
        "warnings": {script: [script]},
        "warnings_by_kind": [{"example": script, "messages": 1, "episodes": 1, "first_episodes": [script]}],
        "source_warnings": [script],
        "options": {script: script},
    }
    write_conversion_page(tmp_path / "page.html", content)
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
