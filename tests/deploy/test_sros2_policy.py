"""The SROS2 policy allows what the nodes do, and nothing more: compared with the topics and services of real nodes."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from robot_deploy.deployment import PRESETS

FILE = Path(__file__).parents[2] / "deploy_ros" / "config" / "sros2" / "policy.xml"
NODES = ("policy", "recorder", "intervention", "tracker", "twin")
WRIST = "/camera/wrist/image_raw/compressed"
ONLY_SIMULATED = {("subscribe", "/clock")}
PATIENCE_S = 20.0
Rights = set[tuple[str, str]]


def allowed() -> dict[str, Rights]:
    """Node -> (what, full name) that the file allows; every enclave holds one node, or its rights would be others'."""
    found: dict[str, Rights] = {}
    for enclave in ElementTree.parse(FILE).getroot().iter("enclave"):
        (profile,) = enclave.iter("profile")
        node = profile.attrib["node"]
        assert enclave.attrib["path"] == f"/robot_deploy/{node}"
        assert profile.attrib["ns"] == "/"
        rights: Rights = set()
        for group in profile:
            ((what, verdict),) = group.attrib.items()
            assert verdict == "ALLOW"
            rights |= {(what, (item.text or "").replace("~", f"/{node}", 1)) for item in group}
        found[node] = rights
    return found


def used(node: Any) -> Rights:
    """(what, full name) of everything that a node has in the graph."""
    about = (node.get_name(), node.get_namespace())
    rights: Rights = set()
    for what, ask in (
        ("publish", node.get_publisher_names_and_types_by_node),
        ("subscribe", node.get_subscriber_names_and_types_by_node),
        ("reply", node.get_service_names_and_types_by_node),
        ("request", node.get_client_names_and_types_by_node),
    ):
        rights |= {(what, name) for name, _ in ask(*about)}
    return rights


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The deployment that the file is written for: the demo's arm, a wrist camera, a dead man's switch."""
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["streams"]["wrist"] = {"kind": "image", "topic": WRIST}
    config["deadman"] = {"topic": "/deadman"}
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture
def build(
    ros_domain: dict[str, str], cell: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Any]]:
    """Makes a node by name, and closes it at the end."""
    del ros_domain
    import rclpy
    from rclpy.context import Context
    from rclpy.parameter import Parameter

    context = Context()
    rclpy.init(context=context)
    made: list[Any] = []

    def build(name: str) -> Any:
        kind, values = _kind(name, cell, tmp_path)
        if name == "twin":
            values["checkpoint"] = str(request.getfixturevalue("push_checkpoint"))
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        made.append(kind(context=context, parameter_overrides=overrides))
        if name == "policy":
            assert made[-1].trigger_configure().name == "SUCCESS"
        return made[-1]

    yield build
    for node in made:
        node.close()
        node.destroy_node()
    context.try_shutdown()


def _kind(name: str, cell: Path, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Class and parameters of a node."""
    if name == "policy":
        from robot_deploy.nodes.policy_node import PolicyNode

        return PolicyNode, {"deployment": str(cell), "mode": "tracker"}  # without a policy, with all topics
    if name == "recorder":
        from robot_deploy.nodes.recorder_node import RecorderNode

        return RecorderNode, {"deployment": str(cell), "folder": str(folder / "bags")}
    if name == "intervention":
        from robot_deploy.nodes.intervention_node import InterventionNode

        return InterventionNode, {"deployment": str(cell), "buttons": ["take_over"]}
    if name == "tracker":
        from robot_deploy.nodes.tracker_node import TrackerNode

        return TrackerNode, {"deployment": str(cell)}
    from robot_deploy.nodes.twin_node import TwinNode

    return TwinNode, {"cell": "tabletop_push_t"}


@pytest.mark.parametrize("name", NODES)
def test_a_node_may_do_what_it_does_and_no_more(name: str, build: Callable[[str], Any]):
    """Publishers, subscriptions, services and clients of the real node are those of its profile."""
    node, right = build(name), allowed()[name]
    until = time.monotonic() + PATIENCE_S
    while (found := used(node)) != right - ONLY_SIMULATED and time.monotonic() < until:
        time.sleep(0.05)
    assert found - right == set(), "the node would be refused"
    assert right - found <= ONLY_SIMULATED, "nobody needs this"


def test_every_node_of_the_file_is_known():
    """No profile is left over from a node that is gone."""
    assert set(allowed()) == set(NODES)
