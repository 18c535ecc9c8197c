"""A worker: claims steps that this machine can do, runs them in children, and finishes them once.

Whatever dies (a child, this process, the connection to the database) leaves a step whose lease passes; the sweeper of
any worker announces it again. What was stored before stays, what was not stored is done again.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from dramatiq import Broker
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from crosstune import __version__
from crosstune.db import migrate
from crosstune.db.engine import retrying
from crosstune.db.errors import StaleClaim
from crosstune.db.repositories import builds, cost_models, devices, jobs, steps, workers
from crosstune.db.repositories.cost_models import CostModelStatus
from crosstune.db.repositories.devices import DeviceLease, DeviceState
from crosstune.db.repositories.step_values import TRACEPARENT
from crosstune.db.repositories.steps import Claim, Runnable, StepKind
from crosstune.service import drift, logs, retention, room, tracing, work
from crosstune.service.heart import Heart, Held, Stop
from crosstune.service.queue import Dispatcher, make_brokers
from crosstune.service.settings import Settings
from crosstune.service.steps import (
    building,
    calibrating,
    exploring,
    importing,
    judging,
    loading,
    notifying,
    rechecking,
    retraining,
    tuning,
)
from crosstune.service.steps.context import Execute, Identity, Stopped, TryAgain, WorkerContext
from crosstune.service.store import Store
from crosstune.tuner.contracts import ChildFailed, CrosstuneError
from crosstune.tuner.orphans import kill_orphans

logger = logging.getLogger(__name__)

EXECUTORS: dict[str, Execute] = {
    StepKind.IMPORT: importing.execute,
    StepKind.ROUND: tuning.execute,
    StepKind.BUILD_NETWORK: building.execute,
    StepKind.CALIBRATE: calibrating.execute,
    StepKind.EXPLORE: exploring.execute,
    StepKind.LOAD_RECORDS: loading.execute,
    StepKind.RETRAIN: retraining.execute,
    StepKind.JUDGE: judging.execute,
    StepKind.NOTIFY: notifying.execute,
    StepKind.RECHECK: rechecking.execute,
}
RETRY_S = 1.0
"""Pause before a step whose child died, or that failed unexpectedly, is tried again (three times in all)."""
BUSY_LOOKS = 5
"""A worker that goes from round to round looks so many times less often than one that waits, in the transaction that
ends a round; by itself only when its rounds are twice as long as that."""
LOCK = "worker.lock"
TIDY_S = 600.0
"""Between two looks for what has been kept long enough."""
THREADS = 1
"""One step at a time on a machine: a second would disturb what the first one measures. Training has a thread of its
own, since it stands still while the machine measures."""


class DeviceElsewhere(CrosstuneError):
    """The name belongs to the device of another machine."""


class FolderInUse(CrosstuneError):
    """Another worker works in this data folder; it would take our children for orphans, and we its."""


class Worker:
    """`device`: the name of the device that this machine, or the part of it that the process may use, is; the host's
    unless given. Raises FolderInUse."""

    def __init__(self, settings: Settings, engine: Engine, device: str | None = None) -> None:
        self._settings, self._engine = settings, engine
        self._lock = _only_worker(settings.data_dir)
        identity = retrying(engine, lambda connection: _register(connection, device))
        folder = settings.data_dir / "children"
        folder.mkdir(parents=True, exist_ok=True)
        kill_orphans(folder)
        _remove_leftovers(settings.data_dir, folder)
        heart = Heart(engine, identity.worker_id, identity.owner, settings.lease_s)
        store = Store(settings.store_dir)
        self.context = WorkerContext(settings, engine, store, heart, identity, folder, self._take_next)
        self._ended, self._look = threading.Event(), threading.Event()
        self._serving: list[str] | None = None
        """Queues whose steps are taken now, as of the last look; None before the first."""
        self._looked_s = -math.inf
        self._offers: list[Runnable] = []
        """What a look found for the hands that train, to be announced once its transaction is committed."""
        self._hands = [
            Hands(make_brokers(settings.redis_url), self.run_step, queue, freed=self._look.set)
            for queue in (work.GENERAL_QUEUE, work.TRAINING_QUEUE)
        ]
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)

    def start(self) -> None:
        self.context.heart.start()
        for hands in self._hands:
            hands.dispatcher.start()
        self._sweeper.start()

    def stop(self) -> None:
        """Stop gracefully: running work is cut short, stored as far as it is complete, and the rest given back."""
        self._ended.set()
        self._look.set()
        self._sweeper.join()
        self.context.heart.ask_all_to_stop(Stop.SHUTDOWN)
        for hands in self._hands:
            hands.dispatcher.stop()
        self.context.heart.stop()
        self.context.close()
        retrying(self._engine, lambda connection: workers.stop(connection, self.context.identity.worker_id))
        self._lock.close()

    @property
    def drained(self) -> bool:
        """It was asked to take nothing more, and is done with what it had."""
        return self.context.heart.draining and not any(hands.busy for hands in self._hands)

    def run_step(self, step_id: str) -> None:
        """Claim a step and do it, and those that follow; returns quietly when somebody else has it. Called by a hand
        that is free."""
        if self._ended.is_set() or self.context.heart.draining:
            return
        claim = retrying(self._engine, lambda connection: self._claim(connection, step_id))
        while claim is not None:
            claim = self._follow(claim)

    def _follow(self, claim: Claim) -> Claim | None:
        """Do a claimed step; returns the one that the transaction which ended it has claimed."""
        traced = tracing.span(
            claim.kind, claim.input.get(TRACEPARENT), step=claim.step_id, job=claim.job_id, attempt=claim.attempt
        )
        with self.context.heart.holding(claim) as held, logs.about(step=claim.step_id, job=claim.job_id), traced:
            started_s = time.monotonic()
            logger.info("%s begins, attempt %d", claim.kind, claim.attempt)
            try:
                if self._do(claim, held):
                    self._announce_offers()
                    return held.next
            except StaleClaim as stale:
                logger.warning("step %s was taken over: %s", claim.step_id, stale)
            finally:
                logger.info("%s ended after %.2f s", claim.kind, time.monotonic() - started_s)
            self._give_back(held.leases)
            return None

    def _give_back(self, leases: Sequence[DeviceLease]) -> None:
        """What a step held that did not end as it should."""
        for lease in leases:
            retrying(self._engine, partial(devices.release, lease=lease))

    def _take_next(self, connection: Connection) -> Claim | None:
        """What a free hand would be offered, at once; the fence of the step that has just ended guards it too. Now and
        then it looks around as well."""
        if self._ended.is_set() or self.context.heart.draining or self._serving is None:
            return None
        if self._due(BUSY_LOOKS):
            if room.lacking(self._settings) is not None:
                return None
            self._offers = self._look_around(connection)
        found = steps.runnable(connection, THREADS, self._measured_here())
        return self._claim(connection, found[0].step_id) if found else None

    def _announce_offers(self) -> None:
        offers, self._offers = self._offers, []
        _, training = self._hands
        for step in offers:
            training.dispatcher.announce(step.step_id, step.queue)

    def _claim(self, connection: Connection, step_id: str) -> Claim | None:
        return steps.claim(
            connection, step_id, self.context.identity.owner, self._settings.lease_s, queues=self._serving
        )

    def _do(self, claim: Claim, held: Held) -> bool:
        """True when it ended as it should, and said what comes next."""
        try:
            EXECUTORS[claim.kind](self.context, claim, held)
        except StaleClaim:
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs to this step and is stored with it
            self._end(claim, held, error)
            return False
        return held.ended

    def _end(self, claim: Claim, held: Held, error: Exception) -> None:
        """Store why a step ended without results: given back, cancelled, tried again or failed for good."""
        if held.stop is Stop.LOST:
            return
        paused = held.stop is None and isinstance(error, Stopped)
        if held.stop is Stop.SHUTDOWN or paused:
            self._looked_s = -math.inf  # what this machine serves may have changed
            retrying(self._engine, lambda connection: steps.release(connection, claim))
            return
        if held.stop is Stop.CANCELLED:
            retrying(self._engine, lambda connection: _cancel(connection, claim))
            return
        expected = isinstance(error, CrosstuneError | TryAgain)
        logger.log(
            logging.WARNING if expected else logging.ERROR,
            "step %s (%s) failed: %s",
            claim.step_id,
            claim.kind,
            error,
            exc_info=None if expected else error,
        )
        for_good = isinstance(error, CrosstuneError) and not isinstance(error, ChildFailed)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        wait_s = error.retry_s if isinstance(error, TryAgain) else RETRY_S
        retry_s = None if for_good else wait_s
        retrying(self._engine, lambda connection: steps.fail(connection, claim, text, retry_s))

    def _sweep(self) -> None:
        """Announce what waits for this machine, again and again, and at once when a step has ended."""
        tidy_at_s = time.monotonic()
        while not self._ended.is_set():
            try:
                self.look()
                if time.monotonic() >= tidy_at_s:
                    retention.tidy(self._engine, self.context.store, self._settings)
                    retrying(self._engine, self._retrain_where_needed)
                    retrying(self._engine, self._recheck)
                    tidy_at_s = time.monotonic() + TIDY_S
            except DBAPIError as error:
                logger.warning("the database cannot be asked for work: %s", error)
            self._look.wait(self._settings.sweep_s)
            self._look.clear()

    def _retrain_where_needed(self, connection: Connection) -> None:
        version = drift.retrain_where_needed(connection, self._settings)
        if version is not None:
            logger.warning("the cost model has drifted; %s is trained", version)

    def _recheck(self, connection: Connection) -> None:
        rechecking.schedule(connection, self._settings, self.context.identity.device_key)

    def look(self) -> None:
        """Announce what waits and this worker could do."""
        measuring, _ = self._hands
        due = self._due(2 * BUSY_LOOKS if measuring.busy else 1)
        if self.context.heart.draining or (measuring.busy and not due):
            return
        if due:
            lacking = room.lacking(self._settings)
            if lacking is not None:
                logger.warning("nothing is begun: %s", lacking)
                self._serving = []
                return
        for step in retrying(self._engine, lambda connection: self._found(connection, due)):
            measuring.dispatcher.announce(step.step_id, step.queue)
        self._announce_offers()

    def _due(self, looks: int) -> bool:
        """Is the last look around so many looks ago?"""
        return time.monotonic() >= self._looked_s + looks * self._settings.sweep_s

    def _found(self, connection: Connection, due: bool) -> list[Runnable]:
        """What the hands that measure could do at once, if they are free; the rest is for other workers."""
        measuring, _ = self._hands
        if due:  # not after every step: many workers do this
            self._offers = self._look_around(connection)
        return [] if measuring.busy else steps.runnable(connection, THREADS, self._measured_here())

    def _look_around(self, connection: Connection) -> list[Runnable]:
        """End what others left behind, see what this machine serves now; returns what the hands that train could do."""
        self._looked_s = time.monotonic()
        steps.sweep(connection)
        self._serving = self._queues(connection)
        _, training = self._hands
        return [] if training.busy else steps.runnable(connection, THREADS, [work.TRAINING_QUEUE])

    def _measured_here(self) -> list[str]:
        return [queue for queue in self._serving or [] if queue != work.TRAINING_QUEUE]

    def _queues(self, connection: Connection) -> list[str]:
        """What this worker serves now: general work, and its device's targets, those registered since included.

        A paused device measures nothing, so its work waits in the table and not in this worker's only thread.
        """
        identity = self.context.identity
        active = devices.get(connection, identity.device_id).state == DeviceState.ACTIVE
        targets = devices.targets_of(connection, identity.device_key) if active else []
        return [work.GENERAL_QUEUE, work.TRAINING_QUEUE, *map(work.target_queue, targets)]


class Hands:
    """Who does one step at a time, of some queues, whichever broker brings it; `freed` is called after each."""

    def __init__(
        self, brokers: Sequence[Broker], run_step: Callable[[str], None], queue: str, freed: Callable[[], None]
    ) -> None:
        self._run_step, self._freed = run_step, freed
        self._free = threading.Lock()
        self.dispatcher = Dispatcher(brokers, self._run, THREADS, queue)

    @property
    def busy(self) -> bool:
        return self._free.locked()

    def _run(self, step_id: str) -> None:
        with self._free:
            self._run_step(step_id)
        self._freed()


def _register(connection: Connection, device: str | None) -> Identity:
    """A worker that has a part of a machine counts as a host of its own, whose only device is that part."""
    host = socket.gethostname() if device is None else f"{socket.gethostname()}/{device}"
    worker = workers.register(connection, host=host, pid=os.getpid(), version=__version__, schema=migrate.head())
    row = devices.register(connection, name=device or host, kind="local", host=host)
    if row.host != host:
        raise DeviceElsewhere(f"the device {row.name} is that of {row.host}; give this one another name")
    return Identity(worker.id, worker.key, worker.id, host, row.id, row.key)


def _only_worker(folder: Path) -> IO[str]:
    """A file that is locked for as long as it is open."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise FolderInUse(f"a worker works in {folder} already; stop it, or give another --data-dir") from error
    return file


def _remove_leftovers(data_dir: Path, children: Path) -> None:
    """What a killed worker of this folder left behind; a folder has one worker at a time."""
    shutil.rmtree(data_dir / "building", ignore_errors=True)
    for path in children.glob("expected-*.npz"):
        path.unlink(missing_ok=True)


def _cancel(connection: Connection, claim: Claim) -> None:
    steps.finish(connection, claim, steps.StepState.CANCELLED)
    if claim.kind == StepKind.BUILD_NETWORK:
        builds.fail(connection, claim.input["build_id"], "the job was cancelled")
    if claim.kind == StepKind.RETRAIN:
        cost_models.end(connection, claim.input["model_id"], CostModelStatus.CANCELLED, "it was cancelled")
    if claim.job_id is not None:
        jobs.settle_cancelled(connection, claim.job_id)


def start_embedded(settings: Settings, engine: Engine) -> Worker:
    """A worker inside the service's process."""
    started_s = time.monotonic()
    worker = Worker(settings, engine)
    worker.start()
    logger.info("worker %s ready after %.2f s", worker.context.identity.worker_id, time.monotonic() - started_s)
    return worker
