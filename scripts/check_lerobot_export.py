"""Open an exported dataset with the real lerobot package and compare what it gives with the files.

Run with the Python of an environment that has lerobot, see ``scripts/lerobot_venv.sh``::

    python scripts/check_lerobot_export.py FOLDER [STEPS]

Every number of every step is compared with the tables; frames are loaded for STEPS steps (default 50), spread over
the dataset. Ends with status 1 if anything differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_STEPS = 50


def main(arguments: list[str]) -> int:
    """Check the folder named on the command line."""
    from lerobot.datasets.lerobot_dataset import (  # pyright: ignore[reportMissingImports]
        CODEBASE_VERSION,
        LeRobotDataset,
    )

    if not 1 <= len(arguments) <= 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folder = Path(arguments[0]).resolve()
    n_looked_at = int(arguments[1]) if len(arguments) == 2 else _STEPS
    dataset = LeRobotDataset("local/export", root=folder, video_backend="pyav")
    table = _rows(folder)
    problems = []
    if dataset.num_frames != len(table):
        problems.append(f"lerobot sees {dataset.num_frames} steps, the tables have {len(table)}")
    numbers = [k for k, f in dataset.features.items() if f["dtype"] not in ("video", "image", "string")]
    steps = np.unique(np.linspace(0, len(table) - 1, n_looked_at).astype(int))
    # As Arrow, because its NumPy format would turn float64 into float32.
    loaded: Any = dataset.hf_dataset.with_format("arrow").select_columns(numbers)[:]
    for key in numbers:
        expected = np.asarray(table[key].to_pylist())
        if not np.array_equal(np.asarray(loaded[key].to_pylist()).reshape(expected.shape), expected):
            problems.append(f"{key} differs from the tables")
    for step in steps.tolist():
        item = dataset[step]
        for key in dataset.meta.camera_keys:
            frame = np.asarray(item[key])
            if frame.ndim < 2 or not np.isfinite(frame.astype(np.float64)).all():
                problems.append(f"{key}: step {step} has no usable frame, shape {frame.shape}")
    sys.stdout.write(
        f"lerobot for {CODEBASE_VERSION} opened {folder.name}: {dataset.num_episodes} episodes, "
        f"{dataset.num_frames} steps, {len(numbers)} columns equal to the tables, frames of "
        f"{', '.join(dataset.meta.camera_keys) or 'no camera'} at {len(steps)} steps\n"
        if not problems
        else "\n".join(["NOT as exported:", *problems]) + "\n"
    )
    return 1 if problems else 0


def _rows(folder: Path) -> pa.Table:
    """Return all tables in order of their steps, without frames."""
    tables = []
    for path in sorted((folder / "data").rglob("*.parquet")):
        names = [f.name for f in pq.read_schema(path) if not pa.types.is_struct(f.type)]
        tables.append(pq.read_table(path, columns=names))
    return pa.concat_tables(tables).sort_by("index")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
