"""A worker: claims steps that this machine can do, runs them in children, and finishes them once.

Whatever dies (a child, this process, the connection to the database) leaves a step whose lease passes; the sweeper of
any worker announces it again. What was stored before stays, what was not stored is done again.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from crosstune import __version__
from crosstune.db import migrate
from crosstune.db.engine import reading, retrying
from crosstune.db.errors import StaleClaim
from crosstune.db.repositories import builds, cost_models, devices, events, idempotency, jobs, steps, workers
from crosstune.db.repositories.cost_models import CostModelStatus
from crosstune.db.repositories.devices import DeviceState
from crosstune.db.repositories.steps import Claim, StepKind
from crosstune.service import drift, work
from crosstune.service.heart import Heart, Held, Stop
from crosstune.service.queue import Dispatcher, make_broker
from crosstune.service.settings import Settings
from crosstune.service.steps import building, calibrating, exploring, importing, loading, retraining, tuning
from crosstune.service.steps.context import Execute, Identity, Stopped, WorkerContext
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
}
RETRY_S = 1.0
"""Pause before a step whose child died, or that failed unexpectedly, is tried again (three times in all)."""
ANNOUNCED_AT_ONCE = 4
TIDY_S = 600.0
"""Between two looks for what has been kept long enough."""
THREADS = 1
"""One step at a time on a machine: a second would disturb what the first one measures. Training has a thread of its
own, since it stands still while the machine measures."""


class Worker:
    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self._engine = settings, engine
        identity = retrying(engine, self._register)
        folder = settings.data_dir / "children"
        folder.mkdir(parents=True, exist_ok=True)
        kill_orphans(folder)
        _remove_leftovers(settings.data_dir, folder)
        heart = Heart(engine, identity.worker_id, identity.owner, settings.lease_s)
        self.context = WorkerContext(settings, engine, Store(settings.data_dir), heart, identity, folder)
        self._dispatcher = Dispatcher(make_broker(settings.redis_url), self.run_step, THREADS)
        self._training = Dispatcher(make_broker(settings.redis_url), self.run_step, THREADS, work.TRAINING_QUEUE)
        self._ended, self._look = threading.Event(), threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)

    def start(self) -> None:
        self.context.heart.start()
        self._dispatcher.start()
        self._training.start()
        self._sweeper.start()

    def stop(self) -> None:
        """Stop gracefully: running work is cut short, stored as far as it is complete, and the rest given back."""
        self._ended.set()
        self._look.set()
        self._sweeper.join()
        self.context.heart.ask_all_to_stop(Stop.SHUTDOWN)
        self._dispatcher.stop()
        self._training.stop()
        self.context.heart.stop()
        self.context.close()
        retrying(self._engine, lambda connection: workers.stop(connection, self.context.identity.worker_id))

    def run_step(self, step_id: str) -> None:
        """Claim a step and do it; returns quietly when somebody else has it."""
        identity, lease_s = self.context.identity, self._settings.lease_s
        if self._ended.is_set():
            return
        claim = retrying(self._engine, lambda connection: steps.claim(connection, step_id, identity.owner, lease_s))
        if claim is None:
            return
        with self.context.heart.holding(claim) as held:
            try:
                self._do(claim, held)
            except StaleClaim as stale:
                logger.warning("step %s was taken over: %s", claim.step_id, stale)
        self._look.set()

    def _do(self, claim: Claim, held: Held) -> None:
        try:
            EXECUTORS[claim.kind](self.context, claim, held)
        except StaleClaim:
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs to this step and is stored with it
            self._end(claim, held, error)

    def _end(self, claim: Claim, held: Held, error: Exception) -> None:
        """Store why a step ended without results: given back, cancelled, tried again or failed for good."""
        if held.stop is Stop.LOST:
            return
        paused = held.stop is None and isinstance(error, Stopped)
        if held.stop is Stop.SHUTDOWN or paused:
            retrying(self._engine, lambda connection: steps.release(connection, claim))
            return
        if held.stop is Stop.CANCELLED:
            retrying(self._engine, lambda connection: _cancel(connection, claim))
            return
        expected = isinstance(error, CrosstuneError)
        logger.log(
            logging.WARNING if expected else logging.ERROR,
            "step %s (%s) failed: %s",
            claim.step_id,
            claim.kind,
            error,
            exc_info=None if expected else error,
        )
        for_good = isinstance(error, CrosstuneError) and not isinstance(error, ChildFailed)
        text = str(error) if isinstance(error, CrosstuneError) else f"{type(error).__name__}: {error}"
        retry_s = None if for_good else RETRY_S
        retrying(self._engine, lambda connection: steps.fail(connection, claim, text, retry_s))

    def _register(self, connection: Connection) -> Identity:
        host = socket.gethostname()
        worker = workers.register(connection, host=host, pid=os.getpid(), version=__version__, schema=migrate.head())
        device = devices.register(connection, name=host, kind="local", host=host)
        return Identity(worker.id, worker.key, worker.id, host, device.id, device.key)

    def _sweep(self) -> None:
        """Announce what waits for this machine, again and again, and at once when a step has ended."""
        tidy_at_s = time.monotonic()
        while not self._ended.is_set():
            try:
                self._announce()
                if time.monotonic() >= tidy_at_s:
                    retrying(self._engine, _tidy)
                    retrying(self._engine, self._retrain_where_needed)
                    tidy_at_s = time.monotonic() + TIDY_S
            except DBAPIError as error:
                logger.warning("the database cannot be asked for work: %s", error)
            self._look.wait(self._settings.sweep_s)
            self._look.clear()

    def _retrain_where_needed(self, connection: Connection) -> None:
        version = drift.retrain_where_needed(connection, self._settings)
        if version is not None:
            logger.warning("the cost model has drifted; %s is trained", version)

    def _announce(self) -> None:
        if self.context.heart.draining:
            return
        retrying(self._engine, steps.sweep)
        queues = self._queues()
        found = retrying(self._engine, lambda connection: steps.runnable(connection, ANNOUNCED_AT_ONCE, queues))
        for step in found:
            dispatcher = self._training if step.queue == work.TRAINING_QUEUE else self._dispatcher
            dispatcher.announce(step.step_id, step.queue)

    def _queues(self) -> list[str]:
        """What this worker serves now: general work, and its device's targets, those registered since included.

        A paused device measures nothing, so its work waits in the table and not in this worker's only thread.
        """
        identity = self.context.identity
        with reading(self._engine) as connection:
            active = devices.get(connection, identity.device_id).state == DeviceState.ACTIVE
            targets = devices.targets_of(connection, identity.device_key) if active else []
        return [work.GENERAL_QUEUE, work.TRAINING_QUEUE, *map(work.target_queue, targets)]


def _remove_leftovers(data_dir: Path, children: Path) -> None:
    """What a killed worker of this folder left behind; a folder has one worker at a time."""
    shutil.rmtree(data_dir / "building", ignore_errors=True)
    for path in children.glob("expected-*.npz"):
        path.unlink(missing_ok=True)


def _tidy(connection: Connection) -> None:
    """Forget idempotency keys and events that have been kept as long as was promised."""
    idempotency.prune(connection)
    events.prune(connection, time.time() - events.KEEP_S)


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
