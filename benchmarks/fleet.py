"""What a service of many workers does: `python -m benchmarks.fleet`

On databases of its own in the local PostgreSQL (CROSSTUNE_TEST_POSTGRES_URL):

- `scaling`: 1 to 32 workers, each a process with a device of its own, take rounds whose search and measuring are a
  sleep of the length that real ones have. Everything else is real. Counted are the rounds that end in a minute, once
  every worker has work: for one job of 40 tasks, and for 32 jobs. Efficiency is rounds per worker and second over
  those of one worker alone; transactions are those that PostgreSQL counted.
- `chaos`: 200 kills during real jobs, in eight episodes (benchmarks/chaos.py).
- `load`: queries among a million records, on both databases, and submits from many clients (benchmarks/load.py).

Finished parts are kept, so a broken run goes on; `--only` does one of the three. It takes about an hour and a half,
and all but the chaos needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text

from benchmarks import chaos, load, report
from benchmarks.cluster import announcement, database
from benchmarks.networks import tiny
from benchmarks.report import Claim
from benchmarks.service import TASKS, made_network, made_workload
from crosstune.db import migrate
from crosstune.db.engine import create_engine, reading, retrying
from crosstune.db.repositories import jobs, targets
from crosstune.db.repositories.steps import StepState
from crosstune.db.tables import Step
from crosstune.service import jobs as service_jobs
from crosstune.tuner.contracts import TargetSpec

WORKERS, QUICK_WORKERS = (1, 2, 8, 32), (1, 4)
COUNTED_S, QUICK_S = 60.0, 10.0
ROUND_S, QUICK_ROUND_S = (5.0, 8.0), (0.8, 1.3)
"""From and to; a round of SqueezeNet took 5 to 8 s in the demo's job."""
EPISODES, KILLS = 8, 25
TARGET = "sleeping"
ROUND = Step.workload_key.is_not(None)
"""A job's first step only plans."""
ONE_JOB, MANY_JOBS = "one_job", "many_jobs"
JOBS = {ONE_JOB: 1, MANY_JOBS: 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few workers, some seconds; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished parts of an earlier run")
    parser.add_argument("--only", choices=("scaling", "chaos", "load"), help="these parts; the others as they are kept")
    options = parser.parse_args()
    folder = report.kept_folder("fleet", options.quick, options.fresh)
    chosen = parts(folder, options.quick)
    for name, work in chosen.items():
        if options.only in (None, name.partition("-")[0]) and not kept(folder, name).exists():
            kept(folder, name).write_text(json.dumps(work()))
            print(name, kept(folder, name).read_text(), flush=True)
    found = {name: json.loads(kept(folder, name).read_text()) for name in chosen if kept(folder, name).exists()}
    path = report.write("fleet", "python -m benchmarks.fleet", claims(found), found, 1, options.quick)
    print(path)


def parts(folder: Path, quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """By name; what comes before the first `-` is what `--only` names."""
    counts = QUICK_WORKERS if quick else WORKERS
    scaling = {
        f"scaling-{kind}-{count}": partial(scaled, kind, count, folder, quick) for kind in JOBS for count in counts
    }
    network = tiny(folder / "tiny.onnx")
    episodes = range(1 if quick else EPISODES)
    shaken = {f"chaos-{seed}": partial(chaos.episode, seed, 3 if quick else KILLS, network) for seed in episodes}
    loaded = {
        "load-sqlite": partial(load.queried_sqlite, folder / "sqlite", quick),
        "load-postgres": partial(load.queried_postgres, folder / "postgres", quick),
        "load-submits": partial(load.submitted, folder / "submits", quick),
    }
    return {**scaling, **shaken, **loaded}


def kept(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def scaled(kind: str, count: int, folder: Path, quick: bool) -> dict[str, Any]:
    """Rounds that end in the counted time, and the transactions that they took."""
    counted_s, round_s = (QUICK_S, QUICK_ROUND_S) if quick else (COUNTED_S, ROUND_S)
    with database() as url:
        migrate.upgrade(url)
        engine = create_engine(url)
        fill(engine, JOBS[kind])
        with workers(count, url, folder / "workers", round_s):
            wait_for_work(engine, count, 10 * round_s[1] + 60)
            before = Counted.now(engine)
            time.sleep(counted_s)
            found = Counted.now(engine) - before
            rate = rounds_per_s(engine, time.time() - counted_s)
        engine.dispose()
    return {
        "jobs": kind,
        "workers": count,
        "round_s": list(round_s),
        "seconds": counted_s,
        **asdict(found),
        "rounds_per_s": rate,
        "transactions_per_round": found.transactions_per_round,
    }


def rounds_per_s(engine: Engine, since: float) -> float:
    """From the first end of a round since then (UTC seconds) to the last."""
    with reading(engine) as connection:
        query = select(Step.ended_at).where(Step.state == StepState.DONE, ROUND, Step.ended_at >= since)
        ends_s = sorted(connection.execute(query).scalars())
    return (len(ends_s) - 1) / (ends_s[-1] - ends_s[0])


@dataclass(frozen=True, slots=True)
class Counted:
    """Since the database was made. `transactions` are those that PostgreSQL counted, `beats` the renewals of leases
    among them: each writes the worker's own row, which nothing else does while it works."""

    rounds: int
    transactions: int
    beats: int

    @classmethod
    def now(cls, engine: Engine) -> Counted:
        with reading(engine) as connection:
            done = select(func.count()).where(Step.state == StepState.DONE, ROUND)
            committed = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
            beats = text("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'workers'")
            return cls(*(int(connection.execute(query).scalar_one()) for query in (done, committed, beats)))

    def __sub__(self, other: Counted) -> Counted:
        return Counted(self.rounds - other.rounds, self.transactions - other.transactions, self.beats - other.beats)

    @property
    def transactions_per_round(self) -> float:
        """Besides the renewals. Half of what is counted are the pings before each transaction, which find dead
        connections: no more than a `SELECT 1`."""
        return (self.transactions / 2 - self.beats) / max(1, self.rounds)


def fill(engine: Engine, count: int) -> None:
    """A target, and `count` jobs without an end, each for a network of TASKS workloads of its own."""

    def work(connection: Connection) -> None:
        spec = TargetSpec("llvm", "x86-64", 1, TARGET)
        target, _ = targets.register(connection, identity=spec.identity, name=TARGET, spec=spec.to_json())
        for number in range(count):
            keys = [made_workload(connection, f"network {number}", task) for task in range(TASKS)]
            network = made_network(connection, f"network {number}", [(key, 1 + key % 3) for key in keys])
            job = jobs.create(
                connection,
                project_id="default",
                network_id=network,
                target_key=target.key,
                budget_trials=None,
                budget_s=1e9,
                whole_budget=True,
            )
            service_jobs.start_job(connection, job)

    retrying(engine, work)


@contextmanager
def workers(count: int, url: str, folder: Path, round_s: tuple[float, float]) -> Iterator[None]:
    processes = []
    try:
        for number in range(count):
            own = folder / str(number)
            own.mkdir(parents=True, exist_ok=True)
            environment = {"CROSSTUNE_DATABASE_URL": url, "CROSSTUNE_DATA_DIR": str(own), "CROSSTUNE_RANKER": "random"}
            command = [sys.executable, "-m", "benchmarks.sleeping_worker"]
            command += [f"device-{number}", *map(str, round_s), TARGET]
            with (own / "log").open("wb") as log:
                processes.append(
                    subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=log)
                )
        for process in processes:
            if announcement(process) is None:
                raise SystemExit(f"a worker did not start; see {folder}")
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def wait_for_work(engine: Engine, count: int, seconds: float) -> None:
    """Until as many rounds run at once as there are workers."""
    until_s = time.monotonic() + seconds
    while running(engine) < count:
        if time.monotonic() > until_s:
            print(f"only {running(engine)} of {count} workers have work", flush=True)
            return
        time.sleep(0.2)


def running(engine: Engine) -> int:
    with reading(engine) as connection:
        query = select(func.count()).where(Step.state == StepState.RUNNING, ROUND)
        return int(connection.execute(query).scalar_one())


def claims(found: dict[str, dict[str, Any]]) -> list[Claim]:
    """Of what is there; the value of what is not is null."""
    rows = [each for name, each in found.items() if name.startswith("scaling")]
    shaken = [each for name, each in found.items() if name.startswith("chaos")]
    kills = sum(sum(each["kills"].values()) for each in shaken)
    recoveries_s = sorted(second for each in shaken for second in each["recoveries_s"])
    submits = found.get("load-submits")
    return [
        Claim("chaos_kills", kills, "", 200, "higher", None, len(shaken)),
        Claim("chaos_lost", sum(each["lost"] for each in shaken) if shaken else None, "", 0, "lower"),
        Claim("chaos_doubled", sum(each["doubled"] for each in shaken) if shaken else None, "", 0, "lower"),
        Claim("recovery_s", max(recoveries_s, default=None), "s", 20, "lower", ends(recoveries_s), len(recoveries_s)),
        *(Claim(f"efficiency_32_{kind}", efficiency(rows, kind), "", 0.9, "higher") for kind in JOBS),
        Claim(
            "transactions_per_round", max((row["transactions_per_round"] for row in rows), default=None), "", 3, "lower"
        ),
        *(
            Claim(f"best_schedule_p95_ms_1m_{kind}", found.get(f"load-{kind}", {}).get("p95_ms"), "ms", 20, "lower")
            for kind in ("sqlite", "postgres")
        ),
        Claim(
            "submits_per_s_postgres",
            None if submits is None else submits["accepted"] / submits["seconds"],
            *("1/s", 100, "higher"),
        ),
        Claim("submits_lost", None if submits is None else submits["lost"], "", 0, "lower"),
    ]


def ends(values: list[float]) -> tuple[float, float] | None:
    return (values[0], values[-1]) if values else None


def most_transactions(rows: list[dict[str, Any]]) -> float | None:
    """Of the cases with the most workers; where there are few, PostgreSQL's own and ours weigh more."""
    many = max((row["workers"] for row in rows), default=0)
    return max((row["transactions_per_round"] for row in rows if row["workers"] == many), default=None)


def efficiency(rows: list[dict[str, Any]], kind: str) -> float | None:
    """Of the most workers."""
    own = {row["workers"]: row["rounds_per_s"] for row in rows if row["jobs"] == kind}
    most = max(own, default=1)
    return own[most] / most / own[1] if most > 1 and own.get(1) else None


if __name__ == "__main__":
    main()
