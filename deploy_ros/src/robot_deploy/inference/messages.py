"""What the two processes say to each other: one JSON object per message, of bounded size, over a socket pair.

``SOCK_SEQPACKET`` keeps messages apart and tells the end of the other process at once. Nothing is pickled.
"""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_BYTES = 256 * 1024


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a message.

    Raises:
        OSError: The other process is gone.
        ValueError: The message is too long.
    """
    data = json.dumps(message, allow_nan=False).encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"message of {len(data)} bytes, at most {MAX_BYTES}")
    connection.sendall(data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next message, or None if the other process is gone.

    Raises:
        ValueError: What came is no JSON object.
    """
    try:
        data = connection.recv(MAX_BYTES)
    except ConnectionError:
        return None
    if not data:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError(f"expected a JSON object, got {type(message).__name__}")
    return message
