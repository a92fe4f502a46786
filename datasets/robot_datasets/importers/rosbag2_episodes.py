"""Where the episodes of a bag begin and end: the whole bag, between two markers, or times given by the user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from robot_datasets.importers.base import Rejected
from robot_datasets.importers.rosbag2_bag import Bag
from robot_datasets.importers.rosbag2_map import BY_MARKER, BY_RANGE, MapEpisodes
from robot_datasets.importers.rosbag2_messages import MessageTypes, text
from robot_datasets.importers.rosbag2_storage import BagError
from robot_datasets.importers.rosbag2_streams import Span

_NS = 1_000_000_000


@dataclass(frozen=True)
class EpisodePlace:
    """An episode within its bag.

    Attributes:
        source_id: Name of the bag, and a number if it has several.
        span: Where.
        success: What a marker said; None if nothing did.
    """

    source_id: str
    span: Span
    success: bool | None = None


def find_episodes(bag: Bag, types: MessageTypes, rule: MapEpisodes) -> list[EpisodePlace | Rejected]:
    """Return the episodes of a bag in order of time, and those that were begun but never ended.

    Raises:
        BagError: The bag is empty, or has no marker topic.
    """
    whole = bag.time_span
    if whole is None:
        raise BagError("the bag holds no messages; nothing was recorded")
    if rule.per == BY_MARKER:
        return list(_between_markers(bag, types, rule, whole))
    if rule.per == BY_RANGE:
        return list(_given(bag, rule, whole))
    return [EpisodePlace(bag.name, Span(*whole))]


def _given(bag: Bag, rule: MapEpisodes, whole: tuple[int, int]) -> Iterator[EpisodePlace]:
    for number, (start, end) in enumerate(rule.ranges.get(bag.name, ())):
        first = whole[0] + round(start * _NS)
        last = min(whole[1], whole[0] + round(end * _NS))
        if first >= last:
            raise BagError(
                f"range {start:g} to {end:g} s lies behind the bag's end, after {(whole[1] - whole[0]) / _NS:.3f} s"
            )
        yield EpisodePlace(f"{bag.name}/{number:03d}", Span(first, last, whole=False))


def _between_markers(
    bag: Bag, types: MessageTypes, rule: MapEpisodes, whole: tuple[int, int]
) -> Iterator[EpisodePlace | Rejected]:
    if rule.topic not in bag.topics:
        raise BagError(f"there is no marker topic {rule.topic}; found {', '.join(bag.topics) or 'no topics'}")
    markers = sorted(
        ((m.time, text(types.decode(m), rule.field, rule.topic)) for m in bag.messages([rule.topic], *whole)),
        key=lambda marker: marker[0],
    )
    number, begun = 0, -1
    for time, value in [*markers, (whole[1], "")]:
        is_end = time == whole[1] and value == ""
        if begun >= 0 and (value in rule.start or is_end):
            why = "the bag ends" if is_end else "another one starts"
            yield Rejected(
                f"{bag.name}/{number:03d}", f"{why} before {rule.topic} says that this episode stops"
            )
            number, begun = number + 1, -1
        if value in rule.start:
            begun = time
        elif begun >= 0 and value in rule.stop:
            success = True if value in rule.success else False if value in rule.failure else None
            yield EpisodePlace(f"{bag.name}/{number:03d}", Span(begun, time, whole=False), success)
            number, begun = number + 1, -1
