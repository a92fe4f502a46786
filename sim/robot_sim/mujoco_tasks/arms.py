"""Robot arms with grippers, from the MJCF files that robosuite ships; nothing is downloaded.

An arm is added to a scene under a prefix, so a scene can hold several. Whatever the arm, its tool centre point is a
site ``<prefix>tcp`` between the finger tips with z along the fingers, away from the hand, and x from one finger to
the other, and its gripper is one number, the share of its opening. Tasks written with these work with every arm.
"""

from __future__ import annotations

import importlib.util
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robot_datasets.errors import unknown_name
from robot_sim.engine import mujoco
from robot_sim.registry import SIMULATORS_REMEDY, TaskError

VISUAL_GROUP = 1  # robosuite's: what is only seen
COLLISION_GROUP = 3  # where what only collides is moved to; MuJoCo does not draw this group
Actuation = Literal["torque", "position"]
# How stiff a gripper's linkage is. MuJoCo's defaults scale with the tiny inertia of a finger, so that a firm grip bent
# the pads 20 degrees out of parallel; a peg was then pinched at one edge, about which it turned.
LINKAGE_SOLREF, LINKAGE_SOLIMP = (0.004, 1.0), (0.999, 0.9999)


@dataclass(frozen=True, kw_only=True)
class GripperModel:
    """A gripper of robosuite's.

    Attributes:
        file: MJCF below robosuite's ``models/assets/grippers``.
        root: Its root body.
        joints: Its joints.
        start: Joint positions at the start of an episode.
        actuators: Its actuators.
        opened: Actuator inputs that open it.
        closed: Actuator inputs that close it.
        pads: Geoms of the two finger tips that hold things, one tuple per finger.
        finger_geoms: All colliding geoms of the two fingers, one tuple per finger.
        width: Largest distance between the finger tips [m].
        linkage: Joint -> (joint that drives it, ratio): what the real linkage enforces. robosuite's file leaves
            the linkage open, with springs in its place; where it is stated here it replaces them, and the
            gripper's own bodies do not collide with each other.
        torque: Largest torque of an actuator [N m]; 0 for no limit. With a stiff linkage all of it reaches the object.
        damping: Of the joints that drive the linkage [N m s/rad]. Without it, and robosuite's file has none, fingers
            that close on nothing bounce between spring and stop for ever, at up to 60 rad/s, and shake the arm: sampled
            at the controller's rate, their centrifugal force is a steady pull, 20 mm off the goal for a UR5e.
    """

    file: str
    root: str
    joints: tuple[str, ...]
    start: tuple[float, ...]
    actuators: tuple[str, ...]
    opened: tuple[float, ...]
    closed: tuple[float, ...]
    pads: tuple[tuple[str, ...], tuple[str, ...]]
    finger_geoms: tuple[tuple[str, ...], tuple[str, ...]]
    width: float
    linkage: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    torque: float = 0.0
    damping: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ArmModel:
    """An arm of robosuite's.

    Attributes:
        file: MJCF below robosuite's ``models/assets/robots``.
        joints: Joints from the base to the hand.
        home: Joint positions of its rest pose, hand pointing down [rad].
        damping: Joint damping [N m s/rad].
        armature: Inertia of the motors, seen at the joints [kg m^2]; 0 where robosuite's file has none and none is
            needed. Without it a UR5e's wrist is so light that joint friction stops it short of the goal.
        stiffness: Stiffness of the position actuators [N m/rad]; their damping is ten per cent of it.
        gripper: Name of its usual gripper.
        decoupled: See `robot_sim.controllers.osc.OscPose`.
    """

    file: str
    joints: tuple[str, ...]
    home: tuple[float, ...]
    damping: tuple[float, ...]
    armature: float
    stiffness: tuple[float, ...]
    gripper: str
    decoupled: bool = True


GRIPPERS: dict[str, GripperModel] = {
    "panda_hand": GripperModel(
        file="panda_gripper.xml",
        root="right_gripper",
        joints=("finger_joint1", "finger_joint2"),
        start=(0.04, -0.04),
        actuators=("gripper_finger_joint1", "gripper_finger_joint2"),
        opened=(0.04, -0.04),
        closed=(0.0, 0.0),
        pads=(("finger1_pad_collision",), ("finger2_pad_collision",)),
        finger_geoms=(
            ("finger1_collision", "finger1_pad_collision"),
            ("finger2_collision", "finger2_pad_collision"),
        ),
        width=0.08,
    ),
    "robotiq_85": GripperModel(
        file="robotiq_gripper_85.xml",
        root="robotiq_85_adapter_link",
        joints=(
            *("finger_joint", "left_inner_finger_joint", "left_inner_knuckle_joint"),
            *("right_outer_knuckle_joint", "right_inner_finger_joint", "right_inner_knuckle_joint"),
        ),
        start=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        actuators=("finger_1", "finger_2"),
        opened=(0.0, 0.0),
        closed=(0.8, 0.8),
        pads=(
            ("left_fingertip_collision", "left_fingerpad_collision"),
            ("right_fingertip_collision", "right_fingerpad_collision"),
        ),
        finger_geoms=tuple(
            tuple(
                f"{side}_{part}_collision"
                for part in ("outer_finger", "inner_finger", "fingertip", "fingerpad")
            )
            for side in ("left", "right")
        ),  # type: ignore[arg-type]
        width=0.085,
        linkage={
            "left_inner_finger_joint": ("finger_joint", -1.0),
            "left_inner_knuckle_joint": ("finger_joint", 1.0),
            "right_inner_finger_joint": ("right_outer_knuckle_joint", -1.0),
            "right_inner_knuckle_joint": ("right_outer_knuckle_joint", 1.0),
        },
        torque=1.6,
        damping=0.2,  # a little over critical: stiffness 20 N m/rad, a finger's inertia with its linkage 3e-4 kg m^2
    ),
}

ARMS: dict[str, ArmModel] = {
    "panda": ArmModel(
        file="panda/robot.xml",
        joints=tuple(f"joint{i}" for i in range(1, 8)),
        home=(0.0, math.pi / 16, 0.0, -5 * math.pi / 6, 0.0, math.pi - 0.2, math.pi / 4),
        damping=(0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01),
        armature=0.0,
        stiffness=(4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0),
        gripper="panda_hand",
    ),
    "ur5e": ArmModel(
        file="ur5e/robot.xml",
        joints=(
            *("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint"),
            *("wrist_1_joint", "wrist_2_joint", "wrist_3_joint"),
        ),
        home=(-0.470, -1.735, 2.480, -2.275, -1.590, -1.991),
        damping=(0.001, 0.001, 0.001, 0.001, 0.001, 0.001),
        armature=0.1,
        stiffness=(2000.0, 2000.0, 2000.0, 500.0, 500.0, 500.0),
        gripper="robotiq_85",
        decoupled=False,
    ),
    "iiwa": ArmModel(
        file="iiwa/robot.xml",
        joints=tuple(f"joint_{i}" for i in range(1, 8)),
        home=(0.0, 0.650, 0.0, -1.890, 0.0, 0.600, 0.0),
        damping=(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
        armature=0.1,
        stiffness=(4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0),
        gripper="robotiq_85",
        decoupled=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Mount:
    """Where an arm stands in a scene.

    Attributes:
        arm: Name out of `ARMS`.
        gripper: Name out of `GRIPPERS`; empty for the arm's usual one.
        prefix: Put before every name of this arm, e.g. ``"left_"``.
        position: Of the base, world frame [m].
        yaw: Of the base about z [rad].
    """

    arm: str
    gripper: str = ""
    prefix: str = "robot_"
    position: tuple[float, float, float] = (-0.56, 0.0, 0.1)
    yaw: float = 0.0

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise TaskError(unknown_name("arm", self.arm, ARMS))
        if self.gripper and self.gripper not in GRIPPERS:
            raise TaskError(unknown_name("gripper", self.gripper, GRIPPERS))

    @property
    def arm_model(self) -> ArmModel:
        """The arm."""
        return ARMS[self.arm]

    @property
    def gripper_model(self) -> GripperModel:
        """The gripper."""
        return GRIPPERS[self.gripper or self.arm_model.gripper]

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the arm's joints in the scene."""
        return tuple(self.prefix + joint for joint in self.arm_model.joints)

    @property
    def gripper_joints(self) -> tuple[str, ...]:
        """Names of the gripper's joints in the scene."""
        return tuple(self.prefix + joint for joint in self.gripper_model.joints)

    @property
    def actuators(self) -> tuple[str, ...]:
        """Names of the arm's actuators in the scene, one per joint."""
        return self.joints

    @property
    def gripper_actuators(self) -> tuple[str, ...]:
        """Names of the gripper's actuators in the scene."""
        return tuple(self.prefix + actuator for actuator in self.gripper_model.actuators)


def pair(arm: str, *, gripper: str = "", distance: float = 0.7) -> tuple[Mount, Mount]:
    """Return two arms side by side, prefixes ``left_`` and ``right_``, `distance` apart along y [m]."""
    left, right = (
        Mount(arm=arm, gripper=gripper, prefix=prefix, position=(-0.56, side * distance / 2, 0.1))
        for prefix, side in (("left_", 1.0), ("right_", -1.0))
    )
    return left, right


def add_arm(scene: Any, mount: Mount, *, actuation: Actuation, visual: bool) -> None:
    """Add an arm with its gripper to a scene.

    Args:
        scene: ``mujoco.MjSpec``.
        mount: Which, and where.
        actuation: ``"torque"``: one motor per joint with robosuite's limits; gravity is the controller's job.
            ``"position"``: one position servo per joint; gravity is compensated.
        visual: Whether to add what is seen but does not collide; the state of the scene is the same either way.
    """
    assets = _assets()
    model = mount.arm_model
    joints = {
        joint: {"damping": repr(damping), "armature": repr(model.armature)}
        for joint, damping in zip(model.joints, model.damping, strict=True)
    }
    arm = _load(assets / "robots" / model.file, visual=visual, joints=joints)
    fingers = mount.gripper_model
    drivers = {driver: {"damping": repr(fingers.damping)} for driver, _ in fingers.linkage.values()}
    gripper = _load(assets / "grippers" / fingers.file, visual=visual, joints=drivers)
    _prepare_gripper(gripper, mount.gripper_model)
    limits = {actuator.target: np.array(actuator.ctrlrange) for actuator in arm.actuators}
    for actuator in list(arm.actuators):
        arm.delete(actuator)
    for index, joint in enumerate(mount.arm_model.joints):
        stiffness = mount.arm_model.stiffness[index]
        _add_actuator(arm, joint, limits[joint], stiffness if actuation == "position" else None)
    if actuation == "position":
        for body in (*arm.bodies, *gripper.bodies):
            body.gravcomp = 1.0
    arm.body("right_hand").add_frame().attach_body(gripper.body(mount.gripper_model.root), "", "")
    half = mount.yaw / 2
    frame = scene.worldbody.add_frame(pos=mount.position, quat=[math.cos(half), 0.0, 0.0, math.sin(half)])
    frame.attach_body(arm.body("base"), mount.prefix, "")


def _add_actuator(arm: Any, joint: str, limits: np.ndarray, stiffness: float | None) -> None:
    actuator = arm.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    if stiffness is None:
        actuator.set_to_motor()
        actuator.ctrllimited, actuator.ctrlrange = True, limits
    else:
        actuator.set_to_position(kp=stiffness, kv=0.1 * stiffness)
        actuator.forcelimited, actuator.forcerange = True, limits
        actuator.ctrllimited, actuator.ctrlrange = True, arm.joint(joint).range


def _prepare_gripper(gripper: Any, model: GripperModel) -> None:
    for sensor in list(gripper.sensors):
        gripper.delete(sensor)
    # In both files the fingers move along the x axis of this site's body, and its z axis points out.
    grip = gripper.site("grip_site")
    grip.parent.add_site(name="tcp", pos=grip.pos, group=4)
    if not model.linkage:
        return
    for tendon in list(gripper.tendons):
        gripper.delete(tendon)
    for joint, (driver, ratio) in model.linkage.items():
        coupling = gripper.add_equality(name=f"{joint}_linkage", type=mujoco.mjtEq.mjEQ_JOINT)
        coupling.objtype, coupling.name1, coupling.name2 = mujoco.mjtObj.mjOBJ_JOINT, joint, driver
        coupling.data[:5] = [0.0, ratio, 0.0, 0.0, 0.0]
        coupling.solref[:2], coupling.solimp[:2] = LINKAGE_SOLREF, LINKAGE_SOLIMP
    for actuator in gripper.actuators if model.torque else ():
        actuator.forcelimited, actuator.forcerange = True, [-model.torque, model.torque]
    bodies = [body.name for body in gripper.bodies if body.name and body.name != "world"]
    for index, first in enumerate(bodies):
        for second in bodies[index + 1 :]:
            gripper.add_exclude(bodyname1=first, bodyname2=second)


def _load(path: Path, *, visual: bool, joints: Mapping[str, Mapping[str, str]] | None = None) -> Any:
    """Read one of robosuite's MJCF files; duplicate assets, which robosuite drops too, are left out."""
    root = ElementTree.parse(path).getroot()
    if root.find("compiler") is None:  # the grippers' files count on being merged into one that says so
        ElementTree.SubElement(root, "compiler", angle="radian")
    seen: set[tuple[str, str]] = set()
    for assets in root.findall("asset"):
        for asset in list(assets):
            key = (asset.tag, asset.get("name", ""))
            if key in seen:
                assets.remove(asset)
            seen.add(key)
            if "file" in asset.attrib:
                asset.set("file", str(path.parent / asset.attrib["file"]))
    for joint in root.iter("joint"):  # as text: types of these attributes in MjSpec differ between releases
        joint.attrib.update((joints or {}).get(joint.get("name", ""), {}))
    spec = mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"))
    if not visual:
        drop_visuals(spec)
    for geom in spec.geoms:
        if geom.group != VISUAL_GROUP:
            geom.group = COLLISION_GROUP
    return spec


def drop_visuals(spec: Any) -> None:
    """Remove geoms that are only seen, and the meshes and materials that nothing else uses."""
    for geom in list(spec.geoms):
        if geom.group == VISUAL_GROUP and not geom.contype and not geom.conaffinity:
            spec.delete(geom)
    meshes = {geom.meshname for geom in spec.geoms}
    materials = {geom.material for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in meshes:
            spec.delete(mesh)
    for material in list(spec.materials):
        if material.name not in materials:
            spec.delete(material)


def _assets() -> Path:
    """Return robosuite's folder of models, without importing robosuite."""
    found = importlib.util.find_spec("robosuite")
    if found is None or found.origin is None:
        raise TaskError(
            f"the arms come from the package 'robosuite', which is not installed; {SIMULATORS_REMEDY}"
        )
    return Path(found.origin).parent / "models" / "assets"
