"""What a store holds, in numbers: the content of ``robot-policies inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.features import is_image
from robot_datasets.store import EpisodeStore, layout

_LISTED = 10
_BINS = 24


def summarise(store: EpisodeStore) -> dict[str, Any]:
    """Return a JSON-ready summary; reads metadata only, no steps and no frames."""
    lengths = np.diff(store.episode_ends, prepend=0)
    success = store.episodes["success"]
    splits = store.episodes["split"]
    tasks, counts = np.unique(store.episodes["task_index"], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_LISTED]
    quarantined = store.quarantined
    return {
        "path": store.path,
        "bytes": _size_on_disk(store.path),
        "n_episodes": store.n_episodes,
        "n_steps": store.n_steps,
        "fps": store.fps,
        "seconds": store.n_steps / store.fps,
        "embodiment": store.embodiment,
        "episode_length": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "features": {name: _feature(store, name) for name in sorted(store.features)},
        "n_tasks": len(store.tasks),
        "tasks": [{"task": store.tasks[tasks[i]], "n_episodes": int(counts[i])} for i in order],
        "success": {
            "yes": int((success == 1).sum()),
            "no": int((success == 0).sum()),
            "unknown": int((success < 0).sum()),
        },
        "splits": {name or "none": splits.count(name) for name in sorted(set(splits))},
        "length_histogram": np.histogram(lengths, bins=_BINS)[0].tolist(),
        "n_segments": len(store.read_array(f"{layout.SEGMENTS}/episode")),
        "n_warnings": sum(map(len, store.warnings.values())),
        "n_quarantined": len(quarantined),
        "quarantined": dict(list(quarantined.items())[:_LISTED]),
        "source": store.attributes["source"],
        "conversion": store.attributes["conversion"],
        "fingerprint": store.fingerprint,
    }


def _feature(store: EpisodeStore, name: str) -> dict[str, Any]:
    entry = store.features[name].to_dict()
    if is_image(name):
        entry["encoding"] = store.spec.encodings[name]
    return entry


def _size_on_disk(path: str) -> int | None:
    """Return the bytes that the files take, holes left out; None for a remote store."""
    root = Path(path)
    if root.is_file():
        return root.stat().st_size
    if not root.is_dir():
        return None
    return sum(file.stat().st_blocks * 512 for file in root.rglob("*") if file.is_file())
