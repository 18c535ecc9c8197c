"""Wakes whoever watches a job when it has new events.

One task per process asks the database which of the watched jobs have new events; each watcher then reads from its own
place, so that a slow one loses nothing and holds up nobody. A process that watches nothing asks nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from crosstune.db.engine import reading
from crosstune.db.repositories import events

logger = logging.getLogger(__name__)


class Hub:
    def __init__(self, engine: Engine, poll_s: float) -> None:
        self._engine = engine
        self._poll_s = poll_s
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._seen: dict[str, int] = {}
        """Per watched job, the number of the latest event that its watchers were woken for."""
        self._task: asyncio.Task[None] | None = None
        self.stopped = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="event-poller")

    async def stop(self) -> None:
        self.stopped = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for watchers in self._watchers.values():
            for news in watchers:
                news.set()

    @contextmanager
    def watching(self, job_id: str, last_seen: int) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job has events after `last_seen`; clear it before reading them."""
        news = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(news)
        self._seen.setdefault(job_id, last_seen)
        try:
            yield news
        finally:
            watchers = self._watchers[job_id]
            watchers.discard(news)
            if not watchers:
                del self._watchers[job_id], self._seen[job_id]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            if self._watchers:
                try:
                    await self._poll()
                except SQLAlchemyError as error:
                    logger.warning("events cannot be read, trying again: %s", error)

    async def _poll(self) -> None:
        for row in await run_in_threadpool(self._new_events, dict(self._seen)):
            if row.sequence > self._seen.get(row.job_id, row.sequence):
                self._seen[row.job_id] = row.sequence
                for news in self._watchers[row.job_id]:
                    news.set()

    def _new_events(self, seen: dict[str, int]) -> list[events.EventRow]:
        with reading(self._engine) as connection:
            return events.after_each(connection, seen)
