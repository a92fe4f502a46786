"""A reader for `dataset_windows.py`: windows of an episode store, as training reads them.

python benchmarks/window_reader_ours.py STORE CAMERA BATCH
"""

from __future__ import annotations

import sys

import numpy as np
from window_protocol import T_A, T_O, T_P, serve

from robot_datasets.store import EpisodeStore
from robot_datasets.windows import WindowDataset, WindowSpec


def main(path: str, camera: str, batch: int) -> None:
    """Serve windows in whole batches, images included."""
    store = EpisodeStore.open(path)
    observation = [camera, *(name for name in store.spec.low_dim if name == "observation.state")]
    windows = WindowDataset(store, WindowSpec(T_O, T_P, T_A), observation=observation)

    def draw(numbers: np.ndarray) -> None:
        for start in range(0, len(numbers), batch):
            windows.__getitems__(numbers[start : start + batch])

    def show(number: int) -> tuple[np.ndarray, np.ndarray]:
        found = windows.__getitems__([number])
        return found["action"][0], np.moveaxis(found[camera][0], 1, -1)

    serve(len(windows), draw, show)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
