"""A reader for `dataset_windows.py`: the dataset class of the real lerobot package.

    python benchmarks/window_reader_lerobot.py FOLDER CAMERA FPS LENGTH [LENGTH ...]

Needs an environment with lerobot, see ``scripts/lerobot_venv.sh``. The lengths of the episodes number the windows as
the other readers do: all steps that can be "now". lerobot itself has a window for every step.
"""

from __future__ import annotations

import sys

import numpy as np
from window_protocol import T_A, T_O, T_P, serve


def main(folder: str, camera: str, fps: float, lengths: list[int]) -> None:
    """Serve windows one at a time, as its data loader asks for them."""
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    seen = [(i - T_O + 1) / fps for i in range(T_O)]
    times = {camera: seen, "action": [(i - T_O + 1) / fps for i in range(T_P)]}
    names = LeRobotDataset("local/export", root=folder, video_backend="pyav").features
    if "observation.state" in names:
        times["observation.state"] = seen
    dataset = LeRobotDataset("local/export", root=folder, delta_timestamps=times, video_backend="pyav")
    starts = np.cumsum([0, *lengths[:-1]])
    now = np.concatenate(
        [start + np.arange(n - T_P + T_O + T_A - 1) for start, n in zip(starts, lengths, strict=True)]
    )

    def draw(numbers: np.ndarray) -> None:
        for step in now[numbers].tolist():
            dataset[step]

    def show(number: int) -> tuple[np.ndarray, np.ndarray]:
        found = dataset[int(now[number])]
        return found["action"].numpy(), np.moveaxis(found[camera].numpy(), 1, -1) * 255

    serve(len(now), draw, show)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), [int(word) for word in sys.argv[4:]])
