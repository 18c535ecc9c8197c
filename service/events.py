"""Live events of jobs as server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from crosstune.service import jobs
from crosstune.service.deps import ServicesDep
from crosstune.service.errors import EventIdRefused
from crosstune.service.principal import Principal, Reader
from crosstune.service.routes.common import JobPath
from crosstune.service.services import Services

BATCH = 200
"""Events read at once."""


class Watch:
    """One caller's stream of one job's events, from after number `last_seen` on."""

    def __init__(self, services: Services, caller: Principal, job_id: str, last_seen: int) -> None:
        self.services, self.caller, self.job_id, self.last_seen = services, caller, job_id, last_seen

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Yield events until the job has ended and nothing is left to say, or the service stops."""
        with self.services.hub.watching(self.job_id, self.last_seen) as news:
            while not self.services.hub.stopped:
                news.clear()
                part = await run_in_threadpool(
                    jobs.events_after, self.services, self.caller, self.job_id, self.last_seen, BATCH
                )
                if part.snapshot is not None:
                    self.last_seen = part.snapshot_sequence
                    yield ServerSentEvent(data=part.snapshot, event="snapshot", id=str(self.last_seen))
                for event in part.events:
                    self.last_seen = event.sequence
                    yield ServerSentEvent(data=event, event=event.kind, id=str(event.sequence))
                if part.over:
                    return
                if not part.events and part.snapshot is None:
                    await news.wait()


def watch(
    caller: Reader,
    services: ServicesDep,
    job: JobPath,
    last_event_id: Annotated[str | None, Header(description="`id` of the last event seen.")] = None,
) -> Watch:
    """Look the job up before the stream begins, so that an unknown one is a problem and not an empty stream."""
    if last_event_id is not None and not re.fullmatch(r"[0-9]{1,18}", last_event_id):
        raise EventIdRefused(last_event_id)
    jobs.show(services, caller, job)
    return Watch(services, caller, job, int(last_event_id or 0))
