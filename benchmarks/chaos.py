"""Kills at random during real jobs, and what is left of them: a part of `python -m benchmarks.fleet`

An episode is a cluster of its own (benchmarks/cluster.py): two APIs behind one port, workers with a core each, Redis,
PostgreSQL. Small networks are submitted one after the other, each with an idempotency key and again until somebody
acknowledges it. Meanwhile, at random moments, an API or a worker dies (kill -9) and comes back, Redis dies or is
emptied, or all connections to PostgreSQL are cut. At the end every acknowledged job must have ended, no step may have
stored results of two attempts, and events must be numbered without a gap.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine, create_engine, select, text

from benchmarks.cluster import API, REDIS, WORKER, Cluster, cores, database
from crosstune import Client
from crosstune.db.engine import reading
from crosstune.db.repositories.jobs import FINAL_STATES
from crosstune.db.repositories.steps import MAX_ATTEMPTS, UNFINISHED, StepState
from crosstune.db.tables import Event, Job, Measurement, Step, Task
from crosstune.service.client import ApiError, ServiceUnreachable
from crosstune.service.schemas.jobs import Budget, JobIn, JobState

KILL_WORKER, KILL_API, KILL_REDIS, FLUSH_REDIS, CUT_POSTGRES = (
    *("worker killed", "API killed", "Redis killed"),
    *("Redis emptied", "PostgreSQL cut off"),
)
WEIGHTS = {KILL_WORKER: 4, KILL_API: 3, KILL_REDIS: 1, FLUSH_REDIS: 1, CUT_POSTGRES: 2}
PAUSE_S = (0.5, 4.0)
JOBS, TRIALS = 2, 48
"""Unfinished at once, and of each."""
END_S = 600.0
TOO_BUSY, SERVER_ERRORS = 429, 500


@dataclass(slots=True)
class Found:
    """`recoveries_s`: from a worker's death to another claim of the step that it held."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    recoveries_s: list[float] = field(default_factory=list)


def episode(seed: int, kills: int, network: Path) -> dict[str, Any]:
    with database() as url, tempfile.TemporaryDirectory(prefix="crosstune-chaos-") as folder:
        cluster = Cluster(Path(folder), url)
        engine = create_engine(url)
        try:
            with cluster.running(workers=cores(), apis=2):
                found = Episode(cluster, engine, random.Random(seed), network).run(kills)
            return {"seed": seed, **report(engine, found)}
        finally:
            engine.dispose()


class Episode:
    def __init__(self, cluster: Cluster, engine: Engine, chance: random.Random, network: Path) -> None:
        self._cluster, self._engine, self._chance, self._network = cluster, engine, chance, network
        self._found = Found()
        self._over = threading.Event()
        self._watchers: list[threading.Thread] = []

    def run(self, kills: int) -> Found:
        with self._client() as client:
            target = next(one for one in client.list_targets().items if len(one.devices) == cores())
            network = client.wait_network(client.upload_network(self._network).id)
        body = JobIn(network=network.id, target=target.id, budget=Budget(trials=TRIALS), whole_budget=True)
        pool = ThreadPoolExecutor(1)
        submitter = pool.submit(self._submit, body)
        while sum(self._found.kills.values()) < kills:
            time.sleep(self._chance.uniform(*PAUSE_S))
            kind = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if self._strike(kind):
                self._found.kills[kind] += 1
            if submitter.done():
                submitter.result()  # raises what stopped it
        self._over.set()
        submitter.result()
        for watcher in self._watchers:
            watcher.join()
        until_s = time.monotonic() + END_S
        while self._unfinished() and time.monotonic() < until_s:
            time.sleep(0.5)
        return self._found

    def _submit(self, body: JobIn) -> None:
        """Jobs one after the other, each until it is acknowledged; a seed of its own makes each a job of its own."""
        number = 0
        while not self._over.is_set():
            if len(self._unfinished()) >= JOBS:
                time.sleep(0.2)
                continue
            number += 1
            job = None
            while job is None:
                time.sleep(0.2)
                job = self._acknowledged(body.model_copy(update={"seed": number}), f"chaos-{number}")
            self._found.acknowledged.add(job)

    def _acknowledged(self, body: JobIn, key: str) -> str | None:
        try:
            with self._client() as client:
                return client.create_job(body, key=key).id
        except ServiceUnreachable:
            return None
        except ApiError as error:
            if error.status < SERVER_ERRORS and error.status != TOO_BUSY:
                raise
            return None

    def _client(self) -> Client:
        return Client(self._cluster.url)

    def _strike(self, kind: str) -> bool:
        """False where it would make a step poison, which is another promise."""
        strikes: dict[str, Callable[[], None]] = {
            KILL_API: self._kill_api,
            KILL_REDIS: self._kill_redis,
            FLUSH_REDIS: lambda: redis.Redis(port=self._cluster.redis_port).flushall() and None,
            CUT_POSTGRES: self._cut_postgres,
        }
        if kind == KILL_WORKER:
            return self._kill_worker()
        strikes[kind]()
        return True

    def _kill_worker(self) -> bool:
        number = self._chance.randrange(cores())
        with reading(self._engine) as connection:
            tries = connection.execute(select(Step.attempt - Step.released).where(Step.state.in_(UNFINISHED))).scalars()
            if max(tries.all(), default=0) >= MAX_ATTEMPTS:
                return False
            query = select(Step.id, Step.attempt).where(Step.state == StepState.RUNNING)
            held = {row.id: row.attempt for row in connection.execute(query)}
        self._cluster.kill(f"{WORKER}-{number}")
        died_s = time.monotonic()
        watcher = threading.Thread(target=self._watch, args=(held, died_s))
        watcher.start()
        self._watchers.append(watcher)
        self._cluster.start_worker(number)
        return True

    def _watch(self, held: dict[str, int], died_s: float) -> None:
        """Until each step that ran at the death has ended or is claimed again; the second is a recovery."""
        while held and time.monotonic() < died_s + END_S:
            with reading(self._engine) as connection:
                query = select(Step.id, Step.attempt, Step.state).where(Step.id.in_(list(held)))
                rows = list(connection.execute(query))
            for row in rows:
                if row.attempt > held[row.id]:
                    self._found.recoveries_s.append(time.monotonic() - died_s)
                if row.attempt > held[row.id] or row.state not in UNFINISHED:
                    del held[row.id]
            time.sleep(0.1)

    def _kill_api(self) -> None:
        number = self._chance.randrange(2)
        self._cluster.kill(f"{API}-{number}")
        self._cluster.start_api(number)

    def _kill_redis(self) -> None:
        self._cluster.kill(REDIS)
        time.sleep(self._chance.uniform(0.0, 5.0))
        self._cluster.start_redis()

    def _cut_postgres(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'crosstune'"
                )
            )

    def _unfinished(self) -> list[str]:
        with reading(self._engine) as connection:
            return list(connection.execute(select(Job.id).where(Job.state.not_in(FINAL_STATES))).scalars())


def report(engine: Engine, found: Found) -> dict[str, Any]:
    """What the database holds at the end, against what was promised."""
    with reading(engine) as connection:
        jobs = {row.id: row for row in connection.execute(select(Job.id, Job.state, Job.trials, Job.event_sequence))}
        steps = {row.key: row for row in connection.execute(select(Step.key, Step.attempt, Step.state, Step.released))}
        measured = connection.execute(select(Measurement.step_key, Measurement.attempt, Measurement.record_key)).all()
        trials = Counter[str]()
        for job_id, count in connection.execute(select(Task.job_id, Task.trials)):
            trials[job_id] += count
        events: dict[str, list[int]] = {}
        for job_id, sequence in connection.execute(select(Event.job_id, Event.sequence)):
            events.setdefault(job_id, []).append(sequence)
    ended = [job for job in jobs.values() if job.state in FINAL_STATES]
    foreign = sum(steps[row.step_key].attempt != row.attempt for row in measured if row.step_key is not None)
    miscounted = sum(trials[job.id] != job.trials for job in jobs.values())
    gaps = sum(sorted(events[job.id]) != list(range(1, job.event_sequence + 1)) for job in jobs.values())
    return {
        "kills": dict(found.kills),
        "acknowledged": len(found.acknowledged),
        "succeeded": sum(job.state == JobState.SUCCEEDED for job in ended),
        "lost": sum(one not in {job.id for job in ended} for one in found.acknowledged),
        "doubled": foreign + miscounted + gaps,
        "unacknowledged": len(set(jobs) - found.acknowledged),
        "steps": len(steps),
        "repeated": sum(row.attempt - row.released - 1 for row in steps.values()),
        "measurements": len(measured),
        "recoveries_s": sorted(found.recoveries_s),
    }
