"""Public ids: `job_0198c1f2-…`, a typed prefix and a UUIDv7, so that ids sort by the time they were made.

Inside the database the tables that records and measurements refer to also have a small integer `key`; nobody outside
`crosstune.db` and the worker sees it.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from enum import StrEnum


class Prefix(StrEnum):
    """What an id names; the part before the first underscore."""

    PROJECT = "prj"
    API_KEY = "key"
    NETWORK = "net"
    TARGET = "tgt"
    DEVICE = "dev"
    WORKER = "wrk"
    WORKLOAD = "wkl"
    RECORD = "rec"
    JOB = "job"
    STEP = "stp"
    BUILD = "bld"
    ARTIFACT = "art"
    COST_MODEL = "mdl"


ID_LENGTH = 40
"""Three letters, an underscore and 36 characters of UUID."""

_lock = threading.Lock()
_last = 0
_COUNTER_BITS = 12


def uuid7() -> uuid.UUID:
    """A UUIDv7 (RFC 9562), strictly increasing within this process.

    48 bits of milliseconds, then 12 bits that count within one millisecond (and borrow from the next when they
    overflow), then 62 random bits.
    """
    global _last
    with _lock:
        _last = max(_last + 1, (time.time_ns() // 1_000_000) << _COUNTER_BITS)
        ordered = _last
    milliseconds, counter = ordered >> _COUNTER_BITS, ordered & ((1 << _COUNTER_BITS) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | secrets.randbits(62)
    return uuid.UUID(int=value)


def new_id(prefix: Prefix) -> str:
    """A new public id, greater than every id of its kind that this process made before."""
    return f"{prefix}_{uuid7()}"


def has_prefix(value: str, prefix: Prefix) -> bool:
    """True when `value` is a well-formed id of this kind (a lower-case UUIDv7 after the prefix)."""
    head, _, tail = value.partition("_")
    if head != prefix or len(value) != ID_LENGTH:
        return False
    try:
        parsed = uuid.UUID(tail)
    except ValueError:
        return False
    return parsed.version == 7 and str(parsed) == tail
