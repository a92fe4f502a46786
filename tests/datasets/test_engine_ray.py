"""Conversion on a Ray cluster, here a local one: the same code path and the same bytes."""

from pathlib import Path

import pytest

from robot_datasets.convert import convert
from robot_datasets.errors import DatasetError
from robot_datasets.testing import tree_digest
from robot_datasets.testing.words import MIXED, WordsImporter

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'robot-policies[distributed]'")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One local Ray for all tests here; starting it takes seconds."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def test_ray_gives_the_same_bytes_and_survives_its_workers(tmp_path: Path) -> None:
    """Episodes that fail, and one that kills the process that reads it, are set aside as by local workers."""
    source = tmp_path / "s.words"
    source.write_text(f"{MIXED} killed 4")
    local = convert(source, tmp_path / "local.zarr", format=WordsImporter(), workers=2)
    report = convert(source, tmp_path / "ray.zarr", format=WordsImporter(), workers=2, executor="ray")
    assert report.quarantined.keys() == local.quarantined.keys()
    assert "died 3 times (Ray says WorkerCrashedError)" in report.quarantined["word 17"]
    assert (report.n_episodes, report.executor) == (13, "ray")
    for name in ("data", "images", "meta/episodes", "meta/stats"):
        assert tree_digest(tmp_path / "ray.zarr" / name) == tree_digest(tmp_path / "local.zarr" / name)


def test_a_source_that_goes_away_is_one_clear_line_from_ray_too(tmp_path: Path) -> None:
    """Errors of the source as a whole come back as themselves, not as a trace of Ray's."""
    source = tmp_path / "s.words"
    source.write_text("3 4 gone 5")
    with pytest.raises(DatasetError, match=r"cannot be read any more"):
        convert(source, tmp_path / "s.zarr", format=WordsImporter(), workers=2, executor="ray")
