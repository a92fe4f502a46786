"""What holds for every importer and every store: conformance classes to subclass."""

from __future__ import annotations

import hashlib
import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.check import check_store
from robot_datasets.convert import ConversionReport, Progress, convert
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, is_image
from robot_datasets.importers.base import EpisodeResult, Importer, Rejected, resolve_options
from robot_datasets.store import EpisodeStore
from robot_datasets.testing.examples import tree_digest


class EpisodeStoreTests(ABC):
    """What holds for every published store; subclass and write one in `write_store`."""

    @abstractmethod
    def write_store(self, path: Path) -> None:
        """Write the same small store at `path` every time."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> EpisodeStore:
        """A store written by `write_store`."""
        self.write_store(tmp_path / "store.zarr")
        return EpisodeStore.open(tmp_path / "store.zarr")

    def test_check_finds_nothing_wrong(self, store: EpisodeStore) -> None:
        """Values are finite, frames decode, checksums and statistics fit."""
        assert check_store(store).problems == []

    def test_same_input_gives_same_bytes(self, store: EpisodeStore, tmp_path: Path) -> None:
        """Writing the same store twice gives byte-identical trees."""
        self.write_store(tmp_path / "again.zarr")
        assert tree_digest(tmp_path / "again.zarr") == tree_digest(Path(store.path))

    def test_nothing_is_left_beside_it(self, store: EpisodeStore) -> None:
        """The staging directory is gone after publishing."""
        assert not Path(store.path + ".staging").exists()

    def test_columns_have_the_declared_type_and_shape(self, store: EpisodeStore) -> None:
        """Every low-dimensional column is (T, *shape) of the feature's dtype."""
        for name in store.spec.low_dim:
            feature = store.features[name]
            assert store.column(name).shape == (store.n_steps, *feature.shape)
            assert store.column(name).dtype == feature.dtype

    def test_vectors_name_their_components(self, store: EpisodeStore) -> None:
        """The action says what its components are called and measured in."""
        action = store.features[ACTION]
        assert action.names
        assert action.units


class ImporterTests:
    """What holds for every importer; subclass and provide the fixtures `importer` and `source`."""

    options: Mapping[str, str] = {}
    """Options to convert `source` with."""

    @pytest.fixture
    def importer(self) -> Importer:
        """The importer under test."""
        raise NotImplementedError("provide the fixture 'importer'")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """A small source of at least three episodes, in a folder below `tmp_path`."""
        raise NotImplementedError("provide the fixture 'source'")

    def test_probe_recognises_the_source(self, importer: Importer, source: Path) -> None:
        """The importer claims its own format, under its own name."""
        probe = importer.probe(source)
        assert probe is not None
        assert probe.format == importer.name

    def test_probe_declines_other_data(self, importer: Importer, tmp_path: Path) -> None:
        """Other folders and files are declined without an error."""
        folder = tmp_path / "unrelated"
        folder.mkdir()
        (folder / "notes.txt").write_text("nothing to see")
        assert importer.probe(folder) is None
        assert importer.probe(folder / "notes.txt") is None
        assert importer.probe(tmp_path / "absent") is None

    def test_plan_is_repeatable_and_picklable(self, importer: Importer, source: Path) -> None:
        """Planning twice gives the same plan, and a plan can go to another process."""
        plan = importer.plan(source, resolve_options(importer, self.options))
        again = importer.plan(source, resolve_options(importer, self.options))
        assert plan == again
        assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301  (our own bytes)
        assert len(plan.refs) >= 3
        assert len({ref.source_id for ref in plan.refs}) == len(plan.refs)

    def test_plan_records_no_absolute_path(self, importer: Importer, source: Path, tmp_path: Path) -> None:
        """What is recorded does not depend on where the source lies."""
        plan = importer.plan(source, resolve_options(importer, self.options))
        recorded = [*plan.options.values(), *(ref.source_id for ref in plan.refs), str(plan.notes)]
        assert not [text for text in recorded if str(tmp_path) in text]

    def test_every_ref_gives_one_result_in_order(self, importer: Importer, source: Path) -> None:
        """Each reference yields one episode or one rejection with a reason, in order."""
        plan = importer.plan(source, resolve_options(importer, self.options))
        results = [
            (r.source_id, r.reason if isinstance(r, Rejected) else "")
            for r in importer.episodes(plan, plan.refs)
        ]
        assert [name for name, _ in results] == [ref.source_id for ref in plan.refs]

    def test_an_episode_does_not_depend_on_those_before_it(self, importer: Importer, source: Path) -> None:
        """Reading one reference alone gives the same as reading all; resuming relies on it."""
        plan = importer.plan(source, resolve_options(importer, self.options))
        whole = [_digest(result) for result in importer.episodes(plan, plan.refs)]
        alone = [_digest(result) for ref in plan.refs for result in importer.episodes(plan, [ref])]
        assert whole == alone

    def test_episodes_do_not_need_the_list_in_the_plan(self, importer: Importer, source: Path) -> None:
        """Worker processes get the plan without its references and rejections."""
        plan = importer.plan(source, resolve_options(importer, self.options))
        stripped = replace(plan, refs=(), rejected=())
        whole = [_digest(result) for result in importer.episodes(plan, plan.refs)]
        assert [_digest(result) for result in importer.episodes(stripped, plan.refs)] == whole

    def test_episodes_have_the_declared_features(self, importer: Importer, source: Path) -> None:
        """Every episode has exactly the features of the plan, one frame per step."""
        plan = importer.plan(source, resolve_options(importer, self.options))
        for episode in importer.episodes(plan, plan.refs):
            if isinstance(episode, Rejected):
                continue
            assert set(episode.data) == {name for name in plan.features if not is_image(name)}
            assert set(episode.images) == {name for name in plan.features if is_image(name)}
            for frames in episode.images.values():
                assert sum(1 for _ in frames) == episode.n_steps

    def test_converts_to_a_sound_store(self, importer: Importer, source: Path, tmp_path: Path) -> None:
        """The store passes the check and holds every episode that was not set aside."""
        report = self._convert(importer, source, tmp_path / "out.zarr")
        store = EpisodeStore.open(tmp_path / "out.zarr")
        assert check_store(store).problems == []
        plan = importer.plan(source, resolve_options(importer, self.options))
        assert store.n_episodes + len(report.quarantined) == len(plan.refs) + len(plan.rejected)

    def test_resuming_gives_the_same_bytes(self, importer: Importer, source: Path, tmp_path: Path) -> None:
        """A conversion stopped after every single episode ends like an uninterrupted one, byte by byte.

        It is a second conversion of the same source, too, so nothing of a store may depend on when it was made.
        """
        self._convert(importer, source, tmp_path / "whole.zarr")
        plan = importer.plan(source, resolve_options(importer, self.options))
        for _ in plan.refs:
            with pytest.raises(_StopError):
                convert(
                    source, tmp_path / "parts.zarr", format=importer, options=self.options, progress=_stop
                )
        self._convert(importer, source, tmp_path / "parts.zarr")
        assert tree_digest(tmp_path / "parts.zarr") == tree_digest(tmp_path / "whole.zarr")

    def test_unknown_options_are_refused(self, importer: Importer) -> None:
        """An option that was not declared is an error."""
        with pytest.raises(DatasetError, match="unknown option"):
            resolve_options(importer, {"surely_not_an_option": "1"})

    def _convert(self, importer: Importer, source: Path, target: Path) -> ConversionReport:
        return convert(source, target, format=importer, options=self.options)


class _StopError(Exception):
    """Stands for a kill after an episode."""


def _stop(progress: Progress) -> None:
    raise _StopError(f"after {progress.source_id}")


def _digest(result: EpisodeResult) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(result, Rejected):
        digest.update(repr(result).encode())
        return digest.hexdigest()
    digest.update(
        repr((result.source_id, result.task, result.success, result.split, result.segments)).encode()
    )
    for name in sorted(result.data):
        digest.update(np.ascontiguousarray(result.data[name]).tobytes())
    for name in sorted(result.images):
        for frame in result.images[name]:
            digest.update(frame)
    return digest.hexdigest()
