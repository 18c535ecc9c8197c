"""What retraining costs, and what it costs a job beside it: `python -m benchmarks.lifecycle`

- A hundred thousand records (the shipped programs over and over, their latencies a little different, under workloads
  of other names) are retrained from by a service, from the request to the version; its peak memory is the training
  process's own.
- SqueezeNet is tuned twice for equal times, the second time while versions are trained one after the other. Training
  stands still while the device measures, so neither should cost the job anything.
- A service ranks 512 schedules at a time over HTTP, from their decisions.
- What retraining gains on another network (benchmarks/retraining_gain.py), and exploring on a new device
  (benchmarks/exploring.py), from what was collected.

Finished parts are kept, so a broken run goes on. It takes about an hour, and the first three need a quiet machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil
import pyarrow.parquet as pq
from sqlalchemy import Connection

from benchmarks import exploring, report, retraining_gain
from benchmarks.networks import seeded_light
from benchmarks.report import Claim
from crosstune import Client
from crosstune.cost_model import retraining
from crosstune.cost_model.dataset import columns
from crosstune.cost_model.dataset.folder import DatasetFolder
from crosstune.cost_model.dataset.reading import modules
from crosstune.cost_model.features import FEATURE_LAYOUT
from crosstune.cost_model.pretrained import dataset_folder
from crosstune.db import migrate
from crosstune.db.engine import create_engine, transaction
from crosstune.db.repositories import projects, records, targets, workloads
from crosstune.db.repositories.records import NewCandidate, NewMeasurement
from crosstune.service.embedded import embedded_service
from crosstune.service.schemas.cost_models import CostModelDetail, PredictIn, RetrainIn
from crosstune.service.schemas.jobs import Budget, JobIn
from crosstune.tuner.drafts import Space

RECORDS, QUICK_RECORDS = 100_000, 2_000
JOB_S, QUICK_S = 120.0, 40.0
REQUESTS, SCHEDULES = 100, 512
GAIN_SEEDS = 5
NOISE = 0.03
POLL_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few records, a short job; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished parts of an earlier run")
    options = parser.parse_args()
    folder = report.kept_folder("lifecycle", options.quick, options.fresh)
    seconds = QUICK_S if options.quick else JOB_S
    parts = {
        "retrained": lambda: retrained(folder / "many", QUICK_RECORDS if options.quick else RECORDS),
        "alone": lambda: tuned(folder / "alone", seconds, beside=False),
        "beside": lambda: tuned(folder / "beside", seconds, beside=True),
        "predicted": lambda: predicted(folder / "alone"),
        "gained": lambda: retraining_gain.compared(folder / "gain", *((1, 1) if options.quick else (GAIN_SEEDS,))),
        "explored": lambda: exploring.explored(options.quick),
    }
    found = {name: kept(folder / f"{name}.json", work) for name, work in parts.items()}
    path = report.write("lifecycle", "python -m benchmarks.lifecycle", claims(found), found, 2, options.quick)
    print(path)


def kept(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        path.write_text(json.dumps(work()))
    found: dict[str, Any] = json.loads(path.read_text())
    print(path.stem, {name: value for name, value in found.items() if not isinstance(value, list)}, flush=True)
    return found


def retrained(folder: Path, count: int) -> dict[str, Any]:
    """Seconds from the request to the version, and what its training process had in memory at most."""
    folder.mkdir(exist_ok=True)
    fill(folder, count)
    with embedded_service(folder) as url, Client(url) as client:
        began_s, peak_bytes = time.monotonic(), 0
        version = client.retrain_cost_model(RetrainIn(shipped_data=False)).id
        while (model := client.get_cost_model(version)).state == "training":
            peak_bytes = max(peak_bytes, trainers_bytes())
            time.sleep(POLL_S)
    require(model)
    return {
        "records": count,
        "seconds": time.monotonic() - began_s,
        "peak_bytes": peak_bytes,
        "progress": model.progress,
        "quality": None if model.quality is None else model.quality.model_dump(mode="json", exclude={"by_target"}),
    }


def trainers_bytes() -> int:
    """What the training processes of this machine hold in memory."""
    found = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if retraining.__name__ in (process.info["cmdline"] or ()) and process.info["memory_info"] is not None:
            found += process.info["memory_info"].rss
    return found


def fill(folder: Path, count: int) -> None:
    """The database of a service that does not run yet."""
    url = f"sqlite:///{folder / 'crosstune.db'}"
    migrate.upgrade(url)
    engine = create_engine(url)
    chance = random.Random(0)
    left = count
    for key, name, module, target, rows in repeated():
        chosen = list(islice(rows, left))
        with transaction(engine) as connection:
            store(connection, key, name, module, target, chosen, chance)
        left -= len(chosen)
        if not left:
            break
    engine.dispose()


def repeated() -> Iterator[tuple[str, str, str, str, Iterator[tuple[Any, ...]]]]:
    """(workload, name, module, target, rows) of the shipped data, round after round, each under other names."""
    folder = DatasetFolder(dataset_folder())
    known = modules(folder)
    groups: dict[tuple[str, str, str], list[tuple[Any, ...]]] = {}
    for path in folder.record_files():
        table = pq.read_table(path)
        names = ("source", "workload", "target", "trace", "features", "latencies_s")
        for source, workload, target, *row in columns.rows(table, names):
            if (source, workload) in known and row[1] is not None and row[2]:
                groups.setdefault((source, workload, target), []).append(tuple(row))
    round_ = 0
    while True:
        for (source, workload, target), rows in groups.items():
            key = hashlib.sha256(f"{round_} {source} {workload}".encode()).hexdigest()
            yield key, f"workload_{round_}", known[source, workload], target, iter(rows)
        round_ += 1


def store(
    connection: Connection,
    key: str,
    name: str,
    module: str,
    target: str,
    rows: list[tuple[Any, ...]],
    chance: random.Random,
) -> None:
    spec = json.loads(target)
    attributes = spec.pop("attributes", {})
    identity = hashlib.sha256(target.encode()).hexdigest()
    row, new = targets.register(connection, identity=identity, name=identity[:12], spec=spec)
    if new:
        targets.add_facts(connection, row.key, attributes, "detected")
    workload = workloads.get_or_create(
        connection,
        sha256=key,
        version_free_key=key,
        name=name,
        module=module,
        flops=1e6,
        args=[["float32", [1, 8]]],
        output_count=1,
        tvm_version="0.27.0",
        pipeline_version=1,
    )
    candidates = [
        NewCandidate(
            hashlib.sha256(trace.encode()).hexdigest(),
            json.loads(trace),
            (NewMeasurement((min(latencies_s) * chance.lognormvariate(0.0, NOISE),), "quick"),),
            features=features,
            feature_layout=FEATURE_LAYOUT,
        )
        for trace, features, latencies_s in rows
    ]
    records.store(
        connection,
        target_key=row.key,
        workload_key=workload.key,
        project_key=projects.get(connection).key,
        candidates=candidates,
    )


def tuned(folder: Path, seconds: float, beside: bool) -> dict[str, Any]:
    """A job's best latency, and which share of its measurements was disturbed; `beside`: trainings run all the time."""
    folder.mkdir(exist_ok=True)
    versions = 0
    with embedded_service(folder) as url, Client(url) as client:
        target = client.detect_target()
        network = client.wait_network(client.upload_network(seeded_light("squeezenet")).id)
        body = JobIn(network=network.id, target=target.id, budget=Budget(seconds=seconds), whole_budget=True)
        job = client.create_job(body)
        while not (job := client.get_job(job.id)).finished_at:
            training = any(one.state == "training" for one in client.list_cost_models(limit=1).items)
            if beside and job.rounds and not training and job.state == "running":
                client.retrain_cost_model(RetrainIn(seed=versions))
                versions += 1
            time.sleep(POLL_S)
        measurements = [each for one in client.export_records(target=target.id) for each in one.measurements]
    if job.best_latency_s is None:
        raise SystemExit(f"the job {job.state} without a latency: {job.failure}")
    return {
        "best_latency_s": job.best_latency_s,
        "trials": job.trials,
        "measurements": len(measurements),
        "disturbed": sum(one.status == "disturbed" for one in measurements),
        "versions_begun": versions,
    }


def predicted(folder: Path) -> dict[str, Any]:
    """Seconds of each request, from the client."""
    with embedded_service(folder) as url, Client(url) as client:
        network = client.list_networks().items[0].id
        target = client.list_targets().items[0].id
        best = client.best_schedules(target, network=network, traces=True).schedules
        spaces = [(one.workload, Space(one.trace)) for one in best if one.trace is not None]
        workload, space = max(spaces, key=lambda one: one[1].size)
        chance = random.Random(0)
        latencies_s = []
        for _ in range(REQUESTS):
            decisions = [space.trace(space.draw(chance))[1] for _ in range(SCHEDULES)]
            body = PredictIn(workload=workload, target=target, instructions=space.instructions, decisions=decisions)
            began_s = time.perf_counter()
            client.predict("shipped", body)
            latencies_s.append(time.perf_counter() - began_s)
    return {"latencies_s": latencies_s, "schedules": SCHEDULES}


def disturbed(job: dict[str, Any]) -> float:
    """Share of its measurements; on a machine that others use too, some are whatever we do."""
    return float(job["disturbed"] / job["measurements"])


def require(model: CostModelDetail) -> None:
    if model.state != "candidate":
        raise SystemExit(f"{model.id} {model.state}: {model.failure}")


def claims(found: dict[str, Any]) -> list[Claim]:
    many, alone, beside = found["retrained"], found["alone"], found["beside"]
    p95_ms = 1e3 * quantiles(found["predicted"]["latencies_s"], n=20)[-1]
    return [
        Claim("retrain_100k_minutes", many["seconds"] / 60, "min", 15, "lower"),
        Claim("retrain_peak_gb", many["peak_bytes"] / 1e9, "GB", 2, "lower"),
        Claim("retrain_disturbed_share", disturbed(beside) - disturbed(alone), "", 0.02, "lower"),
        Claim("best_latency_ratio_with_retrain", beside["best_latency_s"] / alone["best_latency_s"], "", 1.03, "lower"),
        retraining_gain.claim(found["gained"]),
        exploring.claim(found["explored"]),
        Claim("predict_512_p95_ms", p95_ms, "ms", 150, "lower", None, len(found["predicted"]["latencies_s"])),
    ]


if __name__ == "__main__":
    main()
