"""Opaque page cursors: a list's name and the last id shown, so that one list's cursor is refused by another."""

from __future__ import annotations

import base64
import binascii

from crosstune.service.errors import CursorRefused


def encode(list_name: str, last: str) -> str:
    return base64.urlsafe_b64encode(f"{list_name}:{last}".encode()).decode().rstrip("=")


def decode(list_name: str, cursor: str | None) -> str | None:
    """The id after which the page begins, None for the first page; raises CursorRefused."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise CursorRefused from error
    name, _, last = text.partition(":")
    if name != list_name or not last:
        raise CursorRefused
    return last
