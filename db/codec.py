"""How hashes and large JSON values are stored: 32 raw bytes, and zlib-compressed UTF-8."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any


def digest(hexadecimal: str) -> bytes:
    """The 32 bytes of a sha256 written in hexadecimal; ValueError for anything else."""
    value = bytes.fromhex(hexadecimal)
    if len(value) != 32:
        raise ValueError(f"a sha256 has 64 hexadecimal digits, this has {len(hexadecimal)}")
    return value


def digest_or_none(hexadecimal: str | None) -> bytes | None:
    return None if hexadecimal is None else digest(hexadecimal)


def hex_or_none(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def json_sha256(value: Any) -> bytes:
    """sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).digest()


def pack_text(text: str) -> bytes:
    return zlib.compress(text.encode())


def unpack_text(packed: bytes) -> str:
    return zlib.decompress(packed).decode()


def pack_json(value: Any) -> bytes:
    return pack_text(json.dumps(value, separators=(",", ":")))


def unpack_json(packed: bytes) -> Any:
    return json.loads(unpack_text(packed))
