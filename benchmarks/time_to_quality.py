"""How soon is a search as good as Ansor, and repaired MetaSchedule, in the end? `python -m benchmarks.time_to_quality`

Eight single operators, several seeds each, from four starts: with nothing (`cold`: xgboost, no records), with the
trained model alone (`model`), with records of other operators (`neighbours`), with records of the same operator on
another target of this machine (`elsewhere`). Beside the last: what building and timing that target's five best brings.

The peers' best programs are built anew and timed in alternation with ours; 1.02 times that latency is the goal. A
peer's time is when it first came within 2 % of its own best, by what it saw itself; ours counts whole rounds, from
the submit. Ansor is run once per operator and processor model (benchmarks/ansor/curves.py); `--ansor FOLDER` is where
it lies, to build its programs anew; without it, or without a curve, what is said of Ansor stays unmeasured.

Another target of the same machine is the same silicon. Finished operators are kept, so a broken run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import operators, repaired_metaschedule, report
from benchmarks.ansor import curves
from benchmarks.ansor.curves import NEAR, Ansor, Curve
from benchmarks.operators import OPERATORS, PLAIN, Made, Operator
from benchmarks.report import Claim
from benchmarks.tuning_runs import LOOKS, Earlier, Run, Tuning, finalists, narrower
from crosstune.tuner.child import Template

COLD, MODEL, NEIGHBOURS, ELSEWHERE = STARTS = "cold", "model", "neighbours", "elsewhere"
RANKERS = {COLD: "xgboost", MODEL: "attention", NEIGHBOURS: "attention", ELSEWHERE: "attention"}
SEEDS, TRIALS, ROUND_TRIALS = 3, 64, 8
"""Rounds are as short as the service makes them for a job of a minute."""
REPAIRED_TRIALS = 128
GIVEN_TRIALS, GIVEN_SEED = 32, 99
"""Of the runs whose records the neighbours' starts are given."""
COPIED = 5
ANSOR, REPAIRED = "ansor", "repaired"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one operator, few trials; not written as a result")
    parser.add_argument("--fresh", action="store_true", help="forget finished operators of an earlier run")
    parser.add_argument("--minutes", type=float, help="start no further operator after so long; a later run goes on")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--ansor", type=Path, metavar="FOLDER", help="what benchmarks/ansor/setup.sh made")
    options = parser.parse_args()
    until_s = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    folder = report.kept_folder("time_to_quality", options.quick, options.fresh)
    ansor = None if options.ansor is None else Ansor(options.ansor, os.cpu_count() or 1)
    made = operators.make()
    if options.quick:
        made = Made({one: made.workloads[one] for one in OPERATORS[-2:]}, made.plain)
    with Template.start() as template:
        bench = Bench(template, folder, made, ansor, 1 if options.quick else options.seeds, options.quick)
        chosen = [one for one in OPERATORS if one in made.workloads][-1 if options.quick else 0 :]
        # Those that Ansor was run on come first.
        rows = []
        for operator in sorted(chosen, key=lambda one: curves.kept(one) is None):
            if bench.kept(operator).exists() or time.monotonic() < until_s:
                rows.append(bench.row(operator))
        handicap = bench.handicap()
        bench.close()
    path = report.write(
        "time_to_quality",
        f"python -m benchmarks.time_to_quality --seeds {options.seeds}" + (" --ansor FOLDER" if ansor else ""),
        claims(rows),
        {"operators": rows, "operators_in_all": len(chosen), "starts": table(rows), "code_generation": handicap},
        bench.here.spec.cores,
        options.quick,
    )
    print(path)


class Bench:
    def __init__(
        self, template: Template, folder: Path, made: Made, ansor: Ansor | None, seeds: int, quick: bool
    ) -> None:
        self.here, self.there = Tuning(template, folder), Tuning(template, folder, narrower(template))
        self._folder, self._made, self._ansor, self._seeds = folder, made, ansor, seeds
        self._trials, self._repaired_trials = (ROUND_TRIALS, ROUND_TRIALS) if quick else (TRIALS, REPAIRED_TRIALS)

    def close(self) -> None:
        self.here.close()
        self.there.close()

    def kept(self, operator: Operator) -> Path:
        return self._folder / f"{operator.name}.json"

    def row(self, operator: Operator) -> dict[str, Any]:
        """All runs of an operator, both peers and the final timing; taken from the cache when it is there."""
        if self.kept(operator).exists():
            found: dict[str, Any] = json.loads(self.kept(operator).read_text())
            return found
        workload = self._made.workloads[operator]
        sources = [self.there.run(workload, RANKERS[MODEL], seed, self._trials) for seed in range(self._seeds)]
        runs = {}
        for seed, source in enumerate(sources):
            for start in random.Random(seed).sample(STARTS, len(STARTS)):
                before = self._before(start, operator, source)
                run = self.here.run(workload, RANKERS[start], seed, self._trials, before, ROUND_TRIALS)
                runs[start, seed] = run
        repaired = repaired_metaschedule.search_one(
            self._folder, self.here.spec, workload, self._repaired_trials, seed=1
        )
        copied = {f"copied {place}": one.trace for place, one in enumerate(sources[0].finalists[:COPIED])}
        copied_s = self.here.replayed(workload, copied)
        curve = None if self._ansor is None else curves.kept(operator)
        beside = {}
        if self._ansor is not None and curve is not None:
            beside[ANSOR] = partial(self._ansor.timed, operator, curve, LOOKS)
        traces = {**finalists(runs.values()), **copied, REPAIRED: repaired["trace"]}
        latencies_s = self.here.alternately(workload, traces, beside)
        found = {
            "operator": operator.name,
            "peers": peers(curve, repaired, latencies_s),
            "copied": {"seconds": copied_s, "best_s": min(latencies_s[name] for name in copied if name in latencies_s)},
            "runs": [judged(start, seed, run, latencies_s) for (start, seed), run in runs.items()],
        }
        self.kept(operator).write_text(json.dumps(found))
        print(operator.name, found["peers"], [(one["start"], one["reached"]) for one in found["runs"]], flush=True)
        return found

    def handicap(self) -> dict[str, Any]:
        """The same loops, by hand, from both compilers."""
        found: dict[str, Any] = {"operator": PLAIN.name}
        if self._ansor is not None and PLAIN in self._made.workloads:
            workload = self._made.workloads[PLAIN]
            beside = {ANSOR: partial(self._ansor.plain, PLAIN, LOOKS)}
            found["latencies_s"] = self.here.alternately(workload, {}, beside, {"ours": self._made.plain})
        return found

    def _before(self, start: str, operator: Operator, source: Run) -> list[Earlier]:
        if start == NEIGHBOURS:
            return [
                self.here.earlier(self._made.workloads[one], run) for one, run in self._given.items() if one != operator
            ]
        return [self.there.earlier(self._made.workloads[operator], source)] if start == ELSEWHERE else []

    @cached_property
    def _given(self) -> dict[Operator, Run]:
        return {
            one: self.here.run(workload, RANKERS[MODEL], GIVEN_SEED, min(self._trials, GIVEN_TRIALS))
            for one, workload in self._made.workloads.items()
        }


def peers(curve: Curve | None, repaired: Mapping[str, Any], latencies_s: Mapping[str, float]) -> dict[str, Any]:
    """By peer: latency of its best program by the final timing, seconds and trials until near its own best."""
    goal_s = NEAR * min(best_s for _, _, best_s in repaired["curve"])
    trials, seconds = next((ran, seconds) for ran, seconds, best_s in repaired["curve"] if best_s <= goal_s)
    found = {REPAIRED: {"best_s": latencies_s[REPAIRED], "seconds": seconds, "trials": trials}}
    found[REPAIRED] |= {"seconds_in_all": repaired["seconds"], "trials_in_all": repaired["trials"]}
    if curve is not None and ANSOR in latencies_s:
        found[ANSOR] = {"best_s": latencies_s[ANSOR], "seconds": curve.seconds, "trials": curve.trials}
        found[ANSOR] |= {"seconds_in_all": curve.points[-1][0], "trials_in_all": curve.points[-1][1]}
        found[ANSOR] |= {"mcpu": curve.mcpu}
    return found


def judged(start: str, seed: int, run: Run, latencies_s: Mapping[str, float]) -> dict[str, Any]:
    """One of our runs; `reached` by peer: seconds and trials until as good as its best, None where it never was."""
    timed = [(latencies_s[one.schedule], one) for one in run.finalists if one.schedule in latencies_s]
    reached = {}
    for name in (ANSOR, REPAIRED):
        near = [one for latency_s, one in timed if latency_s <= NEAR * latencies_s.get(name, 0.0)]
        reached[name] = (
            {"seconds": min(one.elapsed_s for one in near), "trials": min(one.trial for one in near)} if near else None
        )
    return {
        "start": start,
        "seed": seed,
        "best_s": min(latency_s for latency_s, _ in timed),
        "reached": reached,
        "sources": Counter(one.source for one in run.programs),
        "rounds_s": sorted({one.elapsed_s for one in run.programs}),
        "timings_s": run.timings_s,
    }


def claims(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    ratio = partial(ratio_claim, rows)
    return [
        ratio("speedup_over_ansor_neighbours", ANSOR, NEIGHBOURS, "seconds", 60),
        ratio("speedup_over_ansor_cold", ANSOR, COLD, "seconds", 25),
        reached_claim(rows),
        ratio("trials_over_repaired_neighbours", REPAIRED, NEIGHBOURS, "trials", 5),
        ratio("trials_over_repaired_cold", REPAIRED, COLD, "trials", 2),
        ratio("seconds_over_repaired_cold", REPAIRED, COLD, "seconds", 4),
        share_claim(rows),
    ]


def ratios(rows: Sequence[Mapping[str, Any]], name: str, start: str, unit: str) -> list[float]:
    """The peer's over ours, for each operator that the peer was run on; 0 where the middle seed never got there."""
    return [row["peers"][name][unit] / middle(row, name, start, unit) for row in with_peer(rows, name)]


def middle(row: Mapping[str, Any], name: str, start: str, unit: str) -> float:
    """Median over seeds; a run that never got there took for ever."""
    reached = [one["reached"][name] for one in row["runs"] if one["start"] == start]
    return float(median(math.inf if one is None else one[unit] for one in reached))


def ratio_claim(rows: Sequence[Mapping[str, Any]], id: str, name: str, start: str, unit: str, goal: float) -> Claim:
    """Median over operators."""
    found = ratios(rows, name, start, unit)
    if not found:
        return Claim(id, None, "", goal, "higher", None, 0)
    return Claim(id, median(found), "", goal, "higher", (min(found), max(found)), len(found))


def reached_claim(rows: Sequence[Mapping[str, Any]]) -> Claim:
    """Operators on which the middle seeds of both the cold start and the neighbours' became as good as Ansor."""
    pairs = zip(*(ratios(rows, ANSOR, start, "seconds") for start in (COLD, NEIGHBOURS)), strict=True)
    found = [min(pair) > 0 for pair in pairs]
    return Claim("workloads_reached", sum(found) if found else None, "", 8, "higher", None, len(found))


def share_claim(rows: Sequence[Mapping[str, Any]]) -> Claim:
    """Of the time of all our runs; the spread is over runs."""
    timings = [one["timings_s"] for row in rows for one in row["runs"]]
    shares = [one["search"] / sum(one.values()) for one in timings]
    total = sum(one["search"] for one in timings) / sum(sum(one.values()) for one in timings)
    return Claim("search_and_scoring_share", total, "", 0.15, "lower", (min(shares), max(shares)), len(shares))


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By start and peer: median over operators of the ratios to the peer, and of our best latency over the peer's."""
    return [
        {"start": start} | {name: compared(rows, name, start) for name in (ANSOR, REPAIRED) if with_peer(rows, name)}
        for start in STARTS
    ]


def compared(rows: Sequence[Mapping[str, Any]], name: str, start: str) -> dict[str, Any]:
    own = with_peer(rows, name)
    seconds, trials = (ratios(own, name, start, unit) for unit in ("seconds", "trials"))
    return {
        "seconds": median(seconds),
        "trials": median(trials),
        "best_latency": median(final_s(row, start) / row["peers"][name]["best_s"] for row in own),
        "reached": sum(one > 0 for one in seconds),
        "operators": len(own),
    }


def with_peer(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if name in row["peers"]]


def final_s(row: Mapping[str, Any], start: str) -> float:
    return float(median(one["best_s"] for one in row["runs"] if one["start"] == start))


if __name__ == "__main__":
    main()
