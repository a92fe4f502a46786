"""Are the system libraries for off-screen rendering here? Needs nothing but the standard library.

``python -m robot_sim.system_libraries`` runs with a bare Python, before anything is installed; it prints one
line that says what to do and ends with status 1 if no OpenGL library can be loaded. Whether a back end really
draws is tried later, by `robot_sim.rendering.backend_works`.
"""

from __future__ import annotations

import ctypes
import sys

REMEDY = "apt-get install libegl1 libgl1-mesa-dri (or libosmesa6)"

# Of each back end, one of these must load.
_LIBRARIES: dict[str, tuple[str, ...]] = {
    "egl": ("libEGL.so.1",),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}


def loadable_backends() -> list[str]:
    """Return which of ``egl`` and ``osmesa`` have their libraries on this Linux machine."""
    return [backend for backend, names in _LIBRARIES.items() if any(_loads(name) for name in names)]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def main() -> int:
    """Print the remedy and return 1 if there is nothing to render with, else return 0."""
    if not sys.platform.startswith("linux") or loadable_backends():
        return 0
    sys.stderr.write(
        f"Off-screen rendering needs EGL or OSMesa, and neither library is here; run: {REMEDY}\n"
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
