"""Does the recorder lose anything? Two cameras and joint states over real DDS, counted message by message.

    python benchmarks/recorder.py --minutes 10           # then: what was published is in the bag, every message
    python benchmarks/recorder.py --minutes 0.5 --kill   # SIGKILL in the middle: how much is recovered
    python benchmarks/recorder.py --minutes 10 --offline # the same messages through queue and writer alone, without DDS

One process publishes (JPEG-sized frames at 30 Hz per camera, joint states at 100 Hz, each with its number), another one
is the recorder node. Exit status 1 if a message is missing, twice, or out of order.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

FRAME_BYTES = 25_000
PATIENCE_S = 180.0  # for processes to start on a busy machine
TOPICS = {
    "/camera_a/compressed": ("sensor_msgs/msg/CompressedImage", 30.0),
    "/camera_b/compressed": ("sensor_msgs/msg/CompressedImage", 30.0),
    "/joint_states": ("sensor_msgs/msg/JointState", 100.0),
}
ALL_TIME = (0, 1 << 63)


def publish(seconds: float, report: Path) -> None:
    """Publish numbered messages until the time is over; write how many, and when each left."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

    from robot_deploy.nodes.message_types import message_class
    from robot_deploy.nodes.stamps import from_ns

    rclpy.init()
    node = Node("sensors")
    profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=30, reliability=ReliabilityPolicy.RELIABLE)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, FRAME_BYTES, dtype=np.uint8).tobytes() for _ in range(16)]
    publishers, sent, last = {}, dict.fromkeys(TOPICS, 0), {}
    for topic, (kind, _) in TOPICS.items():
        publishers[topic] = node.create_publisher(message_class(kind), topic, profile)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and any(p.get_subscription_count() < 1 for p in publishers.values()):
        rclpy.spin_once(node, timeout_sec=0.1)
    time.sleep(1.5)  # the recorder looks for reliable publishers twice a second
    due = {topic: time.monotonic() for topic in TOPICS}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        topic = min(due, key=lambda name: due[name])
        wait = due[topic] - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        kind, rate = TOPICS[topic]
        message: Any = message_class(kind)()
        message.header.stamp = from_ns(time.time_ns())
        message.header.frame_id = str(sent[topic])
        if kind.endswith("CompressedImage"):
            message.format = "jpeg"
            message.data.frombytes(frames[sent[topic] % len(frames)])
        else:
            message.name = [f"joint{i}" for i in range(7)]
            message.position = [float(sent[topic])] * 7
        publishers[topic].publish(message)
        last[topic] = time.time_ns()
        sent[topic] += 1
        due[topic] += 1.0 / rate
    report.write_text(json.dumps({"sent": sent, "last_ns": last}))
    time.sleep(2.0)
    node.destroy_node()
    rclpy.shutdown()


def numbers_in(folder: Path) -> tuple[dict[str, list[int]], dict[str, int], list[str]]:
    """Numbers of the messages in a bag, when the last of each topic was received, and the bag's faults."""
    from robot_datasets.importers.rosbag2_bag import Bag, find_bags
    from robot_datasets.importers.rosbag2_messages import MessageTypes

    numbers: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    last: dict[str, int] = {}
    with Bag(find_bags(folder)[0]) as bag:
        types = MessageTypes(bag.topics)
        for message in bag.messages(list(TOPICS), *ALL_TIME):
            numbers[message.topic].append(int(types.decode(message).header.frame_id))
            last[message.topic] = message.time
        return numbers, last, bag.faults


def run(minutes: float, *, kill: bool, home: Path) -> int:
    """Record, stop or kill, and count."""
    from robot_deploy.nodes.environment import child_environment
    from robot_deploy.nodes.isolation import own_domain

    bags, report = home / "bags", home / "report.json"
    names = [f"{topic}:{kind}" for topic, (kind, _) in TOPICS.items()]
    with own_domain() as variables:
        environment = child_environment(variables)
        recorder = subprocess.Popen(
            [sys.executable, "-m", "robot_deploy.nodes.recorder_node", "--ros-args", "-p", f"folder:={bags}",
             "-p", f"topics:={json.dumps(names)}"],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        sensors = subprocess.Popen(
            [sys.executable, __file__, "--publish", str(60.0 * minutes), "--report", str(report)],
            env=environment,
        )
        killed_ns = 0
        try:
            if kill:
                deadline = time.monotonic() + PATIENCE_S
                while not list(bags.glob("*/*.mcap")) and time.monotonic() < deadline:
                    time.sleep(0.2)
                time.sleep(60.0 * minutes * 0.6)
                os.kill(recorder.pid, signal.SIGKILL)
                killed_ns = time.time_ns()
            sensors.wait(timeout=60.0 * minutes + 2 * PATIENCE_S)
            if not kill:
                recorder.send_signal(signal.SIGINT)
            _, said = recorder.communicate(timeout=PATIENCE_S)
        finally:
            for process in (recorder, sensors):
                if process.poll() is None:
                    process.kill()
    folder = next(bags.iterdir())
    return judge(folder, json.loads(report.read_text()), killed_ns, said or "", home)


def offline(minutes: float, home: Path) -> int:
    """What queue, thread and writer can do: the messages of some minutes as fast as they are taken, then counted."""
    from robot_datasets.importers.rosbag2_messages import known_types
    from robot_deploy.recording.bag_writer import BagWriter
    from robot_deploy.recording.recorder import Recorder, RecorderLimits

    types = known_types()
    stamp = types.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    random = np.random.default_rng(0)
    bag = BagWriter(home / "bags", about={})
    shapes: dict[str, list[bytes]] = {}
    for topic, (kind, _) in TOPICS.items():
        bag.add_topic(topic, kind)
        shapes[topic] = []
        for number in range(16):
            head = types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=f"{number:08d}")
            data = random.integers(0, 256, FRAME_BYTES, dtype=np.uint8)
            fields = {"format": "jpeg", "data": data}
            if kind.endswith("JointState"):
                seven = np.arange(7.0)
                fields = {
                    "name": [f"joint{i}" for i in range(7)],
                    "position": seven,
                    "velocity": seven,
                    "effort": seven,
                }
            message = types.types[kind](header=head, **fields)
            shapes[topic].append(bytes(types.serialize_cdr(message, kind)))
    recorder = Recorder(bag, RecorderLimits(min_free_mb=100))
    began, spent = time.perf_counter(), time.process_time()
    sent = dict.fromkeys(TOPICS, 0)
    for step in range(round(minutes * 60 * 100)):
        for topic, (_, rate) in TOPICS.items():
            while sent[topic] < (step + 1) * rate / 100:
                data = shapes[topic][sent[topic] % 16]
                while recorder.status().waiting_bytes + len(data) > 32e6:
                    time.sleep(0.002)
                recorder.offer(topic, data, log_ns=10**18 + step * 10**7)
                sent[topic] += 1
    status = recorder.close()
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    numbers_found = {topic: status.written[topic] for topic in TOPICS}
    share, speed = 100 * cpu / (60 * minutes), minutes * 60 / wall
    print(
        f"{minutes:g} minutes of messages, {status.bytes / 1e6:.0f} MB, in {wall:.1f} s ({speed:.0f} x real time), "
        f"{cpu:.1f} s CPU: {share:.1f} % of a core at real time; longest batch {1e3 * status.longest_write_s:.0f} ms; "
        f"written {numbers_found}, dropped {status.dropped or 'none'}"
    )
    return 0 if numbers_found == sent and not status.dropped else 1


def judge(folder: Path, published: dict[str, Any], killed_ns: int, said: str, home: Path) -> int:
    """Compare what was published with what is in the bag; return the exit status."""
    from robot_deploy.recording.recovery import recover

    if killed_ns:
        found = recover(folder, home / "recovered")
        print(
            f"killed; read {found.read_bytes} of {found.file_bytes} bytes; {found.ending or 'nothing cut off'}"
        )
        folder = home / "recovered"
    numbers, last, faults = numbers_in(folder)
    bad = list(faults)
    for topic, found_numbers in numbers.items():
        first = found_numbers[0] if found_numbers else 0
        whole = found_numbers == list(range(first, first + len(found_numbers)))
        wanted = published["sent"][topic]
        if not whole or first != 0 or (not killed_ns and len(found_numbers) != wanted):
            bad.append(f"{topic}: first {first}, in order {whole}, {len(found_numbers)} of {wanted}")
        lost = f"; up to {1e-9 * (killed_ns - last[topic]):.2f} s before the kill" if killed_ns else ""
        print(f"{topic}: {len(found_numbers)} of {wanted} messages{'' if killed_ns else ' published'}{lost}")
    size = sum(path.stat().st_size for path in folder.glob("*.mcap"))
    print(
        f"{size / 1e6:.1f} MB; recorder said: {said.strip().splitlines()[-1] if said.strip() else 'nothing'}"
    )
    print("FAILED: " + "; ".join(bad) if bad else "every message once, in order")
    return 1 if bad else 0


def main() -> int:
    """Run the benchmark, or one of its processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kill", action="store_true", help="SIGKILL the recorder after 60 %% of the time")
    parser.add_argument("--offline", action="store_true", help="without DDS, as fast as possible")
    parser.add_argument("--publish", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish is not None:
        publish(arguments.publish, arguments.report)
        return 0
    with tempfile.TemporaryDirectory() as home:
        if arguments.offline:
            return offline(arguments.minutes, Path(home))
        return run(arguments.minutes, kill=arguments.kill, home=Path(home))


if __name__ == "__main__":
    sys.exit(main())
