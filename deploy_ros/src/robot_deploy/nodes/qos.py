"""Quality of service, by what a topic is for."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, depth: int, *, latched: bool = False) -> QoSProfile:
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )


SENSOR = _profile(ReliabilityPolicy.BEST_EFFORT, 5)
"""Joint states, poses, compressed images: the newest counts, and a reliable publisher can be read, too."""

COMMAND = _profile(ReliabilityPolicy.RELIABLE, 1)
"""Motion commands: every one replaces the one before."""

LATCHED = _profile(ReliabilityPolicy.RELIABLE, 1, latched=True)
"""States and the emergency stop: who comes late gets the last one."""

EVENTS = _profile(ReliabilityPolicy.RELIABLE, 20)
"""Diagnostics, events, requests of a person."""
