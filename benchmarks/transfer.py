"""What do like workloads, and other targets, teach about a workload? `python -m benchmarks.transfer`

Tasks of a network, of whose workloads the shipped model has seen one, are tuned from nothing, several seeds each. Then
each is tuned again on a database that holds the first runs of the others (`neighbours`: same operators, other sizes),
and on one that holds a run of the same workload on another target of this machine (`elsewhere`). The finalists of all
runs of a task are timed once more, in alternation. How long each run took to come within 2 % of what the first run of
its seed ended with is counted in whole rounds.

Another target of the same machine is the same silicon. A first run whose first round was as good as its last tells
nothing and is left out of the ratios.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.report import Claim
from benchmarks.tuning_runs import Run, Tuning, narrower
from crosstune.cost_model.hold_out import is_held_out
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import Workload
from crosstune.tuner.tasks import import_network
from crosstune.tuner.tvm_adapter.compute import anchor_key

SEEDS, TASKS, TRIALS = 3, 6, 64
RANKER = "attention"
NEAR = 1.02
COLD, NEIGHBOURS, ELSEWHERE = STARTS = "cold", "neighbours", "elsewhere"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tasks, few trials; not written as a result")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--other", metavar="MCPU:CORES", help="the other target; the x86-64 level below this machine's")
    parser.add_argument("network", type=Path, nargs="?", default=squeezenet(), help="ONNX with fixed shapes")
    options = parser.parse_args()
    tasks, trials, seeds = (2, 16, 1) if options.quick else (TASKS, TRIALS, options.seeds)
    folder = report.kept_folder("transfer", options.quick, fresh=True)
    with Template.start() as template:
        other = options.other or narrower(template)
        here, there = Tuning(template, folder), Tuning(template, folder, other)
        workloads = dearest(template, options.network, tasks)
        runs: dict[tuple[str, int, str], Run] = {}
        for seed in range(seeds):
            started_s = time.monotonic()
            runs |= {(one.sha256, seed, COLD): here.run(one, RANKER, seed, trials) for one in workloads}
            for one in workloads:
                others = [here.earlier(each, runs[each.sha256, seed, COLD]) for each in workloads if each is not one]
                runs[one.sha256, seed, NEIGHBOURS] = here.run(one, RANKER, seed, trials, others)
                elsewhere = there.earlier(one, there.run(one, RANKER, seed, trials))
                runs[one.sha256, seed, ELSEWHERE] = here.run(one, RANKER, seed, trials, [elsewhere])
            print(f"seed {seed}: {time.monotonic() - started_s:.0f} s", flush=True)
        rows = [row(here, one, runs, seeds) for one in workloads]
        here.close()
        there.close()
    path = report.write(
        "transfer",
        f"python -m benchmarks.transfer --seeds {seeds}",
        [
            time_claim("transfer_time_ratio", rows, ELSEWHERE, 0.25),
            time_claim("transfer_time_ratio_neighbours", rows, NEIGHBOURS, 0.4),
            wins_claim(rows),
            final_claim("best_latency_over_cold", rows, NEIGHBOURS),
            final_claim("best_latency_over_cold_elsewhere", rows, ELSEWHERE),
        ],
        {
            "network": options.network.stem,
            "other": other,
            "tasks": rows,
            "sources": source_table(rows),
            "trials": trials,
            "seeds": seeds,
        },
        here.spec.cores,
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
    pairs = [compared({start: own[seed, start] for start in STARTS}, latencies_s) for seed in range(seeds)]
    found = {"workload": workload.name, "args": workload.args, "seeds": pairs}
    print(json.dumps(found), flush=True)
    return found


def compared(runs: Mapping[str, Run], latencies_s: Mapping[str, float]) -> dict[str, Any]:
    """One seed: seconds until as fast as the cold run in the end, from each start, and where the best came from."""
    goal_s = NEAR * min(latency_s for latency_s, _, _ in timed(runs[COLD], latencies_s))
    rounds_s = sorted({one.elapsed_s for one in runs[COLD].programs})
    facts = {"first_round_s": rounds_s[0], "last_round_s": rounds_s[-1]}
    return {**facts, **{start: outcome(run, latencies_s, goal_s) for start, run in runs.items()}}


def outcome(run: Run, latencies_s: Mapping[str, float], goal_s: float) -> dict[str, Any]:
    """`sources`: programs that ran, by where they came from; `offered`: schedules from elsewhere, and how many fit."""
    found = timed(run, latencies_s)
    best_s, _, source = min(found)
    return {
        "best_s": best_s,
        "source": source,
        "reached_s": min((elapsed_s for latency_s, elapsed_s, _ in found if latency_s <= goal_s), default=None),
        "sources": Counter(one.source for one in run.programs),
        "offered": {source: asdict(counts) for source, counts in run.offered.items()},
    }


def timed(run: Run, latencies_s: Mapping[str, float]) -> list[tuple[float, float, str]]:
    """(latency_s by the final timing, elapsed_s, source) of each finalist."""
    return [
        (latencies_s[one.schedule], one.elapsed_s, one.source) for one in run.finalists if one.schedule in latencies_s
    ]


def time_claim(name: str, rows: list[dict[str, Any]], start: str, goal: float) -> Claim:
    """Median over tasks and seeds; a run that never got there counts as all of the cold run's time, twice."""
    ratios = []
    for one in (one for found in rows for one in found["seeds"]):
        if one[COLD]["reached_s"] > one["first_round_s"]:
            reached_s = one[start]["reached_s"]
            ratios.append((2 * one["last_round_s"] if reached_s is None else reached_s) / one[COLD]["reached_s"])
    value, spread = (median(ratios), (min(ratios), max(ratios))) if ratios else (None, None)
    return Claim(name, value, "", goal, "lower", spread, len(ratios))


def wins_claim(rows: list[dict[str, Any]]) -> Claim:
    """Of the tasks and seeds, those whose best was a like workload's schedule."""
    wins = [one[NEIGHBOURS]["source"] == "neighbour" for found in rows for one in found["seeds"]]
    return Claim("nearest_workload_win_share", sum(wins) / len(wins), "", 0.2, "higher", (0.0, 1.0), len(wins))


def final_claim(name: str, rows: list[dict[str, Any]], start: str) -> Claim:
    """Best latency at the end over that of the cold run, median over tasks and seeds."""
    ratios = [one[start]["best_s"] / one[COLD]["best_s"] for found in rows for one in found["seeds"]]
    return Claim(name, median(ratios), "", 1.0, "lower", (min(ratios), max(ratios)), len(ratios))


def source_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By start and source: schedules at hand, how many fit, how many ran, share of the runs whose best came from it."""
    table = []
    for start in STARTS:
        runs = [one[start] for found in rows for one in found["seeds"]]
        for source in sorted({name for run in runs for name in [*run["sources"], *run["offered"]]}):
            offered = [run["offered"][source] for run in runs if source in run["offered"]]
            table.append(
                {
                    "start": start,
                    "source": source,
                    "offered": sum(one["schedules"] for one in offered),
                    "fit": sum(one["fit"] for one in offered),
                    "measured": sum(run["sources"].get(source, 0) for run in runs),
                    "share_of_bests": sum(run["source"] == source for run in runs) / len(runs),
                }
            )
    return table


if __name__ == "__main__":
    main()
