"""Compares what a policy was given with what its recording was converted to, to the bit.

The policy node sends one event per step of every window: the step's time, and a checksum of each feature at that step.
A store that was converted with these events as its clock has a row for each of them. Frames are compared decoded, or
encoded where the node leaves decoding to another process; uncompressed ones always by their pixels, since the store
has them in another form.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.features import is_image
from robot_deploy.observation.raw_image import frame_pixels, is_raw
from robot_deploy.observation.window import Window

_ENCODED = "encoded:"


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """How many steps agree.

    Attributes:
        steps: Steps that were compared.
        different: Steps at which a feature differs, by feature.
        first: The first difference in words; "" if there is none.
    """

    steps: int
    different: Mapping[str, int]
    first: str


def step_events(window: Window) -> Iterator[tuple[int, str]]:
    """Yield time [ns] and text of the event for every step of a window."""
    for index, time_ns in enumerate(window.steps_ns):
        sums = {name: checksum(array[index]) for name, array in sorted(window.arrays.items())}
        for name, frames in sorted(window.frames.items()):
            if is_raw(frames[index]):
                sums[name] = checksum(frame_pixels(frames[index]))
            else:
                sums[_ENCODED + name] = zlib.crc32(frames[index])
        yield int(time_ns), json.dumps(sums, separators=(",", ":"))


def _checksum_in(store: Any, name: str, row: int) -> int:
    if name.startswith(_ENCODED):
        return zlib.crc32(store.images(name.removeprefix(_ENCODED)).encoded(row))
    if is_image(name):
        return checksum(store.images(name).decode(np.array([row]))[0])
    return checksum(store.column(name)[row])


def checksum(values: np.ndarray) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def compare(store: Any, events: Mapping[int, str], times_ns: np.ndarray) -> ParityReport:
    """Compare a store with the events of its recording.

    Args:
        store: An `EpisodeStore` of one recording, converted with the events as its clock.
        events: Time [ns] -> text.
        times_ns: (T,) time of each row of the store [ns].
    """
    different: dict[str, int] = {}
    first = ""
    for row, time_ns in enumerate(times_ns):
        for name, wanted in json.loads(events[int(time_ns)]).items():
            if _checksum_in(store, name, row) != wanted:
                different[name] = different.get(name, 0) + 1
                first = first or f"'{name}' at step {row}, {int(time_ns)} ns"
    return ParityReport(steps=len(times_ns), different=different, first=first)
