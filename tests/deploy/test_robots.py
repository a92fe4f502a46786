"""Robots: presets build, a URDF is never loosened, and hostile descriptions are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_datasets.mapping import ConfigError, from_mapping
from robot_deploy.motion.limits import LimitsError, MotionLimits
from robot_deploy.robots import RobotConfig, TargetConfig, load_robot, load_target, preset_names
from robot_deploy.urdf import UrdfLimit, parse_urdf, read_urdf

URDF = """<?xml version="1.0"?><robot name="r">
<joint name="a" type="revolute"><limit lower="-1" upper="2" velocity="3" effort="1"/></joint>
<joint name="b" type="continuous"><limit velocity="4" effort="1"/></joint>
<joint name="f" type="fixed"/></robot>"""
BOMB = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><robot name="&b;"/>'
numbers = st.floats(0.1, 5.0)


def _robot(**fields) -> RobotConfig:
    values = {
        "robot": "r",
        "source": "test",
        "joints": ("a", "b"),
        "acceleration": (1.0, 1.0),
        "jerk": (9.0, 9.0),
    }
    return from_mapping(RobotConfig, {**values, "position_margin": 0.0, **fields}, where="robot")


def test_a_urdf_gives_positions_and_velocities():
    """Revolute and continuous joints are read; fixed ones are not."""
    limits = _robot().limits(parse_urdf(URDF))
    assert limits.lower.tolist() == [-1.0, -np.inf]
    assert limits.upper.tolist() == [2.0, np.inf]
    assert limits.velocity.tolist() == [3.0, 4.0]


@given(st.lists(numbers, min_size=8, max_size=8), st.floats(0.1, 1.0), st.floats(0.0, 0.04))
def test_limits_are_never_looser_than_any_source(values, scale, margin):
    """Whatever the YAML says, no limit is looser than the URDF's or its own."""
    v = values
    urdf = {
        name: UrdfLimit(name=name, kind="revolute", lower=-v[i], upper=v[i], velocity=v[i + 2])
        for i, name in enumerate("ab")
    }
    own = {"lower": (-v[4], -v[5]), "upper": (v[4], v[5]), "velocity": (v[6], v[7])}
    robot = _robot(**own, position_margin=margin, velocity_scale=scale)
    limits = robot.limits(urdf)
    assert (limits.upper <= np.minimum(v[:2], v[4:6])).all()
    assert (limits.lower >= -np.minimum(v[:2], v[4:6])).all()
    assert (limits.velocity <= np.minimum(v[2:4], v[6:8])).all()


@pytest.mark.parametrize(
    ("fields", "urdf", "message"),
    [
        ({}, None, "no lower limits; give a URDF, or set robot.lower"),
        ({"acceleration": ()}, URDF, "no acceleration limits; set robot.acceleration"),
        ({"jerk": ()}, URDF, "no jerk limits; set robot.jerk"),
        ({"joints": ("a", "c")}, URDF, r"no movable joint \['c'\]"),
        ({"joints": (), "acceleration": (), "jerk": ()}, URDF, "has no joints"),
        ({"velocity_scale": 1.5}, URDF, "velocity scale 1.5; expected more than 0 and at most 1"),
        ({"position_margin": 1.5}, URDF, "joint 'a': upper limit"),
        ({"position_margin": -0.1}, URDF, "position margin -0.1"),
        ({"acceleration": (0.0, 1.0)}, URDF, "joint 'a': acceleration limit 0"),
    ],
)
def test_missing_and_senseless_limits_are_errors(fields, urdf, message):
    """What no source gives has to be given explicitly; nothing is guessed."""
    with pytest.raises(LimitsError, match=message):
        _robot(**fields).limits(None if urdf is None else parse_urdf(urdf))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "document type"),
        (BOMB.encode("utf-16"), "not UTF-8"),
        ("<robot", "not XML"),
        ("", "not XML"),
        ("<sdf/>", "expected <robot>"),
        (URDF.replace('lower="-1"', 'lower="nan"'), "limit lower='nan'"),
        (URDF.replace('velocity="3"', ""), "limit velocity=None"),
        (URDF.replace('name="b"', 'name="a"'), "used twice"),
        ('<robot><joint name="a" type="revolute"/></robot>', "has no <limit>"),
    ],
)
def test_hostile_and_broken_urdfs_are_refused(text, message):
    """Entity bombs, other encodings, broken XML and missing numbers are one-line errors."""
    with pytest.raises(LimitsError, match=message):
        parse_urdf(text)


def test_a_urdf_file_that_cannot_be_read(tmp_path):
    """A missing file, a folder and an oversized file are errors that name it."""
    for path in (tmp_path / "none.urdf", tmp_path):
        with pytest.raises(LimitsError, match=str(path)):
            read_urdf(path)
    (tmp_path / "r.urdf").write_text(URDF)
    assert set(read_urdf(tmp_path / "r.urdf")) == {"a", "b"}


@pytest.mark.parametrize("name", preset_names("robots"))
def test_robot_presets_build(name: str):
    """Every preset but the template gives limits, names its source, and starts with a comment."""
    robot = load_robot(name)
    assert len(robot.source) > 10
    if name == "generic":
        with pytest.raises(LimitsError, match="has no joints"):
            robot.limits()
        return
    limits = robot.limits()
    assert isinstance(limits, MotionLimits)
    assert len(limits) in (6, 7, 8, 12)


@pytest.mark.parametrize("name", preset_names("targets"))
def test_target_presets_build(name: str):
    """Every target says what the receiver does when messages stop."""
    assert load_target(name).silence in ("stop", "latch", "servo_timeout")


def test_wrong_files_are_errors(tmp_path):
    """Unknown presets, keys and values, and files that are no mapping, are errors with a remedy."""
    with pytest.raises(ConfigError, match="did you mean 'panda'"):
        load_robot("pandas")
    path = tmp_path / "mine.yaml"
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_robot(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="expected a YAML file"):
        load_robot(path)
    with pytest.raises(ConfigError, match="can only 'latch'"):
        TargetConfig(kind="forward_position", topic="/c", silence="stop")
    with pytest.raises(ConfigError, match="needs robot"):
        _robot(workspace={"lower": [0, 0, 0], "upper": [1, 1, 1]})
    with pytest.raises(ConfigError, match="2 joints"):
        _robot(velocity=(1.0, 2.0, 3.0))


def test_a_workspace_is_built_from_its_configuration():
    """A box in the YAML becomes a workspace of the named arm; an empty one is refused."""
    panda = load_robot("panda")
    assert panda.make_workspace() is None
    values = {"robot": "panda", "source": "t", "joints": panda.joints, "kinematics": "panda"}
    box = from_mapping(
        RobotConfig, {**values, "workspace": {"lower": [0, 0, 0], "upper": [1, 1, 1]}}, where="r"
    )
    assert box.make_workspace() is not None
    empty = from_mapping(
        RobotConfig, {**values, "workspace": {"lower": [0, 0, 2], "upper": [1, 1, 1]}}, where="r"
    )
    with pytest.raises(LimitsError, match="the first one below"):
        empty.make_workspace()
