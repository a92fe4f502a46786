"""What the optional extras bring, and how to add one that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    """One optional dependency group of the distribution.

    Attributes:
        name: Its name in ``pip install "robot-policies[name]"``.
        purpose: What it is for, in a few words.
        modules: Import name -> distribution name.
        remedy: What to do when one of them is missing.
    """

    name: str
    purpose: str
    modules: Mapping[str, str]
    remedy: str


_INSTALL = 'install the extra with: pip install -c constraints.txt -e ".[{}]"'

EXTRAS: dict[str, Extra] = {
    extra.name: extra
    for extra in (
        Extra(
            "sim",
            "simulated tasks, demonstrations and evaluation",
            {
                "mujoco": "mujoco",
                "robosuite": "robosuite",
                "gymnasium": "gymnasium",
                "gym_pusht": "gym-pusht",
                "pymunk": "pymunk",
                "pygame": "pygame",
                "cv2": "opencv-python-headless",
            },
            "install the simulators with: make venv (or see 'Simulators' in the README)",
        ),
        Extra(
            "lerobot",
            "optional: reading LeRobot datasets",
            {"pyarrow": "pyarrow"},
            _INSTALL.format("lerobot"),
        ),
        Extra(
            "language",
            "sentence models as text encoders",
            {"transformers": "transformers"},
            _INSTALL.format("language"),
        ),
        Extra(
            "retrieval",
            "nearest neighbours among more than a million keys",
            {"faiss": "faiss-cpu"},
            _INSTALL.format("retrieval"),
        ),
        Extra(
            "viz",
            "an interactive viewer of datasets",
            {"rerun": "rerun-sdk"},
            _INSTALL.format("viz"),
        ),
        Extra(
            "warp",
            "optional: vectorised physics on a GPU",
            {"mujoco_warp": "mujoco-warp", "warp": "warp-lang"},
            _INSTALL.format("warp"),
        ),
        Extra(
            "distributed",
            "conversion on many machines",
            {"ray": "ray"},
            _INSTALL.format("distributed"),
        ),
        Extra(
            "export",
            "exporting policies as ONNX, and running them without torch",
            {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
            _INSTALL.format("export"),
        ),
        Extra(
            "ros",
            "reading ROS bags",
            {"rosbags": "rosbags", "mcap": "mcap", "zstandard": "zstandard"},
            _INSTALL.format("ros"),
        ),
        Extra(
            "rclpy",
            "ROS 2 nodes without a ROS installation (Linux on x86-64)",
            {"rclpy": "ros-jazzy-rclpy"},
            "source a ROS 2 installation, or on Linux x86-64 " + _INSTALL.format("rclpy"),
        ),
    )
}


def extra_of(module: str) -> Extra | None:
    """Return the extra that brings a module (``"mujoco.egl"`` counts as ``"mujoco"``), or None."""
    top = module.partition(".")[0]
    return next((extra for extra in EXTRAS.values() if top in extra.modules), None)
