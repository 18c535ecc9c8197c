"""A reader of `text/event-stream` (WHATWG HTML, section 9.2.6): lines in, events out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One dispatched event; `id` is the last one seen, as the standard wants it."""

    id: str | None
    kind: str
    data: str


def read_events(lines: Iterable[str]) -> Iterator[RawEvent]:
    """The events in a stream of lines without their ends; an event cut off before its blank line is dropped."""
    last_id: str | None = None
    kind, data = "", list[str]()
    for line in lines:
        if line == "":
            if data:
                yield RawEvent(last_id, kind or "message", "\n".join(data))
            kind, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            kind = value
        elif field == "id" and "\0" not in value:
            last_id = value
