"""Damage to bags that decoders do not notice, and so the importer has to."""

from pathlib import Path

import numpy as np
import pytest

from robot_datasets.importers.rosbag2_images import COMPRESSED_TYPE, frame_of
from robot_datasets.importers.rosbag2_messages import MessageTypes, known_types
from robot_datasets.importers.rosbag2_storage import BagError, RawMessage, SqliteFile, Topic
from robot_datasets.testing.rosbag import BagSpec, write_bag


@pytest.mark.parametrize("missing", [1, 5000])
def test_a_database_cut_within_a_page_is_refused(missing: int, tmp_path: Path) -> None:
    """SQLite would fill the last page up with zeros and return other messages than were recorded."""
    file = next(write_bag(tmp_path / "bag", BagSpec(storage="sqlite3", duration=1)).glob("*.db3"))
    with SqliteFile(file) as whole:
        assert whole.topics
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - missing])
    with pytest.raises(BagError, match=r"no whole number of pages of 4096; it is cut short, copy it again"):
        SqliteFile(file)


def test_a_definition_with_other_fields_is_an_error_of_the_bag() -> None:
    """One letter of a stored definition has changed, so the message decodes but has no field `format`."""
    types = known_types().types
    stamp = types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
    image = types[COMPRESSED_TYPE](
        header=header, format="jpeg", data=np.frombuffer(b"\xff\xd8\xff", np.uint8)
    )
    message = RawMessage("/camera", 0, bytes(known_types().serialize_cdr(image, COMPRESSED_TYPE)))
    definition = "std_msgs/Header header\nstring {}\nuint8[] data\n"
    sound, changed = (
        MessageTypes({"/camera": Topic("/camera", COMPRESSED_TYPE, definition.format(name), "ros2msg", 1)})
        for name in ("format", "gormat")
    )
    assert (
        frame_of(sound.decode(message), COMPRESSED_TYPE, "/camera", depth=False, encoding="png")[:2]
        == b"\xff\xd8"
    )
    with pytest.raises(
        BagError, match=r"/camera: the bag defines sensor_msgs/msg/CompressedImage with other fields"
    ):
        frame_of(changed.decode(message), COMPRESSED_TYPE, "/camera", depth=False, encoding="png")
