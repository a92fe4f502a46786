"""Which cameras a LeRobot dataset has: videos that are really there, colour or depth, against what is declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX, Feature
from robot_datasets.importers.lerobot_depth import DepthCoding
from robot_datasets.importers.lerobot_places import LeRobotSet
from robot_datasets.importers.lerobot_video import VideoHeader, VideoReader

_SAMPLES = 5
_CODE_BITS = 10
"""A depth video of fewer bits cannot hold LeRobot's codes; what its grey levels mean is not known."""


@dataclass(frozen=True)
class Frames:
    """Where the frames of a camera are: a parquet column or a video key, and what they are.

    Attributes:
        key: The column or video key.
        depth: Whether they are depth.
        coding: How a depth video is coded.
        unit: Unit of depth in an image column, ``"mm"`` or ``"m"``; empty if it is not told.
    """

    key: str
    depth: bool = False
    coding: DepthCoding | None = None
    unit: str = ""


def camera_details(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a feature of info.json says of its video, under the names of all versions."""
    info, video_info = entry.get("info"), entry.get("video_info")
    return {
        **(info if isinstance(info, Mapping) else {}),
        **(video_info if isinstance(video_info, Mapping) else {}),
    }


def is_depth(entry: Mapping[str, Any]) -> bool:
    """Whether a feature of info.json is declared to be depth."""
    details = camera_details(entry)
    return bool(details.get("is_depth_map") or details.get("video.is_depth_map"))


def image_column(key: str, entry: Mapping[str, Any]) -> tuple[str, Frames]:
    """Return the feature that a column of frames becomes, and what info.json's entry says of it."""
    depth = is_depth(entry)
    unit = str(camera_details(entry).get("depth_unit") or "")
    return image_name(key, depth=depth), Frames(key, depth=depth, unit=unit)


def image_name(key: str, *, depth: bool = False) -> str:
    """``observation.images.top``, ``observation.image``, ``cam/top`` -> a feature name with our image prefix."""
    short = key.removeprefix("observation.").removeprefix("images.").replace("/", ".")
    return DEPTH_PREFIX + short.removeprefix("depth.") if depth else IMAGE_PREFIX + short


def image_feature(name: str, height: int, width: int) -> Feature:
    """Describe the frames of a camera; depth is in millimetres."""
    if name.startswith(DEPTH_PREFIX):
        return Feature(dtype="uint16", shape=(height, width, 1), units=("mm",))
    return Feature(dtype="uint8", shape=(height, width, 3))


class CameraFinder:
    """Looks into the first readable video of each camera; complaints go to `warnings`.

    Attributes:
        headers: Video key -> what its first video says.
        lost: Video keys that are declared and have no videos.
    """

    def __init__(self, source: LeRobotSet, warnings: list[str]) -> None:
        self._tree = source.tree
        self._features = source.info.features
        self._videos = source.files.videos
        self._warnings = warnings
        self.headers: dict[str, VideoHeader] = {}
        self.lost: list[str] = []

    def find(self) -> dict[str, Frames]:
        """Return image feature -> where its video frames are; complain of cameras without videos, and of others."""
        declared = {k for k, entry in self._features.items() if entry.get("dtype") == "video"}
        there = set(self._videos) - {""}
        self.lost = sorted(declared - there)
        for key in self.lost:
            self._warnings.append(f"camera {key} is declared, but has no video below videos/; left out")
        for key in sorted(there - declared):
            self._warnings.append(f"camera {key} is not declared in info.json, but has videos; taken in")
        found = {}
        for key in sorted(there):
            frames = self._frames(key)
            if frames is not None:
                found[image_name(key, depth=frames.depth)] = frames
        return found

    def chosen(self, cameras: Mapping[str, Frames], option: str) -> dict[str, Frames]:
        """Return the cameras that the option names; all if it is empty."""
        wanted = [name.strip() for name in option.split(",") if name.strip()]
        if not wanted:
            return dict(cameras)
        known = {k for k in self._videos if k} | set(self._features)
        for name in wanted:
            if name not in known and IMAGE_PREFIX + name not in known:
                shorts = sorted(k.removeprefix(IMAGE_PREFIX) for k in self._videos)
                raise DatasetError(f"option cameras: {unknown_name('camera', name, shorts)}")
        return {
            name: frames
            for name, frames in cameras.items()
            if frames.key in wanted or name.removeprefix(IMAGE_PREFIX) in wanted
        }

    def _frames(self, key: str) -> Frames | None:
        entry = self._features.get(key, {})
        header = self._first_header(key)
        if header is None:
            return None
        if not is_depth(entry):
            return Frames(key)
        if header.bits < _CODE_BITS:
            self._warnings.append(
                f"camera {key} is declared as depth, but its video has {header.bits} bits; "
                "what its grey levels mean is not known, left out"
            )
            return None
        return Frames(key, depth=True, coding=DepthCoding.from_info(camera_details(entry), header.bits))

    def _first_header(self, key: str) -> VideoHeader | None:
        """Return the header of the first readable video; if its size is not the declared one, the usual size."""
        reader, reasons, headers = VideoReader(self._tree), [], []
        for file in self._videos[key].values():
            try:
                headers.append(reader.header(file))
            except EpisodeError as error:
                reasons.append(str(error))
                continue
            finally:
                reader.close()
            declared = set(self._features.get(key, {}).get("shape") or [])
            if {headers[0].height, headers[0].width} <= declared or len(headers) >= _SAMPLES:
                break
        if not headers:
            self._warnings.append(f"camera {key} has no readable video ({reasons[0]}); left out")
            return None
        sizes = Counter((header.height, header.width) for header in headers)
        header = next(h for h in headers if (h.height, h.width) == sizes.most_common(1)[0][0])
        self._compare(key, header)
        self.headers[key] = header
        return header

    def _compare(self, key: str, header: VideoHeader) -> None:
        entry = self._features.get(key, {})
        codec = str(camera_details(entry).get("video.codec") or "")
        related = codec in header.codec or header.codec in codec or _same_codec(codec, header.codec)
        if codec and not related:
            self._warnings.append(f"camera {key} is declared {codec}, its video is {header.codec}")
        shape = entry.get("shape") or []
        if len(shape) == 3 and {header.height, header.width} - set(shape):
            self._warnings.append(
                f"camera {key} is declared {shape}, its video is {header.height}x{header.width}"
            )


def _same_codec(declared: str, found: str) -> bool:
    """Whether a decoder's name belongs to a declared codec: ``libdav1d`` is av1, ``libx264`` makes h264."""
    families = (("av1", "dav1d", "svtav1", "aom"), ("h264", "x264", "avc"), ("hevc", "h265", "x265"))
    return any(any(n in declared for n in f) and any(n in found for n in f) for f in families)
