"""PushT: a disc pushes a T-shaped block; everything in pixels of a 512 x 512 window, x right, y down."""

from __future__ import annotations

from robot_datasets.features import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature

EMBODIMENT = "pusht"
FPS = 10.0
TASK = "push the T-shaped block onto the target"

FULL_STATE = "observation.full_state"
IMAGE = IMAGE_PREFIX + "top"

FEATURES: dict[str, Feature] = {
    STATE: Feature(dtype="float32", shape=(2,), names=("agent_x", "agent_y"), units=("px",), frame="image"),
    ENVIRONMENT_STATE: Feature(
        dtype="float32",
        shape=(18,),
        names=tuple(f"keypoint{i}_{axis}" for i in range(9) for axis in "xy"),
        units=("px",),
        frame="image",
    ),
    FULL_STATE: Feature(
        dtype="float32",
        shape=(5,),
        names=("agent_x", "agent_y", "block_x", "block_y", "block_angle"),
        units=("px", "px", "px", "px", "rad"),
        frame="image",
    ),
    ACTION: Feature(
        dtype="float32",
        shape=(2,),
        names=("target_x", "target_y"),
        units=("px",),
        frame="image",
        meaning="absolute position",
    ),
}
"""Low-dimensional features of the published demonstrations, by name."""
