"""A policy that looks, over real DDS: cameras raw and compressed, a forward position controller, a recording.

One run of real processes (the policy node is the fault drill's, whose chunks are a swing that never ends, so that there
is a motion to stop) is looked at by several tests: what the policy was given is what was published, to the bit;
the arm moves by single positions and comes to rest; the recording becomes a dataset without anybody's help.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from robot_datasets.features import STATE, Feature
from robot_datasets.image_codec import decode_frame
from robot_deploy.deployment import PRESETS, load_deployment
from robot_deploy.graph import Graph
from robot_deploy.nodes.environment import child_environment
from robot_deploy.recording.contract import WINDOW_TOPIC
from robot_deploy.recording.parity import checksum

PATIENCE_S = 60.0
SIZE = 32
PNG, RAW = "observation.images.png", "observation.images.raw"
PNG_TOPIC, RAW_TOPIC = "/camera/agentview/image_raw/compressed", "/camera/agentview/image_raw"
COMMANDS = "/arm_controller/commands"
LOOKS = {
    "policy": {
        "type": "regression",
        "network": {"type": "mlp", "width": 16, "n_blocks": 1, "expansion": 1, "step_embed_dim": 8},
        "image_encoder": {"type": "resnet"},
    }
}


@dataclass
class Run:
    """What was heard while the graph ran."""

    png: dict[int, bytes] = field(default_factory=dict)  # stamp [ns] -> frame
    raw: dict[int, np.ndarray] = field(default_factory=dict)  # stamp [ns] -> pixels
    windows: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    commands: list[np.ndarray] = field(default_factory=list)
    before: int = -1
    stopped: int = -1  # commands until the arm rested
    after_stop: int = -1
    measured: np.ndarray = field(default_factory=lambda: np.empty(0))
    audit: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    bag: Path = Path()


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, make_still: Callable[..., Path], lift_start: np.ndarray
) -> Path:
    """A tiny policy that reads joints, the tool's place, and one camera twice."""
    pytest.importorskip("robosuite", reason="the sim extra is not installed")
    from robot_sim.tasks.lift_joint import ACTION_FEATURE, FEATURES

    image = Feature(dtype="uint8", shape=(SIZE, SIZE, 3))
    observation = {STATE: FEATURES[STATE], PNG: image, RAW: image}
    folder = tmp_path_factory.mktemp("looks") / "checkpoint"
    return make_still(folder, LOOKS, observation, ACTION_FEATURE, lift_start, fps=20.0)


def deployment(file: Path) -> Path:
    """The demo with cameras and a forward controller; watchdogs that a busy machine does not set off."""
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    del config["streams"]["cube"], config["features"]["observation.environment_state"]
    for stream in config["streams"].values():
        stream |= {"max_age_ms": 5000.0, "max_gap_ms": 5000.0}
    image = {"kind": "image", "max_age_ms": 2500.0, "max_gap_ms": 6000.0, "min_contrast": 3.0}
    config["streams"] |= {
        "png": {**image, "topic": PNG_TOPIC},
        "raw": {**image, "topic": RAW_TOPIC, "transport": "raw"},
    }
    config["features"] |= {PNG: [{"source": "png"}], RAW: [{"source": "raw"}]}
    config["targets"] = [{"target": "forward_position", "topic": COMMANDS}]
    config["runtime"]["rules"] = {"max_deviation": 1.0}  # a busy machine's simulation lags behind
    config["runtime"]["max_action_speed"] = (
        None  # the swing goes on while a chunk is late, and then is far ahead
    )
    config["runtime"]["watchdogs"] = {
        "feedback_age_ms": 5000.0, "observation_patience_ms": 300.0, "inference_deadline_ms": 20_000.0,
        "stall_ms": 20_000.0, "period_factor": 500.0,
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Arm, policy node and recorder: drive, stop, start again, lose the cameras, end."""
    pytest.importorskip("rclpy", reason="rclpy is not installed", exc_type=ImportError)
    pytest.importorskip("mcap", reason="the extra 'ros' is not installed")
    from robot_deploy.nodes.isolation import own_domain
    from robot_sim.rendering import backend_works
    from robot_sim.system_libraries import loadable_backends
    from robot_sim.worker_environment import environment_variables

    if not any(backend_works(backend) for backend in loadable_backends()):
        pytest.skip("no off-screen OpenGL on this machine")
    folder = tmp_path_factory.mktemp("run")
    cell = deployment(folder / "cell.yaml")
    with own_domain() as domain:
        domain["ROS_PYTHON_CHECK_FIELDS"] = "1"
        with environment_variables(domain), Graph(domain, folder / "logs") as graph:
            return _drive(graph, cell, checkpoint, folder)


def _drive(graph: Graph, cell: Path, checkpoint: Path, folder: Path) -> Run:
    from robot_deploy.nodes.client import GraphClient

    arm = {"controller": "forward", "cameras": ["agentview"], "image_size": SIZE, "image_rate": 10.0}
    arm |= {"image_format": "png"}
    graph.start("fake_arm", "robot_deploy.nodes.fake_arm_node", arm)
    about = {"deployment": str(cell), "checkpoint": str(checkpoint)}
    graph.start("policy", "robot_deploy.nodes.drill_node", {**about, "executor_timeout_ms": 5000.0})
    graph.start("recorder", "robot_deploy.nodes.recorder_node", {**about, "folder": str(folder / "bags")})
    run = Run()
    with GraphClient("person") as client:
        _listen(client, run)
        assert client.change("/policy", "configure", timeout=2 * PATIENCE_S), graph.tail("policy")
        client.wait_for(lambda: bool(run.png and run.raw), PATIENCE_S, what="pictures")
        run.before = len(run.commands)
        client.trigger("/recorder/episode_start")
        client.wait_for(lambda: client.change("/policy", "activate"), PATIENCE_S, what="fresh observations")
        client.wait_for(lambda: len(run.commands) > 150 and len(run.windows) > 2, PATIENCE_S, what="commands")
        assert client.change("/policy", "deactivate")
        client.trigger("/recorder/episode_success")
        client.wait(0.3)
        run.stopped = len(run.commands)
        client.wait(0.5)
        run.after_stop = len(run.commands) - run.stopped
        run.measured = np.array(client.last["/joint_states"].position)
        client.last.pop("/fake_arm/audit", None)
        client.wait_for(lambda: "/fake_arm/audit" in client.last, PATIENCE_S, what="the audit")
        run.audit = json.loads(client.last["/fake_arm/audit"].data)
        client.wait_for(lambda: client.change("/policy", "activate"), PATIENCE_S, what="a second start")
        client.wait_for(lambda: client.last["/policy/state"].data == "autonomous", PATIENCE_S, what="work")
        _lose_cameras(client, run)
    graph.stop("recorder")
    graph.stop("policy")
    run.bag = next((folder / "bags").iterdir())
    return run


def _listen(client: Any, run: Run) -> None:
    from sensor_msgs.msg import CompressedImage, Image, JointState, TimeReference
    from std_msgs.msg import Float64MultiArray, String

    from robot_deploy.nodes.qos import EVENTS, LATCHED, SENSOR
    from robot_deploy.nodes.stamps import to_ns

    def png(message: Any) -> None:
        run.png[to_ns(message.header.stamp)] = message.data.tobytes()

    def raw(message: Any) -> None:
        pixels = np.frombuffer(message.data.tobytes(), np.uint8)
        run.raw[to_ns(message.header.stamp)] = pixels.reshape(message.height, message.width, 3)

    def window(message: Any) -> None:
        run.windows.append((to_ns(message.header.stamp), json.loads(message.source)))

    def command(message: Any) -> None:
        run.commands.append(np.array(message.data))

    node = client.node
    node.create_subscription(CompressedImage, PNG_TOPIC, png, EVENTS)
    node.create_subscription(Image, RAW_TOPIC, raw, EVENTS)
    node.create_subscription(TimeReference, WINDOW_TOPIC, window, EVENTS)
    node.create_subscription(Float64MultiArray, COMMANDS, command, EVENTS)
    client.follow(JointState, "/joint_states", SENSOR)
    client.follow(String, "/fake_arm/audit", EVENTS)
    client.follow(String, "/policy/state", LATCHED)


def _lose_cameras(client: Any, run: Run) -> None:
    """Both cameras fall silent; what the node says then."""
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import String

    from robot_deploy.nodes.qos import EVENTS

    client.follow(DiagnosticArray, "/diagnostics", EVENTS)
    faults = client.node.create_publisher(String, "/fake_arm/fault", EVENTS)
    client.wait_for(lambda: faults.get_subscription_count() > 0, PATIENCE_S, what="the arm")
    faults.publish(String(data="images_dropped"))
    client.wait_for(lambda: client.last["/policy/state"].data == "fault", PATIENCE_S, what="a fault")

    def told() -> bool:
        statuses = client.last["/diagnostics"].status if "/diagnostics" in client.last else []
        run.fault = next((s.message for s in statuses if s.name == "policy" and "observ" in s.message), "")
        return bool(run.fault)

    client.wait_for(told, PATIENCE_S, what="the reason")


def test_a_forward_controller_moves_the_arm_and_is_led_to_rest(run: Run):
    """Nothing before activation; from full motion in ever smaller steps to rest; then nothing more."""
    limits = load_deployment("demo").limits()
    assert run.before == 0
    assert run.after_stop == 0, "after the stop nothing is commanded"
    steps = np.abs(np.diff(np.stack(run.commands[: run.stopped]), axis=0)) / (limits.velocity * 0.01)
    assert np.isfinite(steps).all()
    assert steps.max() <= 1.6, "a late tick may add half a period to one, not more"
    assert steps[-40:].max() > 0.05, "it was in motion when it was stopped"
    assert steps[-1].max() < 0.1 * steps[-40:].max()
    assert run.audit["rejected"] == []
    assert run.audit["moving_ns"] > 0
    assert [run.audit["violations"][name] for name in ("position", "velocity", "acceleration")] == [0, 0, 0]


def test_the_arm_stands_where_the_last_command_sent_it(run: Run):
    """Silence is no stop for this controller, it keeps the last position: the arm is there, half a second later."""
    last = run.commands[run.stopped - 1]
    assert np.abs(last[:7] - run.measured[:7]).max() < 0.02


def test_the_policy_was_given_what_was_published(run: Run):
    """Every frame of every window is the last one before its step: PNG by its bytes, raw by its pixels."""
    stamps = sorted(run.png)
    assert sorted(run.raw) == stamps
    for stamp in stamps[:20]:
        np.testing.assert_array_equal(decode_frame(run.png[stamp]), run.raw[stamp])
    compared = 0
    for time_ns, sums in run.windows:
        due = [stamp for stamp in stamps if stamp <= time_ns]
        if not due or due[-1] == stamps[-1]:
            continue
        assert sums[f"encoded:{PNG}"] == zlib.crc32(run.png[due[-1]])
        assert sums[RAW] == checksum(run.raw[due[-1]])
        compared += 1
    assert compared >= 3


def test_pictures_that_stay_away_stop_the_arm(run: Run):
    """The fault names the camera and its age."""
    assert "png" in run.fault or "raw" in run.fault
    assert "stale" in run.fault


def test_the_recording_converts_by_itself(run: Run, tmp_path: Path):
    """``robot-policies convert BAG out.zarr``: no map is given, none is written by hand; the tool's place is there."""
    from robot_datasets.store import EpisodeStore
    from robot_sim.experts.lift_joint import tool_positions

    out = tmp_path / "out.zarr"
    done = subprocess.run(
        [sys.executable, "-m", "robot_policies", "convert", str(run.bag), str(out)],
        capture_output=True, text=True, timeout=120, env=child_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    store = EpisodeStore.open(out)
    assert list(store.episodes["success"]) == [True]
    assert store.fps == 20.0
    states = store.column(STATE)
    # Both are interpolated, which is not the same where a busy machine left a gap; test_recording.py compares bits.
    apart = np.abs(states[:, 8:] - tool_positions(states[:, :7].astype(np.float64)))
    assert np.median(apart) < 1e-3
    assert apart.max() < 0.03
    pixels = [store.images(name).decode(np.arange(store.n_steps)) for name in (PNG, RAW)]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    published = {checksum(frame) for frame in run.raw.values()}
    assert {
        checksum(frame.transpose(1, 2, 0) if frame.shape[0] == 3 else frame) for frame in pixels[1]
    } <= published
