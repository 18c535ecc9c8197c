"""Trials per second on the convolutions of a ResNet-18, beside repaired MetaSchedule. `python -m benchmarks.throughput`

Both tune the same tasks one after the other, in alternation, with the same builder, runner and threads; ours includes
everything a round of the service does: reading what is known from SQLite, search, build, measure, store. The best
programs of both are then built anew and timed in alternation. Each finished task is kept, so a broken run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import repaired_metaschedule, report
from benchmarks.networks import resnet18
from benchmarks.report import Claim
from benchmarks.tuning_database import BUILD_TIMEOUT_S, RUN_TIMEOUT_S, TuningDatabase
from crosstune.service.audit import audit_database
from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Quality, RoundRequest, TargetSpec, Workload
from crosstune.tuner.contracts import median as middle
from crosstune.tuner.rounds import RoundRunner
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.targets import detect_machine, native
from crosstune.tuner.tasks import import_network

TRIALS = 256
ROUND_TRIALS = 32
COMPARISONS = 7
AUDITED = 50
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one task, few trials; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished tasks of an earlier run")
    parser.add_argument("--minutes", type=float, help="start no further task after so long; a later run goes on")
    options = parser.parse_args()
    until_s = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    trials = 32 if options.quick else TRIALS
    folder = report.kept_folder("throughput", options.quick, options.fresh)
    with Template.start() as template:
        spec = native(detect_machine(template))
        with template.spawn("import") as child:
            network = import_network(child, resnet18(), {}, 300.0)
        workloads = distinct_first([task.workload for task in network.tasks if task.workload.name.startswith("conv2d")])
        bench = Bench(template, spec, folder, trials)
        rows = []
        for workload in workloads[:1] if options.quick else workloads:
            if bench.kept(workload).exists() or time.monotonic() < until_s:
                rows.append(bench.task(workload))
        bench.close()
    timeouts_s = (BUILD_TIMEOUT_S, RUN_TIMEOUT_S)
    audited = audit_database(bench.database.url, timeouts_s, 5 if options.quick else AUDITED, SEED)
    path = report.write(
        "throughput",
        "python -m benchmarks.throughput",
        claims(rows, audited),
        {"tasks": rows, "tasks_in_all": len(workloads), "trials_per_task": trials, "audit": audited},
        spec.cores,
        options.quick,
    )
    print(path)


def distinct_first(workloads: Sequence[Workload]) -> list[Workload]:
    """Those that differ in the convolution itself before those that differ in the epilogue only."""
    shapes: set[Any] = set()
    distinct = []
    for one in workloads:
        if one.args[:2] not in shapes:
            shapes.add(one.args[:2])
            distinct.append(one)
    return distinct + [one for one in workloads if one not in distinct]


class Bench:
    """One database and one set of children for all tasks of our side, as a worker of the service has."""

    def __init__(self, template: Template, spec: TargetSpec, folder: Path, trials: int) -> None:
        self.template, self.spec, self.folder, self.trials = template, spec, folder, trials
        self.database = TuningDatabase(folder / "records.db", spec)
        self.builder = Builder(template, os.cpu_count() or 1, BUILD_TIMEOUT_S)
        self.runner = Runner(template, RUN_TIMEOUT_S)
        self.rounds = RoundRunner(Searcher(template), self.builder, self.runner)

    def close(self) -> None:
        self.rounds.close()
        self.database.close()

    def kept(self, workload: Workload) -> Path:
        return self.folder / f"{workload.sha256[:16]}.json"

    def task(self, workload: Workload) -> dict[str, Any]:
        """Tune one task on both sides and compare the best programs; taken from the cache when it is there."""
        path = self.kept(workload)
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        ours = self._ours(workload)
        theirs = self._theirs(workload)
        row = {
            "workload": workload.name,
            "args": workload.args,
            "flops": workload.flops,
            "ours": ours,
            "repaired": theirs,
            "compared": self._compare(workload, ours["trace"], theirs["trace"]),
        }
        for side in ("ours", "repaired"):
            print(f"{workload.name} {side}: {row[side]['valid'] / row[side]['seconds']:.2f} trials/s", end="; ")
        print({name: round(value, 3) for name, value in row["compared"]["ratio"].items()}, flush=True)
        path.write_text(json.dumps(row))
        return row

    def _ours(self, workload: Workload) -> dict[str, Any]:
        workload_key = self.database.add(workload)
        started_s = time.perf_counter()
        done = valid = 0
        parts = {"read": 0.0, "search": 0.0, "build": 0.0, "run": 0.0, "store": 0.0, "wait_for_device": 0.0}
        curve: list[tuple[int, float, float]] = []
        best_s, best_trace, exhausted = float("inf"), None, False
        while done < self.trials and not exhausted:
            since = time.perf_counter()
            request = self.database.request(workload_key, min(ROUND_TRIALS, self.trials - done), SEED + done)
            parts["read"] += time.perf_counter() - since
            result = self.rounds.run(request, nullcontext, lambda: False)
            for name, seconds in result.timings_s.items():
                parts[name] += seconds
            since = time.perf_counter()
            self.database.store(workload_key, result.candidates)
            parts["store"] += time.perf_counter() - since
            done += len(result.candidates)
            exhausted = result.exhausted
            for one in result.candidates:
                last = one.attempts[-1]
                valid += last.invalidity is None
                if last.quality is Quality.FULL and last.latencies_s and middle(last.latencies_s) < best_s:
                    best_s, best_trace = middle(last.latencies_s), one.trace
            curve.append((done, time.perf_counter() - started_s, best_s))
        return {
            "seconds": time.perf_counter() - started_s,
            "trials": done,
            "valid": valid,
            "best_full_s": best_s,
            "trace": best_trace,
            "seconds_by_part": parts,
            "curve": curve,
        }

    def _theirs(self, workload: Workload) -> dict[str, Any]:
        return repaired_metaschedule.search_one(self.folder, self.spec, workload, self.trials, SEED)

    def _compare(self, workload: Workload, ours: Any, theirs: Any) -> dict[str, Any]:
        """Time both best programs anew in alternation, hot and with cold weights; ratio = ours / theirs."""
        latencies: dict[str, dict[str, list[float]]] = {"ours": {}, "repaired": {}}
        request = RoundRequest(self.spec, workload, (), (), 0, 0)
        for _ in range(COMPARISONS):
            for side, trace in (("ours", ours), ("repaired", theirs)):
                built = self.builder.build(BuildJob(workload.module, trace, self.spec))
                if not isinstance(built, Built):
                    raise SystemExit(f"the best program of {side} cannot be built again: {built.detail}")
                with built:
                    for quality in (Quality.QUICK, Quality.FULL):
                        attempt = self.runner.measure(built, request, quality, None)
                        latencies[side].setdefault(quality.value, []).append(middle(attempt.latencies_s))
        medians = {side: {name: median(found) for name, found in by.items()} for side, by in latencies.items()}
        names = {"hot": Quality.QUICK.value, "cold": Quality.FULL.value}
        ratio = {name: medians["ours"][quality] / medians["repaired"][quality] for name, quality in names.items()}
        return {"latencies_s": latencies, "ratio": ratio}


def claims(rows: Sequence[dict[str, Any]], audited: dict[str, Any]) -> list[Claim]:
    ours, theirs = ([row[side]["valid"] / row[side]["seconds"] for row in rows] for side in ("ours", "repaired"))
    total_s = sum(row["ours"]["seconds"] for row in rows)
    rate = sum(row["ours"]["valid"] for row in rows) / total_s
    peer_rate = sum(row["repaired"]["valid"] for row in rows) / sum(row["repaired"]["seconds"] for row in rows)
    ratios = {name: [row["compared"]["ratio"][name] for row in rows] for name in ("hot", "cold")}
    worse = max(ratios, key=lambda name: median(ratios[name]))  # the claim takes the less flattering way of timing
    store = sum(row["ours"]["seconds_by_part"]["store"] + row["ours"]["seconds_by_part"]["read"] for row in rows)
    count, pairs = len(rows), [a / b for a, b in zip(ours, theirs, strict=True)]
    return [
        Claim("trials_per_s", rate, "1/s", 4, "higher", (min(ours), max(ours)), count),
        Claim("trials_per_s_over_repaired", rate / peer_rate, "", 1.5, "higher", (min(pairs), max(pairs)), count),
        Claim(
            "best_latency_over_repaired",
            median(ratios[worse]),
            f"ratio ({worse})",
            1.05,
            "lower",
            (min(ratios[worse]), max(ratios[worse])),
            count,
        ),
        Claim("store_share", store / total_s, "", 0.02, "lower", None, count),
        Claim("audit_reproduced", audited["reproduced_share"], "", 0.9, "higher", None, audited["audited"]),
    ]


if __name__ == "__main__":
    main()
