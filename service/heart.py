"""Keeps what this worker holds: renews its leases, and tells the work when it is to stop.

One thread, one statement per beat for all steps and one for all devices. The work itself runs in child processes, so
nothing that TVM does can stop the beat.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from crosstune.db.engine import retrying
from crosstune.db.repositories import devices, steps, workers
from crosstune.db.repositories.devices import DeviceLease
from crosstune.db.repositories.steps import Claim

logger = logging.getLogger(__name__)

BEATS_PER_LEASE = 3


class Stop(StrEnum):
    """Why the work of a claim is to stop."""

    CANCELLED = "cancelled"
    LOST = "lost"
    SHUTDOWN = "shutdown"


class Held:
    """A claimed step while its work runs; `on_stop` callbacks cut short what cannot look at `should_stop`."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.stop: Stop | None = None
        self.leases: list[DeviceLease] = []
        """Devices that the transaction that ends the step gives back."""
        self.ended = False
        """That transaction has done so; what it claimed in the same breath is `next`."""
        self.next: Claim | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def should_stop(self) -> bool:
        return self.stop is not None

    def ask_to_stop(self, why: Stop) -> None:
        with self._lock:
            if self.stop is not None:
                return
            self.stop = why
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @contextmanager
    def on_stop(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` when the work is to stop while the block runs (at once when it is already)."""
        with self._lock:
            stopped = self.stop is not None
            self._callbacks.append(callback)
        if stopped:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


class Heart:
    def __init__(self, engine: Engine, worker_id: str, owner: str, lease_s: float) -> None:
        self.draining = False
        self._engine, self._worker_id, self._owner, self._lease_s = engine, worker_id, owner, lease_s
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._devices: dict[str, DeviceLease] = {}
        self._all_stop: Stop | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[Held]:
        held = Held(claim)
        with self._lock:
            self._held[claim.step_id] = held
            all_stop = self._all_stop
        if all_stop is not None:
            held.ask_to_stop(all_stop)
        try:
            yield held
        finally:
            with self._lock:
                del self._held[claim.step_id]

    @contextmanager
    def holding_device(self, lease: DeviceLease) -> Iterator[None]:
        with self._lock:
            self._devices[lease.device_id] = lease
        try:
            yield
        finally:
            with self._lock:
                del self._devices[lease.device_id]

    def ask_all_to_stop(self, why: Stop) -> None:
        """Also those that begin from now on."""
        with self._lock:
            self._all_stop = why
            held = list(self._held.values())
        for one in held:
            one.ask_to_stop(why)

    def beat(self) -> None:
        """Renew everything once; raises the database's error when it cannot be reached."""
        with self._lock:
            held, leases = dict(self._held), list(self._devices.values())

        def renew(connection: Connection) -> tuple[steps.Beat, bool]:
            draining = workers.beat(connection, self._worker_id)
            devices.renew(connection, self._owner, self._lease_s, leases)
            claims = [one.claim for one in held.values()]
            return steps.beat(connection, self._owner, self._lease_s, claims), draining

        beat, self.draining = retrying(self._engine, renew)
        for step_id, one in held.items():
            if step_id not in beat.held:
                one.ask_to_stop(Stop.LOST)
            elif step_id in beat.cancelled:
                one.ask_to_stop(Stop.CANCELLED)

    def _run(self) -> None:
        # Cancelling must be noticed within a second, so beats come more often than the leases alone need.
        pause_s = min(self._lease_s / BEATS_PER_LEASE, 0.8)
        while not self._ended.wait(pause_s):
            try:
                self.beat()
            except DBAPIError as error:
                # The leases run on; when the database stays away longer, others take over and the fence holds.
                logger.warning("heartbeat failed: %s", error)
