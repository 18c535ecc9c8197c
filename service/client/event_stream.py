"""A job's event stream that outlives its connections."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import httpx

from crosstune.service.client.errors import ApiError, ServiceUnreachable, WaitedTooLong
from crosstune.service.client.sse import RawEvent, read_events
from crosstune.service.client.transport import BUSY_STATUSES, HEARTBEAT_TIMEOUT_S, Transport
from crosstune.service.schemas.jobs import FINAL_STATES, JobEvent, JobOut

RETRY_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
GIVE_UP_AFTER_S = 60.0
"""A service that restarts is back long before; one that is gone for so long is an error."""


class EventStream:
    """The events of the job at `path` above `after`, resumed by Last-Event-ID after every break.

    `deadline_s` is a time of `time.monotonic`; past it iterating raises WaitedTooLong.
    """

    def __init__(self, transport: Transport, path: str, after: int = 0, deadline_s: float | None = None) -> None:
        self._transport = transport
        self._path = path
        self._last = after
        self._deadline_s = deadline_s
        self._broken_since_s: float | None = None
        self._pause_s = RETRY_PAUSE_S

    def __iter__(self) -> Iterator[JobEvent]:
        """
        :raises ApiError: the service refused.
        :raises ServiceUnreachable: no connection could be made for GIVE_UP_AFTER_S.
        """
        while True:
            try:
                yield from self._one_connection()
                if self._is_over():
                    return
            except httpx.TransportError as error:
                self._judge_break(ServiceUnreachable(self._transport.base_url, str(error) or type(error).__name__))
            except ApiError as error:
                if error.status not in BUSY_STATUSES:
                    raise
                self._judge_break(error)
            except ServiceUnreachable as error:  # it ended gracefully and is not back yet
                self._judge_break(error)
            time.sleep(self._pause_s)
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)

    def _one_connection(self) -> Iterator[JobEvent]:
        headers = {"Accept": "text/event-stream"}
        if self._last:
            headers["Last-Event-ID"] = str(self._last)
        url = f"{self._path}/events"
        with self._transport.stream(url, headers=headers, read_timeout_s=self._read_timeout_s()) as response:
            self._broken_since_s = None
            for raw in read_events(self._in_time(response.iter_lines())):
                event = _event(raw)
                self._last, self._pause_s = event.sequence, RETRY_PAUSE_S
                yield event

    def _is_over(self) -> bool:
        """A stream that ended properly: the job has ended, or the service is shutting down and will be back."""
        job = JobOut.model_validate_json(self._transport.request("GET", self._path).content)
        return job.state in FINAL_STATES

    def _judge_break(self, error: ApiError | ServiceUnreachable) -> None:
        self._check_deadline()
        now_s = time.monotonic()
        self._broken_since_s = self._broken_since_s or now_s
        if now_s - self._broken_since_s > GIVE_UP_AFTER_S:
            raise error

    def _in_time(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines; heartbeats are lines too, so that a deadline is noticed while nothing happens."""
        for line in lines:
            self._check_deadline()
            yield line

    def _read_timeout_s(self) -> float:
        if self._deadline_s is None:
            return HEARTBEAT_TIMEOUT_S
        return min(HEARTBEAT_TIMEOUT_S, max(0.1, self._deadline_s - time.monotonic()))

    def _check_deadline(self) -> None:
        if self._deadline_s is not None and time.monotonic() > self._deadline_s:
            raise WaitedTooLong("the job has not ended in the time given; it goes on, `crosstune watch` follows it")


def _event(raw: RawEvent) -> JobEvent:
    """A snapshot stands for events that are no longer kept: its data is the job itself, its id the latest of them."""
    if raw.kind != "snapshot":
        return JobEvent.model_validate_json(raw.data)
    job = json.loads(raw.data)
    return JobEvent(sequence=int(raw.id or 0), kind=raw.kind, job=job["id"], at=datetime.now(UTC), data=job)
