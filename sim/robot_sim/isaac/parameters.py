"""Constants, parameter classes and structured types of Isaac Gym's ``gymapi``.

Parameters that steer PhysX only (contact offsets, solver iterations, thickness, GPU buffers) are kept, so that
task code can set and read them, and have no effect; ``docs/simulation/isaac-gym.md`` lists those that do.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_sim.isaac.transforms import Transform, Vec3

#: Isaac Gym's largest float, which unlimited efforts and velocities have.
UNLIMITED = float(np.finfo(np.float32).max)

DOF_PROPERTIES = np.dtype(
    [
        ("hasLimits", np.bool_),
        ("lower", np.float32),
        ("upper", np.float32),
        ("driveMode", np.int32),
        ("velocity", np.float32),
        ("effort", np.float32),
        ("stiffness", np.float32),
        ("damping", np.float32),
        ("friction", np.float32),
        ("armature", np.float32),
    ]
)
DOF_STATE = np.dtype([("pos", np.float32), ("vel", np.float32)])


class DofDriveMode(enum.IntFlag):
    """What drives a degree of freedom."""

    DOF_MODE_NONE = 0
    DOF_MODE_POS = 1
    DOF_MODE_VEL = 2
    DOF_MODE_EFFORT = 3


class DofType(enum.IntEnum):
    """Kind of a degree of freedom."""

    DOF_INVALID = 0
    DOF_ROTATION = 1
    DOF_TRANSLATION = 2


class SimType(enum.IntEnum):
    """Physics engine asked for; MuJoCo answers to both names."""

    SIM_PHYSX = 0
    SIM_FLEX = 1


class UpAxis(enum.IntEnum):
    """Which axis points up; gravity is a parameter of its own."""

    UP_AXIS_Y = 0
    UP_AXIS_Z = 1


class ContactCollection(enum.IntEnum):
    """When contacts are collected."""

    CC_NEVER = 0
    CC_LAST_SUBSTEP = 1
    CC_ALL_SUBSTEPS = 2


class CoordinateSpace(enum.IntEnum):
    """Frame in which forces are given."""

    ENV_SPACE = 0
    LOCAL_SPACE = 1
    GLOBAL_SPACE = 2


class IndexDomain(enum.IntEnum):
    """What an index counts in."""

    DOMAIN_ACTOR = 0
    DOMAIN_ENV = 1
    DOMAIN_SIM = 2


class MeshType(enum.IntFlag):
    """Which meshes a colour is for."""

    MESH_NONE = 0
    MESH_COLLISION = 1
    MESH_VISUAL = 2
    MESH_VISUAL_AND_COLLISION = 3


class _Parameters:
    """Attributes with defaults; others may be added, as Isaac Gym's tasks do with parameters of their version."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class PhysXParams(_Parameters):
    """PhysX parameters, kept without effect."""

    def __init__(self, **values: Any) -> None:
        super().__init__(
            **{"num_threads": 0, "solver_type": 1, "use_gpu": False, "num_subscenes": 0},
            **{"num_position_iterations": 4, "num_velocity_iterations": 1, "contact_offset": 0.02},
            **{"rest_offset": 0.0, "bounce_threshold_velocity": 0.2, "max_depenetration_velocity": 100.0},
            **{"friction_offset_threshold": 0.04, "friction_correlation_distance": 0.025},
            **{"default_buffer_size_multiplier": 2.0, "max_gpu_contact_pairs": 1024 * 1024},
            **{"always_use_articulations": False, "contact_collection": ContactCollection.CC_ALL_SUBSTEPS},
        )
        self.__dict__.update(values)


class FlexParams(_Parameters):
    """Flex parameters, kept without effect."""


class SimParams(_Parameters):
    """Parameters of a simulation.

    Effective: `dt` [s], the time that one ``simulate`` advances, `substeps`, which it is divided into, `gravity`, and
    `backend`, which Isaac Gym has not: who steps, ``mujoco`` or ``warp`` (mujoco_warp on a GPU).
    """

    def __init__(self) -> None:
        super().__init__(
            dt=1.0 / 60.0,
            substeps=2,
            up_axis=UpAxis.UP_AXIS_Y,
            gravity=Vec3(0.0, -9.8, 0.0),
            use_gpu_pipeline=False,
            backend="mujoco",
            num_client_threads=0,
            stress_visualization=False,
            enable_actor_creation_warning=True,
            physx=PhysXParams(),
            flex=FlexParams(),
        )


class PlaneParams(_Parameters):
    """A ground plane; normal and distance [m] place it, the dynamic friction is used (MuJoCo has one)."""

    def __init__(self) -> None:
        super().__init__(
            normal=Vec3(0.0, 1.0, 0.0),
            distance=0.0,
            static_friction=1.0,
            dynamic_friction=1.0,
            restitution=0.0,
            segmentation_id=0,
        )


class AssetOptions(_Parameters):
    """How a file becomes an asset.

    Effective: `fix_base_link`, `collapse_fixed_joints`, `disable_gravity`, `density` [kg/m³], `armature`,
    `default_dof_drive_mode`, `override_inertia`, `replace_cylinder_with_capsule`.
    """

    def __init__(self) -> None:
        super().__init__(
            **{"fix_base_link": False, "collapse_fixed_joints": False, "disable_gravity": False},
            **{"density": 1000.0, "armature": 0.0, "default_dof_drive_mode": DofDriveMode.DOF_MODE_NONE},
            **{"override_com": False, "override_inertia": False, "replace_cylinder_with_capsule": False},
            **{"angular_damping": 0.5, "linear_damping": 0.0, "thickness": 0.02},
            **{"max_angular_velocity": 64.0, "max_linear_velocity": 1000.0, "flip_visual_attachments": False},
            **{"use_mesh_materials": False, "mesh_normal_mode": 0, "slices_per_cylinder": 20},
            **{
                "vhacd_enabled": False,
                "convex_decomposition_from_submeshes": False,
                "tendon_limit_stiffness": 1.0,
            },
            **{"use_physx_armature": True, "enable_gyroscopic_forces": True, "min_particle_mass": 1e-12},
        )


class CameraProperties(_Parameters):
    """A viewer's camera, kept without effect."""

    def __init__(self) -> None:
        super().__init__(
            width=1600, height=900, horizontal_fov=90.0, near_plane=0.01, far_plane=1e7, enable_tensors=False
        )


class ForceSensorProperties(_Parameters):
    """What a force sensor reports; see ``refresh_force_sensor_tensor`` for what it is here."""

    def __init__(self) -> None:
        super().__init__(
            enable_forward_dynamics_forces=True, enable_constraint_solver_forces=True, use_world_frame=False
        )


class ActuatorProperties(_Parameters):
    """An actuator of an MJCF file; `motor_effort` is its gear."""


class RigidBodyProperties(_Parameters):
    """Mass [kg] and centre of mass (`com`, [m]) of a rigid body; both can be set."""


class RigidShapeProperties(_Parameters):
    """Contact properties of one collision shape; `friction` and `filter` are effective."""


class AttractorProperties(_Parameters):
    """Properties of an attractor, which is not supported: kept so that tasks can be imported."""

    def __init__(self) -> None:
        super().__init__(
            stiffness=0.0, damping=0.0, axes=0, target=Transform(), offset=Transform(), rigid_handle=0
        )


class TriangleMeshParams(_Parameters):
    """Properties of a terrain mesh, which is not supported: kept so that tasks can be imported."""

    def __init__(self) -> None:
        super().__init__(
            nb_vertices=0, nb_triangles=0, transform=Transform(), static_friction=1.0, dynamic_friction=1.0
        )


#: Names that ``gymapi`` offers at its top level besides the classes: every member of the enumerations and these.
EXTRA_CONSTANTS = {
    **{"INVALID_HANDLE": -1, "DEFAULT_VIEWER_WIDTH": 1600, "DEFAULT_VIEWER_HEIGHT": 900},
    **{"AXIS_NONE": 0, "AXIS_X": 1, "AXIS_Y": 2, "AXIS_Z": 4, "AXIS_TRANSLATION": 7},
    **{"AXIS_TWIST": 8, "AXIS_SWING_1": 16, "AXIS_SWING_2": 32, "AXIS_ROTATION": 56, "AXIS_ALL": 63},
    **{"STATE_NONE": 0, "STATE_POS": 1, "STATE_VEL": 2, "STATE_ALL": 3},
    **{"IMAGE_COLOR": 0, "IMAGE_DEPTH": 1, "IMAGE_SEGMENTATION": 2, "IMAGE_OPTICAL_FLOW": 3},
    **{"FOLLOW_POSITION": 0, "FOLLOW_TRANSFORM": 1, "COMPUTE_PER_VERTEX": 1, "COMPUTE_PER_FACE": 2},
}
