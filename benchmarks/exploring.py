"""Does exploring a new device by what tells most teach more than exploring blindly? Part of `benchmarks.lifecycle`

Each target that was collected is new once: it and its silicon are left out of what is known. Then its best latencies
are told one workload after the other, in the order that an explore step would ask for them, and in random orders. How
far off the expected latencies of a third of its workloads are, which are never told, is looked at after every other
one. Nothing is measured here, so it needs no quiet machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from benchmarks.answers import COLLECTED
from benchmarks.report import Claim
from crosstune.cost_model.bests import collected
from crosstune.cost_model.expectation import Best, Expectations

SEEDS, TOLD, EVERY, TESTED_SHARE = 3, 24, 2, 3
LEAST_WORKLOADS = 30


def explored(quick: bool) -> dict[str, Any]:
    """Errors by target; `quick`: of one target and seed."""
    bests = [each for held_out in (False, True) for each in collected(sorted(COLLECTED.iterdir()), held_out=held_out)]
    rows = []
    for target in sorted({one.place.identity for one in bests}):
        own = [one for one in bests if one.place.identity == target]
        if len(own) >= LEAST_WORKLOADS and not (quick and rows):
            others = [one for one in bests if one.place.silicon != own[0].place.silicon]
            rows.append(row(own, others, 1 if quick else SEEDS))
    return {"targets": rows, "told": TOLD}


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
    """Mean error (logarithm) over the tested workloads, before anything is told and after EVERY ones."""
    told: list[Best] = []
    left = list(tellable)
    found = []
    for number in range(min(TOLD, len(tellable)) + 1):
        expectations = Expectations((*others, *told))
        if number % EVERY == 0:
            found.append(error(expectations, tested))
        if left:
            told.append(left.pop(most_telling(expectations, left) if informative else 0))
    return found


def error(expectations: Expectations, tested: Sequence[Best]) -> float:
    answers = expectations.of([one.computation for one in tested], tested[0].place)
    return mean(
        abs(math.log(one.latency_s / answer.latency_s))
        for one, answer in zip(tested, answers, strict=True)
        if answer is not None
    )


def most_telling(expectations: Expectations, left: Sequence[Best]) -> int:
    """The same choice as in service/steps/exploring.py."""
    chosen = expectations.most_telling([one.computation for one in left], left[0].place)
    assert chosen is not None, "others of its kind are known"
    return chosen


def claim(found: Mapping[str, Any]) -> Claim:
    """Workloads until the mean error is as small as random choice makes it with all TOLD, over TOLD; where it never is,
    1. The median over targets."""
    ratios = [ratio(one["errors"]) for one in found["targets"]]
    return Claim("exploration_record_ratio", median(ratios), "", 0.33, "lower", (min(ratios), max(ratios)), len(ratios))


def ratio(errors: dict[str, list[list[float]]]) -> float:
    blind, chosen = (averaged(errors[order]) for order in ("random", "informative"))
    last = len(blind) - 1
    return min((number for number, value in enumerate(chosen) if value <= blind[-1]), default=last) / last


def averaged(curves: Sequence[Sequence[float]]) -> list[float]:
    return [mean(values) for values in zip(*curves, strict=True)]
