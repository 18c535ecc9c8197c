"""What do the other workloads of a network teach about one? `python -m benchmarks.transfer`

Tasks of a network, of whose workloads the shipped model has seen one, are tuned from nothing, several seeds each. Then
each is tuned again on a database that holds the first runs of the others: same operators, other sizes. The finalists of
all runs of a task are timed once more, in alternation. How long each run took to come within 2 % of what the first run
of its seed ended with is counted in whole rounds.

Not measured here: what other targets' records of the same workload save; a first run whose first round was as good as
its last tells nothing and is left out of the ratio.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.report import Claim
from benchmarks.tuning_runs import Run, Tuning
from crosstune.cost_model.hold_out import is_held_out
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Workload
from crosstune.tuner.tasks import import_network
from crosstune.tuner.tvm_adapter.compute import anchor_key

SEEDS, TASKS, TRIALS = 3, 6, 64
RANKER = "attention"
NEAR = 1.02
COLD, NEIGHBOURS = "cold", "neighbours"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tasks, few trials; not written as a result")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("network", type=Path, nargs="?", default=squeezenet(), help="ONNX with fixed shapes")
    options = parser.parse_args()
    tasks, trials, seeds = (2, 16, 1) if options.quick else (TASKS, TRIALS, options.seeds)
    folder = report.kept_folder("transfer", options.quick, fresh=True)
    with Template.start() as template:
        tuning = Tuning(template, folder)
        workloads = dearest(template, options.network, tasks)
        runs: dict[tuple[str, int, str], Run] = {}
        for seed in range(seeds):
            started_s = time.monotonic()
            runs |= {(one.sha256, seed, COLD): tuning.run(one, RANKER, seed, trials) for one in workloads}
            for one in workloads:
                others = [(each, runs[each.sha256, seed, COLD].candidates) for each in workloads if each is not one]
                runs[one.sha256, seed, NEIGHBOURS] = tuning.run(one, RANKER, seed, trials, others)
            print(f"seed {seed}: {time.monotonic() - started_s:.0f} s", flush=True)
        rows = [row(tuning, one, runs, seeds) for one in workloads]
        tuning.close()
    path = report.write(
        "transfer",
        f"python -m benchmarks.transfer --seeds {seeds}",
        [time_claim(rows), wins_claim(rows), final_claim(rows)],
        {"network": options.network.stem, "tasks": rows, "trials": trials, "seeds": seeds},
        tuning.spec.cores,
        options.quick,
    )
    print(path)


def squeezenet() -> Path:
    import onnx

    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_squeezenet.onnx"


def dearest(template: Template, path: Path, count: int) -> list[Workload]:
    """The tasks with the most arithmetic of the operator that has most of it."""
    with template.spawn("import") as child:
        network = import_network(child, path, {}, 600.0)
    tasks = [t for t in network.tasks if not is_held_out(t.workload.version_free_key, anchor_key(t.workload.module))]
    ordered = sorted((task.workload for task in tasks), key=lambda one: -one.flops)
    return [one for one in ordered if one.name == ordered[0].name][:count]


def row(tuning: Tuning, workload: Workload, runs: Mapping[tuple[str, int, str], Run], seeds: int) -> dict[str, Any]:
    own = {key[1:]: run for key, run in runs.items() if key[0] == workload.sha256}
    latencies_s = tuning.timed_again(workload, own.values())
    pairs = [pair(own[seed, COLD], own[seed, NEIGHBOURS], latencies_s) for seed in range(seeds)]
    found = {"workload": workload.name, "args": workload.args, "seeds": pairs}
    print(json.dumps(found), flush=True)
    return found


def pair(cold: Run, neighbours: Run, latencies_s: Mapping[str, float]) -> dict[str, Any]:
    """One seed: seconds until as fast as the cold run in the end, both ways, and where the best came from."""
    goal_s = NEAR * min(latency_s for latency_s, _, _ in timed(cold, latencies_s))
    rounds_s = sorted({one.elapsed_s for one in cold.programs})
    return {
        "first_round_s": rounds_s[0],
        "last_round_s": rounds_s[-1],
        COLD: outcome(cold, latencies_s, goal_s),
        NEIGHBOURS: outcome(neighbours, latencies_s, goal_s),
    }


def outcome(run: Run, latencies_s: Mapping[str, float], goal_s: float) -> dict[str, Any]:
    """`sources`: programs that ran, by where they came from."""
    found = timed(run, latencies_s)
    best_s, _, source = min(found)
    return {
        "best_s": best_s,
        "source": source,
        "reached_s": min((elapsed_s for latency_s, elapsed_s, _ in found if latency_s <= goal_s), default=None),
        "sources": Counter(one.source for one in run.programs),
    }


def timed(run: Run, latencies_s: Mapping[str, float]) -> list[tuple[float, float, str]]:
    """(latency_s by the final timing, elapsed_s, source) of each finalist."""
    return [
        (latencies_s[one.schedule], one.elapsed_s, one.source) for one in run.finalists if one.schedule in latencies_s
    ]


def time_claim(rows: list[dict[str, Any]]) -> Claim:
    """Median over tasks and seeds; a run that never got there counts as all of its time, twice."""
    ratios = []
    for one in (one for found in rows for one in found["seeds"]):
        if one[COLD]["reached_s"] > one["first_round_s"]:
            reached_s = one[NEIGHBOURS]["reached_s"]
            ratios.append((2 * one["last_round_s"] if reached_s is None else reached_s) / one[COLD]["reached_s"])
    value, spread = (median(ratios), (min(ratios), max(ratios))) if ratios else (None, None)
    return Claim("transfer_time_ratio_neighbours", value, "", 0.4, "lower", spread, len(ratios))


def wins_claim(rows: list[dict[str, Any]]) -> Claim:
    """Of the tasks and seeds, those whose best was a like workload's schedule."""
    wins = [one[NEIGHBOURS]["source"] == "neighbour" for found in rows for one in found["seeds"]]
    return Claim("nearest_workload_win_share", sum(wins) / len(wins), "", 0.2, "higher", (0.0, 1.0), len(wins))


def final_claim(rows: list[dict[str, Any]]) -> Claim:
    """Best latency at the end over that of the cold run, median over tasks and seeds."""
    ratios = [one[NEIGHBOURS]["best_s"] / one[COLD]["best_s"] for found in rows for one in found["seeds"]]
    spread = (min(ratios), max(ratios))
    return Claim("best_latency_over_cold", median(ratios), "", 1.0, "lower", spread, len(ratios))


if __name__ == "__main__":
    main()
