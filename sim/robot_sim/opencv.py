"""Let simulators that import OpenCV run on machines without the system libraries OpenCV wants.

gym-pusht and robosuite import ``cv2`` at the top but use it only to draw. The wheel they require loads
libGL and GLib, which a server often lacks, so running without images would fail for a library it never calls.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import NoReturn

from robot_datasets.errors import UserError

REMEDY = "apt-get install libgl1 libglib2.0-0"


class OpenCVError(UserError):
    """OpenCV was asked to draw, but cannot be loaded."""


class _MissingOpenCV(ModuleType):
    """Stands in for ``cv2`` and explains the failure at the first use."""

    def __init__(self, reason: str) -> None:
        super().__init__("cv2")
        self._reason = reason

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # the import machinery and inspection probe these
            raise AttributeError(name)
        raise OpenCVError(
            f"drawing needs OpenCV, which did not load ({self._reason}); install its libraries: {REMEDY}"
        )


def ensure_opencv() -> None:
    """Import ``cv2``, or put a stand-in in its place if a shared library is missing.

    A missing package still raises ModuleNotFoundError: only its system libraries are optional.
    """
    try:
        importlib.import_module("cv2")
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        sys.modules["cv2"] = _MissingOpenCV(str(error))
