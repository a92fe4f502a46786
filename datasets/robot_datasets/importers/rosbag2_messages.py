"""Messages of a bag: decoded from CDR by their own definitions, and numbers, texts and times taken out of them."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from robot_datasets.errors import one_line
from robot_datasets.importers.rosbag2_storage import BagError, RawMessage, Topic, install_hint

_MAX_SEQUENCE = 1 << 28
_TYPE_NAME = re.compile(r"^[A-Za-z]\w*(/[A-Za-z]\w*)+$", re.ASCII)
_FIELD_NAME = re.compile(r"^[A-Za-z]\w*$", re.ASCII)
_INDEXED = re.compile(r"^(\w+)\[(\d+)\]$")
_HEADER = "std_msgs/msg/Header"
_DAMAGE = (struct.error, ValueError, IndexError, AssertionError, OverflowError, MemoryError, TypeError)


@lru_cache(maxsize=1)
def known_types() -> Any:
    """Return the store of ROS 2's own types; it compiles a type's decoder once, so it is shared."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


class MessageTypes:
    """The message types of a bag: by the definitions in it, else by those of ROS 2."""

    def __init__(self, topics: Mapping[str, Topic]) -> None:
        """Keep the topics; definitions are read when a topic is first decoded."""
        try:
            from rosbags.serde.errors import SerdeError
            from rosbags.typesys.base import TypesysError
        except ModuleNotFoundError as error:
            raise install_hint("rosbags") from error
        self._damage = (SerdeError, TypesysError, KeyError, *_DAMAGE)
        self._topics = topics
        self._known = known_types()
        self._stores: dict[str, Any] = {}

    def decode(self, message: RawMessage) -> Any:
        """Return a message as an object with the fields of its type.

        Raises:
            BagError: Its type is unknown, or its bytes do not fit it.
        """
        kind = self._topics[message.topic].type
        store = self._store(message.topic)
        try:
            return store.deserialize_cdr(message.data, kind)
        except self._damage as error:
            found = self._decode_as_known(message, kind, store)
            if found is not None:
                return found
            raise BagError(
                f"{message.topic}: a message of {len(message.data)} bytes is no {kind} ({one_line(error)}); "
                "the file is damaged, copy it again"
            ) from error

    def _decode_as_known(self, message: RawMessage, kind: str, store: Any) -> Any:
        """Decode by ROS 2's own definition where the stored one is abridged or wrong; None if that fails too."""
        if store is self._known or kind not in self._known.fielddefs:
            return None
        try:
            found = self._known.deserialize_cdr(message.data, kind)
        except self._damage:
            return None
        self._stores[kind] = self._known
        return found

    def has_header(self, topic: str) -> bool:
        """Whether messages of a topic begin with a header, and so say when they were taken."""
        fields = self._store(topic).fielddefs[self._topics[topic].type][1]
        return bool(fields) and fields[0][1][1] == _HEADER

    def stamp(self, message: RawMessage) -> int:
        """Return the time in a message's header [ns], without decoding the rest.

        Raises:
            BagError: The message is too short, or its stamp was never set.
        """
        data = message.data
        if len(data) < 12:
            raise BagError(f"{message.topic}: a message of {len(data)} bytes has no header")
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
        if seconds == 0 and nanoseconds == 0:
            raise BagError(
                f"{message.topic}: the stamp in a header was never set; use the recorder's times, time: log"
            )
        return seconds * 1_000_000_000 + nanoseconds

    def _store(self, topic: str) -> Any:
        kind, definition = self._topics[topic].type, self._topics[topic].definition
        if kind not in self._stores:
            self._stores[kind] = self._from_definition(topic) if definition else self._known
        store = self._stores[kind]
        if kind not in store.fielddefs:
            raise BagError(
                f"{topic} is of type {kind}, which neither the bag nor ROS 2 defines; record it with a newer "
                "ros2 bag, which stores definitions"
            )
        return store

    def _from_definition(self, topic: str) -> Any:
        """Make a store of a topic's type; fall back on ROS 2's own definition if the stored one is unreadable."""
        described = self._topics[topic]
        try:
            return _compiled(described.type, described.encoding, described.definition)
        except (*self._damage, RecursionError) as error:
            if described.type in self._known.fielddefs:
                return self._known
            raise BagError(
                f"{topic}: the definition of {described.type} in the bag is unreadable: {error}"
            ) from error


@lru_cache(maxsize=256)
def _compiled(kind: str, encoding: str, definition: str) -> Any:
    """Make a store of one type and what it refers to; the bags of a recording repeat their definitions."""
    from rosbags.typesys import get_types_from_idl, get_types_from_msg
    from rosbags.typesys.store import Typestore

    types: Any = (
        get_types_from_idl(definition) if encoding == "ros2idl" else get_types_from_msg(definition, kind)
    )
    store = Typestore(max_sequence_length=_MAX_SEQUENCE)
    store.register(_checked(types))
    return store


def _checked(types: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of types and of what they refer to; constants are dropped.

    rosbags turns definitions into code. So every name in them has to be a mere name.
    """
    checked: dict[str, Any] = {}
    waiting = list(types)
    while waiting:
        name = waiting.pop()
        if name in checked:
            continue
        fields = (types[name] if name in types else known_types().fielddefs[name])[1]
        if not _TYPE_NAME.match(name) or not all(_FIELD_NAME.match(field) for field, _ in fields):
            raise ValueError(f"{name!r} has names that are none")
        checked[name] = ([], fields)
        waiting += [inner for _, description in fields for inner in _referred(description)]
    return checked


def numbers(message: Any, field: str, topic: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the numbers in a field, and what they are called.

    Args:
        message: A decoded message.
        field: Path such as ``pose.position`` or ``points[0].positions``; empty = the whole message.
        topic: For errors.

    Returns:
        (D,) float64, and D names: the path of each number within the field, or nothing for plain arrays.

    Raises:
        BagError: There is no such field, or it holds no numbers.
    """
    value = _walk(message, field, topic)
    found = list(_flatten(value, ""))
    if not found or any(array is None for _, array in found):
        raise BagError(f"{topic}: field '{field}' holds {_kind(value)}, expected numbers")
    names = tuple(name for name, _ in found)
    values = np.concatenate([np.atleast_1d(np.asarray(array, np.float64)) for _, array in found])
    return values, names if len(names) == len(values) and all(names) else ()


def text(message: Any, field: str, topic: str) -> str:
    """Return the text, number or flag in a field as text; flags are ``true`` and ``false``."""
    value = _walk(message, field, topic)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (str, int, float, np.number)):
        return str(value)
    raise BagError(f"{topic}: field '{field}' holds {_kind(value)}, expected a text, a number or a flag")


def by_joint(message: Any, field: str, joints: tuple[str, ...], topic: str) -> np.ndarray:
    """Return a field's numbers in the order of `joints`; the message names its own order, which may change.

    Raises:
        BagError: A joint is missing, or there are fewer numbers than names.
    """
    names = list(getattr(message, "name", None) or getattr(message, "joint_names", None) or ())
    values, _ = numbers(message, field, topic)
    if len(values) != len(names):
        raise BagError(
            f"{topic}: {len(values)} numbers in '{field}' for {len(names)} joints; expected one each"
        )
    place = {str(name): i for i, name in enumerate(names)}
    missing = [joint for joint in joints if joint not in place]
    if missing:
        found = ", ".join(place) or "none"
        raise BagError(f"{topic} has no joint {', '.join(missing)}; it names {found}")
    return values[[place[joint] for joint in joints]]


def _walk(message: Any, field: str, topic: str) -> Any:
    value = message
    for step in filter(None, field.split(".")):
        match = _INDEXED.match(step)
        name, index = (match[1], int(match[2])) if match else (step, None)
        if not dataclasses.is_dataclass(value) or not hasattr(value, name):
            known = (
                ", ".join(f.name for f in dataclasses.fields(value))
                if dataclasses.is_dataclass(value)
                else "none"
            )
            raise BagError(f"{topic}: no field '{name}' in '{field}'; there are {known}")
        value = getattr(value, name)
        if index is not None:
            try:
                value = value[index]
            except (IndexError, TypeError) as error:
                raise BagError(f"{topic}: '{step}' in '{field}' does not exist in a message") from error
    return value


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, number or array) of everything in a value; None stands for what is no number."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name != "header" and not field.name.startswith("__"):
                inner = f"{path}.{field.name}" if path else field.name
                yield from _flatten(getattr(value, field.name), inner)
    elif isinstance(value, (bool, int, float, np.bool_, np.number)):
        yield path, value
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        yield "", value
    elif isinstance(value, list) and value and all(dataclasses.is_dataclass(item) for item in value):
        for i, item in enumerate(value):
            yield from _flatten(item, f"{path}[{i}]")
    else:
        yield path, None


def _kind(value: Any) -> str:
    return (
        f"{len(value)} entries of text or nothing" if isinstance(value, (str, list)) else type(value).__name__
    )


def _referred(description: Any) -> list[str]:
    """Return the message types that a field's description refers to."""
    node, inner = description
    if node.name == "NAME":
        return [inner]
    return _referred(inner[0]) if node.name in ("ARRAY", "SEQUENCE") else []
