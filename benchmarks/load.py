"""How fast a service answers with a million records, and how many submits it takes: part of `benchmarks.fleet`

The records are synthetic, their number and shape are real (benchmarks/service.py): of fifty networks of 40 workloads,
of which each query asks for one, drawn evenly. Those of the first are stored as a service does, the others are copies.
Submits come from more clients than are admitted at once; what is not accepted must be 429 with Retry-After, and every
accepted job must be there afterwards.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from sqlalchemy import Connection, and_, func, insert, literal, select, text
from sqlalchemy.orm import aliased

from benchmarks.cluster import Cluster, cores, database
from benchmarks.service import TASKS, fill, made_network, made_workload
from crosstune import Client, __version__
from crosstune.db import migrate
from crosstune.db.engine import is_postgresql, opened, reading, retrying, transaction
from crosstune.db.ids import Prefix
from crosstune.db.repositories import devices, networks, targets, workers
from crosstune.db.tables import Base, Measurement, Record
from crosstune.service.embedded import embedded_service

NETWORKS, RECORDS = 50, 20_000
"""Of each network."""
QUICK_NETWORKS = 2
QUERIES, WARM_UP = 400, 10
SUBMITTERS, SUBMIT_S, QUICK_S = 128, 20.0, 3.0
ACCEPTED, COME_BACK = 201, 429


@contextmanager
def service(url: str, folder: Path) -> Iterator[str]:
    """The address of an API without a worker on the database."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"CROSSTUNE_DATABASE_URL": url, "CROSSTUNE_EMBEDDED_WORKER": "false"}
    with patch.dict(os.environ, settings), embedded_service(folder) as address:
        yield address


def queried_sqlite(folder: Path, quick: bool) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "crosstune.db"
    path.unlink(missing_ok=True)
    return queried(f"sqlite:///{path}", folder, quick)


def queried_postgres(folder: Path, quick: bool) -> dict[str, Any]:
    with database() as url:
        return queried(url, folder, quick)


def queried(url: str, folder: Path, quick: bool) -> dict[str, Any]:
    """Milliseconds of each query for a network's best schedules, from the client."""
    began_s = time.monotonic()
    count = QUICK_NETWORKS if quick else NETWORKS
    target, first = fill(url, RECORDS, "network 0")
    there = [first, *(copied(url, first, number) for number in range(1, count))]
    with opened(url) as engine, transaction(engine) as connection:
        connection.execute(text("ANALYZE"))  # as PostgreSQL does by itself, sooner or later
    records = RECORDS * count
    facts = {
        "records": records,
        "filled_s": time.monotonic() - began_s,
        "bytes_per_record": size_bytes(url) / records,
    }
    chance, found = random.Random(0), []
    with service(url, folder) as address, Client(address) as client:
        for _ in range(QUERIES + WARM_UP):
            started_s = time.perf_counter()
            answer = client.best_schedules(target, network=chance.choice(there))
            found.append(1e3 * (time.perf_counter() - started_s))
            if len(answer.schedules) != TASKS or any(one.label != "measured" for one in answer.schedules):
                raise SystemExit(f"a wrong answer: {len(answer.schedules)} schedules")
    queries_ms = found[WARM_UP:]
    return {**facts, "queries": QUERIES, "median_ms": median(queries_ms), "p95_ms": quantiles(queries_ms, n=20)[-1]}


def copied(url: str, network: str, number: int) -> str:
    """The id of another network with workloads of its own, whose records and measurements are those of `network`."""
    name = f"network {number}"

    def work(connection: Connection) -> str:
        keys = [made_workload(connection, name, task) for task in range(TASKS)]
        for task, key in zip(networks.tasks_of(connection, network), keys, strict=True):
            copy_records(connection, task.workload.key, key, number)
        return made_network(connection, name, [(key, 1) for key in keys])

    with opened(url) as engine:
        return retrying(engine, work)


def copy_records(connection: Connection, workload_key: int, to: int, number: int) -> None:
    first, rest = len(Prefix.RECORD) + 1, len(Prefix.RECORD) + 5
    # Ids begin with the time, which is much the same for all: three digits of it tell the copies apart.
    its_id = func.substr(Record.id, 1, first).concat(f"{number:03d}").concat(func.substr(Record.id, rest))
    copy_rows(connection, Record, {"id": its_id, "workload_key": literal(to)}, Record.workload_key == workload_key)
    copy = aliased(Record)
    same = and_(copy.target_key == Record.target_key, copy.schedule_sha256 == Record.schedule_sha256)
    of_it = and_(Record.key == Measurement.record_key, Record.workload_key == workload_key)
    copy_rows(connection, Measurement, {"record_key": copy.key}, and_(of_it, copy.workload_key == to, same))


def copy_rows(connection: Connection, table: type[Base], own: dict[str, Any], where: Any) -> None:
    """Rows of the table once more, with other values in the columns of `own`, and keys of their own."""
    columns = [column for column in table.__table__.columns if column.name != "key"]
    found = select(*(own.get(column.name, column) for column in columns)).where(where)
    connection.execute(insert(table).from_select([column.name for column in columns], found))


def size_bytes(url: str) -> int:
    """Of the whole database: records, measurements, indices and what little else there is."""
    with opened(url) as engine, reading(engine) as connection:
        if is_postgresql(connection):
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
        pages = text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return int(connection.execute(pages).scalar_one())


def submitted(folder: Path, quick: bool) -> dict[str, Any]:
    """Answers by status while many clients submit at once to as many APIs as there are cores, on PostgreSQL; jobs that
    were accepted and are not there."""
    seconds = QUICK_S if quick else SUBMIT_S
    folder.mkdir(parents=True, exist_ok=True)
    with database() as url:
        cluster = Cluster(folder, url)
        with cluster.running(workers=0, apis=cores()):
            target, network = fill(url, TASKS, "network")
            serve(url, target)
            body = json.dumps({"network": network, "target": target, "budget": {"trials": 100}})
            began_s = time.monotonic()
            with ThreadPoolExecutor(SUBMITTERS) as pool:
                parts = list(pool.map(lambda _: submit(cluster.url, body, began_s + seconds), range(SUBMITTERS)))
            took_s = time.monotonic() - began_s
            statuses: Counter[str] = Counter()
            accepted: set[str] = set()
            for counts, ids in parts:
                statuses += counts
                accepted |= ids
            with Client(cluster.url) as client:
                there = {job.id for job in client.collect(client.list_jobs, len(accepted) + 1000)}
    return {
        "clients": SUBMITTERS,
        "seconds": took_s,
        "statuses": dict(statuses),
        "accepted": len(accepted),
        "lost": len(accepted - there),
    }


def serve(url: str, target: str) -> None:
    """Let the target have a device and a worker that was heard of a moment ago: what most submits find."""

    def work(connection: Connection) -> None:
        workers.register(connection, host="bench", pid=1, version=__version__, schema=migrate.head())
        device = devices.register(connection, name="bench", kind="local", host="bench")
        devices.stand_for(connection, device.key, targets.get(connection, target).key)

    with opened(url) as engine:
        retrying(engine, work)


def submit(address: str, body: str, until_s: float) -> tuple[Counter[str], set[str]]:
    """One client's answers by status (429 without Retry-After is one of its own), and the ids of its jobs. It comes
    back when it was told to."""
    statuses: Counter[str] = Counter()
    ids: set[str] = set()
    where = urlsplit(address)
    # The plainest client there is: those of this benchmark share the cores with what they ask.
    connection = HTTPConnection(where.hostname or "", where.port, timeout=60.0)
    while time.monotonic() < until_s:
        connection.request("POST", "/v1/jobs", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        told, wait_s = answer.read(), answer.headers.get("retry-after")
        if answer.status == ACCEPTED:
            ids.add(json.loads(told)["id"])
        come_back = answer.status == COME_BACK
        statuses[f"{COME_BACK} without Retry-After" if come_back and wait_s is None else str(answer.status)] += 1
        if come_back:
            time.sleep(float(wait_s or 1.0))
    connection.close()
    return statuses, ids
