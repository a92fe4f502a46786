"""Depth in LeRobot's videos: 12-bit codes, logarithmic or linear in metres, or plain 16-bit millimetres.

LeRobot 0.6 (``lerobot/datasets/depth_utils.py``) writes code q of depth d [m] as
``4095 (log(d + shift) - log(min + shift)) / (log(max + shift) - log(min + shift))``, rounded; ``info.json`` says
min, max, shift and whether the scale is logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.importers.lerobot_images import to_millimetres

if TYPE_CHECKING:
    import av

MAX_CODE = (1 << 12) - 1
_MM_PER_M = 1000.0
_PLAIN_BITS = 16


@dataclass(frozen=True)
class DepthCoding:
    """How a depth video maps codes to metres; the defaults are LeRobot's.

    Attributes:
        minimum: Depth of code 0 [m].
        maximum: Depth of the largest code [m].
        shift: Added before the logarithm [m].
        logarithmic: Whether codes are spaced logarithmically.
        plain: The pixels are millimetres themselves (lossless 16-bit video).
    """

    minimum: float = 0.01
    maximum: float = 10.0
    shift: float = 3.5
    logarithmic: bool = True
    plain: bool = False

    @classmethod
    def from_info(cls, details: Mapping[str, Any], bits: int) -> DepthCoding:
        """Read a feature's ``info``.

        Args:
            details: Its entries.
            bits: Bits of the video's pixels; with 16, and nothing said of codes, they are millimetres.

        Raises:
            DatasetError: The numbers are no numbers or make no scale.
        """
        told = {key: details.get(f"video.{key}") for key in ("depth_min", "depth_max", "shift", "use_log")}
        told = {key: value for key, value in told.items() if value is not None}
        try:
            coding = cls(
                minimum=float(told.get("depth_min", cls.minimum)),
                maximum=float(told.get("depth_max", cls.maximum)),
                shift=float(told.get("shift", cls.shift)),
                logarithmic=bool(told.get("use_log", cls.logarithmic)),
                plain=bits >= _PLAIN_BITS and not told,
            )
        except (TypeError, ValueError) as error:
            raise DatasetError(f"depth is declared with {told}; expected numbers") from error
        sound = coding.minimum < coding.maximum and coding.maximum < math.inf
        if not sound or (coding.logarithmic and not coding.minimum + coding.shift > 0):
            raise DatasetError(
                f"depth is declared from {coding.minimum} to {coding.maximum} m with shift {coding.shift}, "
                "which is no scale; correct info.json"
            )
        return coding

    def to_info(self) -> dict[str, Any]:
        """Return what `from_info` reads."""
        return {
            "video.depth_min": self.minimum,
            "video.depth_max": self.maximum,
            "video.shift": self.shift,
            "video.use_log": self.logarithmic,
        }

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return depth in millimetres, uint16, of codes (H, W)."""
        if self.plain:
            return codes.astype(np.uint16, copy=False)
        return self._table()[np.minimum(codes, MAX_CODE)]

    def encode(self, depth_mm: np.ndarray) -> np.ndarray:
        """Return the codes, uint16, of depth in millimetres (H, W)."""
        depth = depth_mm.astype(np.float64) / _MM_PER_M
        low, high = self._scaled(self.minimum), self._scaled(self.maximum)
        scaled = np.log(np.maximum(depth + self.shift, 1e-9)) if self.logarithmic else depth
        return np.rint(np.clip((scaled - low) / (high - low), 0, 1) * MAX_CODE).astype(np.uint16)

    def _table(self) -> np.ndarray:
        low, high = self._scaled(self.minimum), self._scaled(self.maximum)
        scaled = low + np.arange(MAX_CODE + 1) * ((high - low) / MAX_CODE)
        depth = np.exp(scaled) - self.shift if self.logarithmic else scaled
        return to_millimetres(np.clip(depth, self.minimum, self.maximum), _MM_PER_M)

    def _scaled(self, depth: float) -> float:
        return math.log(depth + self.shift) if self.logarithmic else depth


def depth_codes(frame: av.VideoFrame) -> np.ndarray:
    """Return the pixels of a depth frame's first plane as they were encoded, (H, W) uint8 or uint16."""
    plane = frame.planes[0]
    dtype = np.dtype("<u2") if frame.format.components[0].bits > 8 else np.dtype(np.uint8)
    rows = np.frombuffer(memoryview(plane), dtype).reshape(frame.height, plane.line_size // dtype.itemsize)
    return rows[:, : frame.width].copy()
