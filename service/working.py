"""`crosstune worker`: one process that does steps until it is told to stop, or is drained and has nothing in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crosstune.db.engine import opened
from crosstune.service import database, targets
from crosstune.service.settings import Settings
from crosstune.service.worker import Worker

DRAINED_POLL_S = 0.5


def work(settings: Settings, device: str | None, on_ready: Callable[[str], None]) -> None:
    """Work until SIGINT or SIGTERM, or until drained; `on_ready` gets the worker's id once it takes steps.

    Its device stands for the machine's own target and for all others that it can measure.

    :raises DatabaseRefused: the database does not answer, or its tables are not this version's.
    :raises FolderInUse: another worker works in this data folder.
    """
    database.prepare(settings)
    stopped = threading.Event()
    with database.told(settings), opened(settings.database_url) as engine, on_signals(stopped.set):
        worker = Worker(settings, engine, device)
        worker.start()
        try:
            targets.stand_for_all(engine, worker.context.machine, worker.context.identity.device_id)
            on_ready(worker.context.identity.worker_id)
            while not stopped.wait(DRAINED_POLL_S) and not worker.drained:
                pass
        finally:
            worker.stop()


@contextmanager
def on_signals(call: Callable[[], object]) -> Iterator[None]:
    """SIGINT and SIGTERM do `call`, and nothing else, while the block runs."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: call()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
