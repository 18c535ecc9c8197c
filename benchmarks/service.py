"""The service's own speed: start to ready, and the best-schedule query among 100,000 records on SQLite.

`python -m benchmarks.service`. No TVM is involved: the records are synthetic, their number and shape are real.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from sqlalchemy import Connection

from benchmarks import report
from benchmarks.report import CACHE, Claim
from crosstune import Client
from crosstune.db import migrate
from crosstune.db.engine import create_engine, retrying
from crosstune.db.repositories import networks, projects, records, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.service.embedded import embedded_service

RECORDS, TASKS, QUERIES, STARTS = 100_000, 40, 400, 5
TRACE_INSTRUCTIONS = 60
"""A convolution's trace has about so many; 2 kB as JSON."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 records; not written as a result")
    options = parser.parse_args()
    count = 5_000 if options.quick else RECORDS
    folder = CACHE / "service"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    starts_s = [start_s(folder / f"start{number}") for number in range(STARTS)]
    data = folder / "data"
    data.mkdir()
    target, network = fill(f"sqlite:///{data / 'crosstune.db'}", count)
    queries_ms = query_ms(data, target, network)
    p95_ms = quantiles(queries_ms, n=20)[-1]
    claims = [
        Claim("start_s", median(starts_s), "s", 3, "lower", (min(starts_s), max(starts_s)), len(starts_s)),
        Claim("best_schedule_p95_ms_100k", p95_ms, "ms", 20, "lower", (min(queries_ms), max(queries_ms)), QUERIES),
    ]
    figures = {"records": count, "tasks": TASKS, "median_ms": median(queries_ms), "starts_s": starts_s}
    print(report.write("service", "python -m benchmarks.service", claims, figures, 1, options.quick))


def start_s(folder: Path) -> float:
    """Seconds from starting the process on an empty folder until /readyz says ready."""
    started_s = time.perf_counter()
    with embedded_service(folder) as url, Client(url) as client:
        while not client.get_readiness().ready:
            time.sleep(0.01)
        return time.perf_counter() - started_s


def fill(url: str, count: int, name: str = "bench") -> tuple[str, str]:
    """A network of 40 tasks with `count` measured schedules in all; returns target and network id. Again under another
    name: another network, on the same target."""
    migrate.upgrade(url)
    engine = create_engine(url)
    random = np.random.default_rng(0)
    spec = {"kind": "llvm", "mcpu": "x86-64-v3", "cores": 2, "model": "bench", "mattr": [], "triple": ""}
    target, _ = retrying(engine, lambda c: targets.register(c, identity=digest("target"), name="bench", spec=spec))
    project = retrying(engine, projects.get)
    keys = [retrying(engine, partial(made_workload, name=name, number=number)) for number in range(TASKS)]
    for number, key in enumerate(keys):
        candidates = [candidate(number, schedule, random) for schedule in range(count // TASKS)]
        retrying(
            engine,
            lambda c, key=key, candidates=candidates: records.store(  # type: ignore[misc]
                c, target_key=target.key, workload_key=key, candidates=candidates, project_key=project.key
            ),
        )
    network = retrying(engine, partial(made_network, name=name, tasks=[(key, 1) for key in keys]))
    engine.dispose()
    return target.id, network


def made_workload(connection: Connection, name: str, number: int) -> int:
    """The key of a workload of the network of this name."""
    return workloads.get_or_create(
        connection,
        sha256=digest(f"workload {name} {number}"),
        version_free_key=digest(f"graph {name} {number}"),
        name="conv2d",
        module="{}",
        flops=1e8,
        args=[["float32", [1, 56, 56, 64]]],
        output_count=1,
        tvm_version="bench",
        pipeline_version=1,
    ).key


def made_network(connection: Connection, name: str, tasks: list[tuple[int, int]]) -> str:
    """The id of a network that needs no import; tasks: workloads by key, and how often it calls them."""
    network, _ = networks.submit(
        connection,
        project_id=projects.get(connection).id,
        name=name,
        content_sha256=digest(f"network {name}"),
        shapes={},
        size_bytes=1,
        artifact_id=None,
    )
    networks.mark_ready(
        connection,
        network.id,
        graph_key=digest(f"graph {name}"),
        inputs=[],
        outputs=[],
        layout="NHWC",
        layout_note="",
        synthetic_weights=False,
        pipeline_version=1,
        tasks=tasks,
    )
    return network.id


def candidate(workload: int, schedule: int, random: np.random.Generator) -> NewCandidate:
    latency_s = float(random.lognormal(-7, 1))
    instructions = [["Split", [f"l{k}", schedule], [1], [f"l{k + 100}"]] for k in range(TRACE_INSTRUCTIONS)]
    quality = "full" if schedule % 10 == 0 else "quick"
    return NewCandidate(
        schedule_sha256=digest(f"{workload} {schedule}"),
        trace=[instructions, []],
        measurements=(NewMeasurement(latencies_s=(latency_s,), quality=quality),),
    )


def query_ms(data: Path, target: str, network: str) -> list[float]:
    found = []
    with embedded_service(data) as url, Client(url) as client:
        for _ in range(QUERIES + 10):
            started_s = time.perf_counter()
            answer = client.best_schedules(target, network=network)
            found.append(1e3 * (time.perf_counter() - started_s))
            if len(answer.schedules) != TASKS or any(one.label != "measured" for one in answer.schedules):
                raise SystemExit(f"a wrong answer: {len(answer.schedules)} schedules")
    return found[10:]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
