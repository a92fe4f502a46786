"""Public test helpers: conformance classes to subclass, small example data, generators of foreign formats.

The generators are modules of their own (`robot_datasets.testing.robomind`, ...): they write small trees in
each documented layout, with the documented faults on demand.

An importer author writes one class and gets the contract checked::

    class TestMyFormat(ImporterTests):
        @pytest.fixture
        def importer(self):
            return MyImporter()

        @pytest.fixture
        def source(self, tmp_path):
            return write_my_fixture(tmp_path / "source")     # at least three episodes, one of them unusable
                                                             # if the format can be damaged

`EpisodeStoreTests` does the same for anything that writes stores (converters, simulators, recorders).
"""

from robot_datasets.testing.conformance import EpisodeStoreTests, ImporterTests
from robot_datasets.testing.examples import (
    EXAMPLE_IMAGE,
    example_episodes,
    example_features,
    tree_digest,
    write_example_store,
)

__all__ = [
    "EXAMPLE_IMAGE",
    "EpisodeStoreTests",
    "ImporterTests",
    "example_episodes",
    "example_features",
    "tree_digest",
    "write_example_store",
]
