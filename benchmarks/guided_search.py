"""Does the cost model move tuning? Trials until within 2 % of the best known. `python -m benchmarks.guided_search`

Tasks of networks that no model was trained on are tuned from nothing with each ranker, in alternation, several seeds
each, through the rounds of the service on databases of their own. Afterwards the best programs of all runs of a task
are built anew and timed in alternation: which trial first came within 2 % of the best is judged by these latencies, not
by those that the search saw. A run that never does counts as one trial more than it had.

The logs are kept in `benchmarks/results/guided_search.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from benchmarks import report
from benchmarks.report import CACHE, Claim
from benchmarks.tuning_runs import ROUND_TRIALS, Run, Tuning
from crosstune.cost_model.hold_out import is_held_out
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Workload
from crosstune.tuner.tasks import import_network
from crosstune.tuner.tvm_adapter.compute import anchor_key

NETWORKS = CACHE / "held_out"
RANKERS = ("attention", "xgboost", "random")
SEEDS = 3
TRIALS = 64
"""A task of a network gets about so many in ten minutes of tuning."""
TASKS = 8
NEAR = 1.02
SHAPES = {False: (1, 3, 224, 224), True: (1, 128)}
"""Of the images, and of the texts for the BERTs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one task, few trials; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished tasks of an earlier run")
    parser.add_argument("--minutes", type=float, help="start no further task after so long; a later run goes on")
    options = parser.parse_args()
    until_s = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    folder = report.kept_folder("guided_search", options.quick, options.fresh)
    tasks, trials, seeds = (1, 32, 1) if options.quick else (TASKS, TRIALS, SEEDS)
    with Template.start() as template:
        tuning = Tuning(template, folder)
        bench = Bench(tuning, folder, trials, seeds)
        rows = []
        for network, workload in held_out_tasks(template, tasks):
            if bench.kept(workload).exists() or time.monotonic() < until_s:
                rows.append(bench.task(network, workload))
        tuning.close()
    path = report.write(
        "guided_search",
        "python -m benchmarks.guided_search",
        [trials_claim(rows), faster_claim(rows)],
        {"tasks": rows, "tasks_in_all": tasks, "trials": trials, "seeds": seeds, "after": progress(rows, trials)},
        tuning.spec.cores,
        options.quick,
    )
    print(path)


def held_out_tasks(template: Template, count: int) -> list[tuple[str, Workload]]:
    """The dearest tasks of each network in turn, different ones."""
    by_network: dict[str, list[Workload]] = {}
    for path in sorted(NETWORKS.glob("*.onnx")):
        with template.spawn("import") as child:
            network = import_network(child, path, {"input": SHAPES[path.stem.startswith("bert")]}, 600.0)
        held = [t for t in network.tasks if is_held_out(t.workload.version_free_key, anchor_key(t.workload.module))]
        held.sort(key=lambda task: -task.weight * task.workload.flops)
        by_network[path.stem] = [task.workload for task in held]
    if not by_network:
        raise SystemExit(f"{NETWORKS} holds no networks: make holdout")
    found: dict[str, tuple[str, Workload]] = {}
    for place in range(count):
        for name, workloads in by_network.items():
            if place < len(workloads) and len(found) < count:
                found.setdefault(workloads[place].sha256, (name, workloads[place]))
    return list(found.values())


class Bench:
    def __init__(self, tuning: Tuning, folder: Path, trials: int, seeds: int) -> None:
        self.tuning, self.folder, self.trials, self.seeds = tuning, folder, trials, seeds

    def kept(self, workload: Workload) -> Path:
        return self.folder / f"{workload.sha256[:16]}.json"

    def task(self, network: str, workload: Workload) -> dict[str, Any]:
        """All runs of a task and the final timing; taken from the cache when it is there."""
        path = self.kept(workload)
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        runs: dict[tuple[str, int], Run] = {}
        for seed in range(self.seeds):
            order = list(RANKERS)
            random.Random(seed).shuffle(order)
            for ranker in order:
                runs[ranker, seed] = self.tuning.run(workload, ranker, seed, self.trials)
        latencies_s = self.tuning.timed_again(workload, runs.values())
        row = {
            "network": network,
            "workload": workload.name,
            "args": workload.args,
            "runs": [judged(ranker, seed, found, latencies_s) for (ranker, seed), found in runs.items()],
        }
        path.write_text(json.dumps(row))
        print(
            network,
            workload.name,
            {(r["ranker"], r["seed"]): r["trials_to_near_best"] for r in row["runs"]},
            flush=True,
        )
        return row


def judged(ranker: str, seed: int, run: Run, latencies_s: Mapping[str, float]) -> dict[str, Any]:
    """One run: what it saw in order, its best program by the final timing, and when it came near the best of all."""
    known = [(one.trial, latencies_s[one.schedule]) for one in run.finalists if one.schedule in latencies_s]
    goal_s = NEAR * min(latencies_s.values())
    last = max((one.trial for one in run.programs), default=0)
    return {
        "ranker": ranker,
        "seed": seed,
        "best_s": min((latency_s for _, latency_s in known), default=None),
        "trials_to_near_best": min((trial for trial, latency_s in known if latency_s <= goal_s), default=last + 1),
        "reached": any(latency_s <= goal_s for _, latency_s in known),
        "quick_s": [[one.trial, one.quick_s] for one in run.programs],
    }


def trials_claim(rows: Sequence[dict[str, Any]]) -> Claim:
    """Median over tasks of the ratio of mean trials over seeds."""
    ratios = [mean_trials(row, "attention") / mean_trials(row, "xgboost") for row in rows]
    return Claim("trials_ratio_vs_xgboost", median(ratios), "", 0.7, "lower", (min(ratios), max(ratios)), len(rows))


def faster_claim(rows: Sequence[dict[str, Any]]) -> Claim:
    """Geometric mean over tasks of the best latency after all trials: attention's over xgboost's, middle seeds."""
    ratios = [best(row, "attention") / best(row, "xgboost") for row in rows]
    spread = (min(ratios), max(ratios))
    return Claim("best_latency_over_xgboost", geometric_mean(ratios), "", 1.0, "lower", spread, len(rows))


def progress(rows: Sequence[dict[str, Any]], trials: int) -> list[dict[str, Any]]:
    """After each round, the best that each ranker's search had seen, over xgboost's: geometric means over tasks of
    middle seeds. Seen in passing, while the machine's speed wandered: the claims go by what was timed afterwards."""
    return [
        {"trials": most}
        | {
            name: geometric_mean([seen(row, name, most) / seen(row, "xgboost", most) for row in rows])
            for name in RANKERS
        }
        for most in range(ROUND_TRIALS, trials + 1, ROUND_TRIALS)
    ]


def seen(row: dict[str, Any], ranker: str, most: int) -> float:
    """Seconds: the median over seeds of the fastest of the first `most` trials."""
    runs = [run["quick_s"] for run in row["runs"] if run["ranker"] == ranker]
    return float(median(min(quick_s for trial, quick_s in run if trial <= most) for run in runs))


def mean_trials(row: dict[str, Any], ranker: str) -> float:
    trials = [run["trials_to_near_best"] for run in row["runs"] if run["ranker"] == ranker]
    return float(sum(trials)) / len(trials)


def best(row: dict[str, Any], ranker: str) -> float:
    return float(median(run["best_s"] for run in row["runs"] if run["ranker"] == ranker))


if __name__ == "__main__":
    main()
