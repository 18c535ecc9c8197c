"""Does exploring a new device by what is least sure teach more than exploring blindly? `python -m benchmarks.exploring`

Each target that was collected is new once: it and its silicon are left out of what is known. Then its best latencies
are told one workload after the other, in the order that an explore step would ask for them, and in random orders. How
far off the expected latencies of a third of its workloads are, which are never told, is looked at after each. Nothing
is measured here, so it needs no quiet machine.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from benchmarks import report
from benchmarks.answers import COLLECTED
from benchmarks.report import Claim
from crosstune.cost_model.bests import collected
from crosstune.cost_model.expectation import Best, Expectations

SEEDS, TOLD, TESTED_SHARE = 5, 24, 3
LEAST_WORKLOADS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one target, one seed; not written as a result")
    options = parser.parse_args()
    bests = [each for held_out in (False, True) for each in collected(sorted(COLLECTED.iterdir()), held_out=held_out)]
    targets = sorted({one.place.identity for one in bests})
    rows = []
    for target in targets:
        own = [one for one in bests if one.place.identity == target]
        if len(own) >= LEAST_WORKLOADS:
            others = [one for one in bests if one.place.silicon != own[0].place.silicon]
            rows.append(row(own, others, 1 if options.quick else SEEDS))
        if options.quick and rows:
            break
    path = report.write(
        "exploring", "python -m benchmarks.exploring", [claim(rows)], {"targets": rows, "told": TOLD}, 1, options.quick
    )
    print(path)


def row(own: Sequence[Best], others: Sequence[Best], seeds: int) -> dict[str, Any]:
    """Errors after each workload told, in both orders, by seed: of which workloads are tested, and what is drawn."""
    found: dict[str, Any] = {"mcpu_cores_model": own[0].place.silicon, "workloads": len(own), "others": len(others)}
    curves: dict[str, list[list[float]]] = {"informative": [], "random": []}
    for seed in range(seeds):
        chance = random.Random(seed)
        shuffled = chance.sample(list(own), len(own))
        tested, tellable = shuffled[: len(own) // TESTED_SHARE], shuffled[len(own) // TESTED_SHARE :]
        for order, curve in curves.items():
            curve.append(errors(others, tested, tellable, order == "informative"))
        print(found["mcpu_cores_model"], seed, [f"{curve[-1][-1]:.3f}" for curve in curves.values()], flush=True)
    return {**found, "errors": curves}


def errors(others: Sequence[Best], tested: Sequence[Best], tellable: Sequence[Best], informative: bool) -> list[float]:
    """Mean error (logarithm) over the tested workloads, before anything is told and after each."""
    told: list[Best] = []
    left = list(tellable)
    found = []
    while True:
        expectations = Expectations((*others, *told))
        found.append(error(expectations, tested))
        if len(told) == TOLD or not left:
            return found
        chosen = widest(expectations, left) if informative else left[0]
        told.append(chosen)
        left.remove(chosen)


def error(expectations: Expectations, tested: Sequence[Best]) -> float:
    answers = expectations.of([one.computation for one in tested], tested[0].place)
    return mean(
        abs(math.log(one.latency_s / answer.latency_s))
        for one, answer in zip(tested, answers, strict=True)
        if answer is not None
    )


def widest(expectations: Expectations, left: Sequence[Best]) -> Best:
    """The same choice as in service/steps/exploring.py."""
    answers = expectations.of([one.computation for one in left], left[0].place)
    widths = [0.0 if one is None else math.log(one.high_s / one.low_s) for one in answers]
    return left[widths.index(max(widths))]


def claim(rows: Sequence[dict[str, Any]]) -> Claim:
    """Workloads until the mean error is as small as random choice makes it with all TOLD, over TOLD; where it never is,
    1. The median over targets."""
    ratios = []
    for one in rows:
        blind, chosen = (averaged(one["errors"][order]) for order in ("random", "informative"))
        reached = [number for number, value in enumerate(chosen) if value <= blind[-1]]
        ratios.append(min(reached, default=len(blind) - 1) / (len(blind) - 1))
    spread = (min(ratios), max(ratios)) if ratios else None
    return Claim("exploration_record_ratio", median(ratios) if ratios else None, "", 0.33, "lower", spread, len(ratios))


def averaged(curves: Sequence[Sequence[float]]) -> list[float]:
    return [mean(values) for values in zip(*curves, strict=True)]


if __name__ == "__main__":
    main()
