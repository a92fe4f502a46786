"""Episodes as rerun recordings: frames, curves, labelled parts and the instruction on one timeline.

Frames stay encoded where the viewer can decode them. Needs the extra ``viz`` (rerun-sdk).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.features import DEPTH_PREFIX, is_image
from robot_datasets.store import EpisodeStore
from robot_datasets.store.images import ImageColumn

APPLICATION = "robot_policies"
_MEDIA_TYPES = {"jpeg": "image/jpeg", "png": "image/png"}
_MILLIMETRES = 1000.0


def save_recording(store: EpisodeStore, episode: int, path: Path) -> None:
    """Write one episode as an ``.rrd`` file, whole or not at all.

    Raises:
        DatasetError: rerun is not installed, or a frame is damaged.
    """
    staging = path.with_name(f".{path.name}.tmp")
    try:
        recording = new_recording(store, episode)
        recording.save(staging, default_blueprint=_blueprint(store))
        log_episode(recording, store, episode)
        recording.flush()
        recording.disconnect()
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def show_recordings(store: EpisodeStore, episodes: list[int]) -> None:
    """Open the viewer with some episodes, one recording each.

    Raises:
        DatasetError: rerun is not installed, or a frame is damaged.
    """
    for episode in episodes:
        recording = new_recording(store, episode)
        recording.spawn(default_blueprint=_blueprint(store))
        log_episode(recording, store, episode)
        recording.flush()


def new_recording(store: EpisodeStore, episode: int) -> Any:
    """Return an empty recording named after an episode."""
    source_id = store.episodes["source_id"][episode]
    recording = _rerun().RecordingStream(
        APPLICATION, recording_id=f"{Path(store.path).name}/{episode:06d}-{source_id}"
    )
    recording.send_recording_name(f"{episode}: {source_id}")
    return recording


def log_episode(recording: Any, store: EpisodeStore, episode: int) -> None:
    """Send everything that is known of an episode to a recording."""
    rr = _rerun()
    start, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
    steps = np.arange(end - start)
    clock = [
        rr.TimeColumn("step", sequence=steps),
        rr.TimeColumn("time", duration=steps / store.fps),
    ]
    recording.log("instruction", rr.TextDocument(_title(store, episode)), static=True)
    for name in store.spec.low_dim:
        rows = store.column(name)[start:end].reshape(end - start, -1).astype(np.float64)
        names = store.features[name].names or tuple(map(str, range(rows.shape[1])))
        recording.log(_path(name), rr.SeriesLines(names=list(names)), static=True)
        recording.send_columns(_path(name), indexes=clock, columns=rr.Scalars.columns(scalars=rows))
    for name in store.spec.image_features:
        _log_frames(recording, store.images(name), start, end, clock, store.fps)
    for segment in store.episodes["segments"][episode]:
        recording.set_time("step", sequence=segment.start)
        recording.set_time("time", duration=segment.start / store.fps)
        recording.log("segments", rr.TextLog(f"{segment.tag} {segment.text}".strip()))


def _log_frames(
    recording: Any, column: ImageColumn, start: int, end: int, clock: list[Any], fps: float
) -> None:
    rr, path = _rerun(), _path(column.name)
    media_type = _MEDIA_TYPES.get(column.encoding)
    if media_type and not column.name.startswith(DEPTH_PREFIX):
        for first in range(start, end, 256):  # a few hundred frames at a time bound the memory
            last = min(end, first + 256)
            blobs = [bytes(frame) for frame in column.encoded_many(np.arange(first, last))]
            columns = rr.EncodedImage.columns(blob=blobs, media_type=[_media_type(blob) for blob in blobs])
            part = [_slice(rr, index, first - start, last - start, fps) for index in ("step", "time")]
            recording.send_columns(path, indexes=part, columns=columns)
        return
    for i, pixels in enumerate(_decoded(column, start, end)):
        recording.set_time("step", sequence=i)
        recording.set_time("time", duration=i / fps)
        depth = column.name.startswith(DEPTH_PREFIX)
        recording.log(path, rr.DepthImage(pixels[..., 0], meter=_MILLIMETRES) if depth else rr.Image(pixels))


def _slice(rr: Any, name: str, first: int, last: int, fps: float) -> Any:
    steps = np.arange(first, last)
    return (
        rr.TimeColumn(name, sequence=steps) if name == "step" else rr.TimeColumn(name, duration=steps / fps)
    )


def _media_type(frame: bytes) -> str:
    """JPEG and PNG may be mixed in one camera; each frame tells by its first bytes."""
    return _MEDIA_TYPES["png" if frame.startswith(b"\x89PNG") else "jpeg"]


def _decoded(column: ImageColumn, start: int, end: int) -> Iterator[np.ndarray]:
    return (column.decode([step])[0] for step in range(start, end))


def _blueprint(store: EpisodeStore) -> Any:
    """Cameras on the left, curves on the right, state and action first."""
    import rerun.blueprint as layout

    order = {"observation.state": 0, "action": 1}
    curves = sorted(store.spec.low_dim, key=lambda name: (order.get(name, 2), name))
    cameras = [layout.Spatial2DView(origin=_path(name), name=name) for name in store.spec.image_features]
    plots = [layout.TimeSeriesView(origin=_path(name), name=name) for name in curves[:6]]
    texts = layout.TextDocumentView(origin="instruction", name="instruction")
    left = layout.Vertical(layout.Grid(*cameras), texts, row_shares=[5, 1]) if cameras else texts
    return layout.Blueprint(layout.Horizontal(left, layout.Vertical(*plots)), collapse_panels=True)


def _title(store: EpisodeStore, episode: int) -> str:
    success = {1: "reached its goal", 0: "failed", -1: "outcome unknown"}
    task = store.tasks[int(store.episodes["task_index"][episode])] or "(no instruction)"
    outcome = success[int(store.episodes["success"][episode])]
    return f"{task}\n\nepisode {episode} ({store.episodes['source_id'][episode]}), {outcome}"


def _path(name: str) -> str:
    """``observation.images.top`` -> ``observation/images/top``; a camera is no part of another feature."""
    return f"{'cameras' if is_image(name) else 'signals'}/{name.replace('.', '/')}"


def _rerun() -> Any:
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise DatasetError(
            'viewing needs rerun, which is not installed; install the extra with: pip install "robot-policies[viz]"'
        ) from error
    return rerun
