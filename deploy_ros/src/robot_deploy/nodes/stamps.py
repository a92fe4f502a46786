"""Times of message headers as integer nanoseconds, and back."""

from __future__ import annotations

from builtin_interfaces.msg import Time

_SECOND = 1_000_000_000  # ns


def to_ns(stamp: Time) -> int:
    """Return a header's stamp [ns]."""
    return stamp.sec * _SECOND + stamp.nanosec


def from_ns(time_ns: int) -> Time:
    """Return the stamp of a time [ns], 0 or later."""
    seconds, rest = divmod(time_ns, _SECOND)
    return Time(sec=seconds, nanosec=rest)
