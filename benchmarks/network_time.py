"""How long until a network is near the best that is known of it? `python -m benchmarks.network_time`

Needs `make networks` and the held-out networks (`make holdout`). Each network is tuned by a service for equal times
from four starts: from nothing (`cold`: trees, no records), with the trained model alone (`model`), on a database that
knows other networks (`neighbours`; the network's own workloads are removed from it), and on one in which the same
network was tuned for another target of this machine (`elsewhere`); and by repaired MetaSchedule, with small rounds of
its own, as many seconds.

All results are timed in alternation at the end. What a search sees on its way is the sum of its tasks, so the curve of
a run is scaled to end at what its network takes. Time counts from the submit. A task that the peer has not reached yet
counts with the default schedule, which is what its network gets for it.

Another target of the same machine is the same silicon. Each finished run is kept, so a broken benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import delete, select

from benchmarks import repaired_metaschedule, report
from benchmarks.networks import resnet18, seeded_light
from benchmarks.report import CACHE, Claim
from benchmarks.timing_networks import alternately
from benchmarks.tuning_database import RUN_TIMEOUT_S
from benchmarks.tuning_runs import narrower
from crosstune import Client
from crosstune.db.engine import create_engine
from crosstune.db.tables import Measurement, Record, Workload
from crosstune.service.embedded import embedded_service
from crosstune.service.schemas.jobs import Budget, JobDetail, JobIn
from crosstune.service.schemas.targets import DetectIn
from crosstune.tuner import deploy
from crosstune.tuner.child import Template
from crosstune.tuner.collecting_here import parse_short
from crosstune.tuner.contracts import BuildRequest, ImportedNetwork, PinnedSchedule, sha256_json
from crosstune.tuner.runner import Runner
from crosstune.tuner.targets import detect_machine, native
from crosstune.tuner.tasks import import_network

SECONDS, GIVEN_SECONDS = 120.0, 60.0
PEER_ROUND_TRIALS = 16
"""With its own 64 MetaSchedule would not have looked at each task once."""
NEAR = 1.05
COLD, MODEL, NEIGHBOURS, ELSEWHERE = STARTS = "cold", "model", "neighbours", "elsewhere"
REPAIRED = "repaired"
RANKERS = {COLD: "xgboost", MODEL: "attention", NEIGHBOURS: "attention", ELSEWHERE: "attention"}
IMPORT_S = 600.0
QUICK_S = 20.0


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    path: Path
    shapes: Mapping[str, tuple[int, ...]]


def held_out(name: str, shape: tuple[int, ...]) -> Network:
    return Network(name, CACHE / "held_out" / f"{name}.onnx", {"input": shape})


def networks() -> list[Network]:
    return [
        Network("resnet18", resnet18(), {}),
        held_out("mobilenetv2", (1, 3, 224, 224)),
        held_out("bert_tiny", (1, 128)),
    ]


def others() -> list[Network]:
    """What the neighbours' database knows."""
    exported = [Network(name, CACHE / "networks" / f"{name}.onnx", {}) for name in ("mobilenetv3", "distilbert")]
    return [Network("light_resnet50", seeded_light("resnet50"), {}), *exported]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one network, some seconds; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished runs of an earlier benchmark")
    parser.add_argument("--minutes", type=float, help="start no further network after so long; a later run goes on")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of tuning, for each run")
    options = parser.parse_args()
    until_s = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    folder = report.kept_folder("network_time", options.quick, options.fresh)
    chosen = networks()[-1:] if options.quick else networks()
    known = others()[-1:] if options.quick else others()
    with Template.start() as template:
        bench = Bench(template, folder, known, options.seconds, options.quick)
        rows = [bench.row(one) for one in chosen if bench.kept(one).exists() or time.monotonic() < until_s]
    path = report.write(
        "network_time",
        "make networks holdout && python -m benchmarks.network_time",
        claims(rows),
        {"networks": rows, "networks_in_all": len(chosen), "seconds": bench.seconds, "starts": table(rows)},
        bench.target.cores,
        options.quick,
    )
    print(path)


class Bench:
    def __init__(self, template: Template, folder: Path, known: Sequence[Network], seconds: float, quick: bool) -> None:
        machine = detect_machine(template)
        self.target, self.other = native(machine), parse_short(narrower(template), machine, template)
        self.seconds, self._given_seconds = (QUICK_S, QUICK_S) if quick else (seconds, GIVEN_SECONDS)
        self._template, self._folder, self._known = template, folder, known

    def kept(self, network: Network) -> Path:
        return self._folder / f"{network.name}.json"

    def row(self, network: Network) -> dict[str, Any]:
        """All runs of a network and the final timing; taken from the cache when it is there."""
        if self.kept(network).exists():
            found: dict[str, Any] = json.loads(self.kept(network).read_text())
            return found
        runs = {start: self._once(network, start, partial(self._tuned, network, start)) for start in STARTS}
        runs[REPAIRED] = self._once(network, REPAIRED, partial(self._repaired, network))
        artifacts = {name: Path(run["artifact"]) for name, run in runs.items()}
        found = judged(network.name, runs, alternately(artifacts))
        self.kept(network).write_text(json.dumps(found))
        print({key: value for key, value in found.items() if key != "runs"}, flush=True)
        return found

    def _once(self, network: Network, run: str, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The run's curve and artifact; what it left halfway when it was killed is thrown away."""
        folder = self._folder / network.name / run
        done = folder / "done.json"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            done.write_text(json.dumps(work(folder)))
        found: dict[str, Any] = json.loads(done.read_text())
        print(network.name, run, found["trials"], *found["curve"][-1:], flush=True)
        return found

    def _tuned(self, network: Network, start: str, folder: Path) -> dict[str, Any]:
        data = folder / "data"
        if start == NEIGHBOURS:
            shutil.copytree(self._given(), data)
            forget(data, self._imported(network))
        with self._service(data, RANKERS[start]) as client:
            if start == ELSEWHERE:
                other = client.detect_target(DetectIn(mcpu=self.other.mcpu, mattr=()))
                tune(client, network, other.id, self.seconds)
            job = tune(client, network, client.detect_target().id, self.seconds)
            artifact = client.download_artifact(str(job.build), folder / "artifact")
            facts = {"artifact": str(artifact), "trials": job.trials, "seconds": job.seconds}
            return {**facts, "curve": curve(client, job)}

    def _given(self) -> Path:
        """The folder of a service that has tuned the other networks."""
        folder = self._folder / "given"
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            with self._service(folder / "data", RANKERS[MODEL]) as client:
                for one in self._known:
                    tune(client, one, client.detect_target().id, self._given_seconds)
            (folder / "done").touch()
        return folder / "data"

    def _repaired(self, network: Network, folder: Path) -> dict[str, Any]:
        imported = self._imported(network)
        weights = {task.workload: task.weight for task in imported.tasks}
        found = repaired_metaschedule.search(
            folder, self.target, weights, seed=1, seconds=self.seconds, round_trials=PEER_ROUND_TRIALS
        )
        best = zip(weights, found["tasks"], strict=True)
        pins = [
            PinnedSchedule(one.sha256, task["trace"], sha256_json(task["trace"]), task["curve"][-1][2])
            for one, task in best
            if task["trace"] is not None and task["curve"][-1][2] < task["default_s"]
        ]
        request = BuildRequest(
            self.target, str(network.path), dict(network.shapes), tuple(pins), str(folder / "artifact"), seed=0
        )
        compiled, verification = deploy.compile_verified(self._template, request, lambda: False)
        timings = None
        if verification.refused is None:
            with Runner(self._template, RUN_TIMEOUT_S) as runner:
                timings = deploy.time_network(self._template, compiled, runner)
        refused = deploy.finish(compiled, verification, timings).refused
        if refused is not None:
            raise SystemExit(f"{network.name}: the peer's network is refused: {refused}")
        facts = {"artifact": request.output_folder, "trials": found["trials"], "seconds": found["seconds"]}
        return {**facts, "curve": peer_curve(weights, found)}

    def _imported(self, network: Network) -> ImportedNetwork:
        with self._template.spawn("import") as child:
            return import_network(child, network.path, network.shapes, IMPORT_S)

    @contextmanager
    def _service(self, data: Path, ranker: str) -> Iterator[Client]:
        os.environ["CROSSTUNE_RANKER"] = ranker
        with embedded_service(data) as url, Client(url) as client:
            yield client


def tune(client: Client, network: Network, target: str, seconds: float) -> JobDetail:
    """A finished job; it uses all of its time."""
    uploaded = client.wait_network(client.upload_network(network.path, name=network.name, shapes=network.shapes).id)
    body = JobIn(network=uploaded.id, target=target, budget=Budget(seconds=seconds), whole_budget=True)
    job = client.wait(client.create_job(body).id)
    if job.build is None or job.failure is not None:
        raise SystemExit(f"{network.name}: the job {job.state}: {job.failure.detail if job.failure else ''}")
    return job


def curve(client: Client, job: JobDetail) -> list[tuple[float, float]]:
    """(seconds since the submit, sum over tasks of the best latencies) after each round, from when all have one."""
    rounds = [event for event in client.job_events(job.id) if event.kind == "round"]
    created_s = job.created_at.timestamp()
    sums = [(event.at.timestamp() - created_s, event.data["network_best_s"]) for event in rounds]
    return [(seconds, latency_s) for seconds, latency_s in sums if latency_s is not None]


def peer_curve(weights: Mapping[Any, int], found: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The same of the peer, from the start: what it has not found anything better for gets the default schedule."""
    best_s = [task["default_s"] for task in found["tasks"]]
    steps = sorted(
        (seconds, i, latency_s) for i, task in enumerate(found["tasks"]) for _, seconds, latency_s in task["curve"]
    )
    points = []
    for seconds, i, latency_s in [(0.0, 0, math.inf), *steps]:
        best_s[i] = min(best_s[i], latency_s)
        points.append((seconds, sum(weight * one for weight, one in zip(weights.values(), best_s, strict=True))))
    return points


def forget(data: Path, network: ImportedNetwork) -> None:
    """Remove what is known of the network's workloads, on any target."""
    keys = [bytes.fromhex(task.workload.version_free_key) for task in network.tasks]
    wanted = select(Record.key).join(Workload, Workload.key == Record.workload_key)
    wanted = wanted.where(Workload.version_free_key.in_(keys))
    engine = create_engine(f"sqlite:///{data / 'crosstune.db'}")
    with engine.begin() as connection:
        connection.execute(delete(Measurement).where(Measurement.record_key.in_(wanted)))
        connection.execute(delete(Record).where(Record.key.in_(wanted)))
    engine.dispose()


def judged(name: str, runs: Mapping[str, dict[str, Any]], latencies_s: Mapping[str, float]) -> dict[str, Any]:
    """Seconds until each run was near the best of all, by its own curve scaled to what its network takes."""
    goal_s = NEAR * min(latencies_s.values())
    found = {}
    for run, facts in runs.items():
        seen = facts["curve"] or [(facts["seconds"], 1.0)]  # without any: some task had no latency until the end
        scaled = [(seconds, latency_s / seen[-1][1] * latencies_s[run]) for seconds, latency_s in seen]
        reached = [seconds for seconds, latency_s in scaled if latency_s <= goal_s]
        found[run] = {
            "latency_s": latencies_s[run],
            "reached_s": min(reached, default=None),
            "seconds": facts["seconds"],
            "trials": facts["trials"],
            "curve": scaled,
        }
    return {"network": name, "best_s": min(latencies_s.values()), "runs": found}


def ratio(row: Mapping[str, Any], start: str) -> float:
    """The peer's seconds over ours; 0 where ours never got there, and where the peer did not, at least its time."""
    ours, theirs = row["runs"][start]["reached_s"], row["runs"][REPAIRED]["reached_s"]
    return 0.0 if ours is None else (row["runs"][REPAIRED]["seconds"] if theirs is None else theirs) / ours


def claims(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    return [claim(rows, NEIGHBOURS, 4.0), claim(rows, COLD, 2.0)]


def claim(rows: Sequence[Mapping[str, Any]], start: str, goal: float) -> Claim:
    """Median over networks."""
    ratios = [ratio(row, start) for row in rows]
    value, spread = (median(ratios), (min(ratios), max(ratios))) if ratios else (None, None)
    return Claim(f"network_seconds_over_repaired_{start}", value, "", goal, "higher", spread, len(ratios))


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By network and run: latency, the best one's share of it, seconds until near the best, and until as good as the
    peer is in the end."""
    return [
        {"network": row["network"], "run": run, "share_of_best": row["best_s"] / facts["latency_s"]}
        | {key: facts[key] for key in ("latency_s", "reached_s", "trials")}
        | {"passed_peer_s": passed_s(facts["curve"], row["runs"][REPAIRED]["latency_s"])}
        for row in rows
        for run, facts in row["runs"].items()
    ]


def passed_s(curve: Sequence[tuple[float, float]], latency_s: float) -> float | None:
    return min((seconds for seconds, best_s in curve if best_s <= latency_s), default=None)


if __name__ == "__main__":
    main()
