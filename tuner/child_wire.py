"""Length-prefixed JSON between a parent and its child: the parent never evaluates what a child sends.

A message is eight bytes of big-endian length and that many bytes of UTF-8 JSON.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

LARGEST_MESSAGE_BYTES = 512 * 2**20
HEADER = struct.Struct("!Q")


class MessageTooLarge(ValueError):
    """A message beyond LARGEST_MESSAGE_BYTES: such data belongs into a file of the scratch folder."""


def send(channel: socket.socket, value: Any, deadline_s: float | None = None) -> None:
    """Write one message; TimeoutError when it is not taken before `deadline_s` (time.monotonic)."""
    body = json.dumps(value).encode()
    if len(body) > LARGEST_MESSAGE_BYTES:
        raise MessageTooLarge(f"a message of {len(body)} bytes; the largest is {LARGEST_MESSAGE_BYTES}")
    _limit(channel, deadline_s)
    channel.sendall(HEADER.pack(len(body)) + body)


def receive(channel: socket.socket, deadline_s: float | None = None) -> Any:
    """Read one message; EOFError when the other side is gone, TimeoutError after `deadline_s` (time.monotonic)."""
    (size,) = HEADER.unpack(_exactly(channel, HEADER.size, deadline_s))
    if size > LARGEST_MESSAGE_BYTES:
        raise MessageTooLarge(f"a message of {size} bytes; the largest is {LARGEST_MESSAGE_BYTES}")
    return json.loads(_exactly(channel, size, deadline_s))


def _exactly(channel: socket.socket, size: int, deadline_s: float | None) -> bytes:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        _limit(channel, deadline_s)
        count = channel.recv_into(view[at:], min(size - at, 2**20))
        if count == 0:
            raise EOFError("the other side closed the channel")
        at += count
    return bytes(data)


def _limit(channel: socket.socket, deadline_s: float | None) -> None:
    if deadline_s is None:
        channel.settimeout(None)
        return
    left = deadline_s - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    channel.settimeout(left)
