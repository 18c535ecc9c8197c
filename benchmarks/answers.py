"""Do the intervals of what was never measured hold what is measured later? `python -m benchmarks.answers`

Workloads of the held-out networks that were collected, as `crosstune best` would have answered for them before: with
nothing of these networks known anywhere (`predicted`), and with what the other targets measured of them
(`transferred`); each on targets that the shipped table knows, with the target left out of it, and with all targets of
its silicon left out. Beside it a peer that knows the roofline alone. Nothing is measured here, so it needs no quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.report import Claim
from crosstune.cost_model.bests import collected, shipped
from crosstune.cost_model.expectation import Best, Expectations, Place, log_roofline, total
from crosstune.cost_model.formats.collected import WORKLOADS
from crosstune.cost_model.formats.lines import NumberedLines
from crosstune.cost_model.pretrained import bests_file
from crosstune.cost_model.tokens.hardware import distance

COLLECTED = bests_file().parent / "collected"
PREDICTED, TRANSFERRED = "predicted", "transferred"
GOAL, MOST = 0.7, 0.9
RESAMPLES = 1000

LEFT_OUT: Mapping[str, Callable[[Place, Place], bool]] = {
    "nothing": lambda known, asked: False,
    "the target": lambda known, asked: known.identity == asked.identity,
    "its silicon": lambda known, asked: known.silicon == asked.silicon,
}
"""Of the shipped table."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One that can be checked. Errors are logarithms of measured over expected; width is high over low."""

    label: str
    left_out: str
    workload: str
    name: str
    target: str
    error: float
    peer_error: float
    width: float
    inside: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every fifth workload; not written as a result")
    options = parser.parse_args()
    held_out = list(collected(sorted(COLLECTED.iterdir()), held_out=True))
    if options.quick:
        kept = sorted({best.computation.key for best in held_out})[::5]
        held_out = [best for best in held_out if best.computation.key in kept]
    answers = [answer for label in (PREDICTED, TRANSFERRED) for answer in asked(label, held_out)]
    path = report.write(
        "answers",
        "python -m benchmarks.answers",
        [
            claim("interval_coverage", answers),
            claim("interval_coverage_transferred", [one for one in answers if one.label == TRANSFERRED]),
            claim("interval_coverage_predicted", [one for one in answers if one.label == PREDICTED]),
        ],
        {
            "cases": cases(answers),
            "operators": operators(answers),
            "networks": networks(held_out),
            "known": {"latencies": len(shipped()), "targets": len({best.place.identity for best in shipped()})},
        },
        1,
        options.quick,
    )
    print(path)


def asked(label: str, held_out: Sequence[Best]) -> Iterator[Answer]:
    """Every held-out latency foretold, target by target, from what the case leaves."""
    for left_out, hides in LEFT_OUT.items():
        for place, truth in by_target(held_out).items():
            elsewhere = [best for best in held_out if best.place.identity != place.identity]
            known = [best for best in shipped() if not hides(best.place, place)]
            if label == TRANSFERRED:
                known += [best for best in elsewhere if not hides(best.place, place)]
                keys = {best.computation.key for best in known}
                truth = [best for best in truth if best.computation.key in keys]
            found = Expectations(known).of([best.computation for best in truth], place)
            for best, each in zip(truth, found, strict=True):
                if each is None:
                    continue
                yield Answer(
                    label,
                    left_out,
                    best.computation.key,
                    best.computation.name,
                    place.identity,
                    math.log(best.latency_s / each.latency_s),
                    math.log(best.latency_s) - peer(best, known),
                    each.high_s / each.low_s,
                    each.low_s <= best.latency_s <= each.high_s,
                )


def by_target(bests: Sequence[Best]) -> dict[Place, list[Best]]:
    found: dict[str, list[Best]] = {}
    for best in bests:
        found.setdefault(best.place.identity, []).append(best)
    return {group[0].place: group for group in found.values()}


def peer(asked: Best, known: Sequence[Best]) -> float:
    """Logarithm of what the roofline alone tells: the latency on the nearest hardware that measured the workload, times
    the ratio of both rooflines; for an unknown workload the median of all latencies over their rooflines."""
    here = log_roofline(asked.computation, asked.place)
    same = [best for best in known if best.computation.key == asked.computation.key]
    if same:
        nearest = min(same, key=lambda best: distance(best.place.token, asked.place.token))
        return here + math.log(nearest.latency_s) - log_roofline(nearest.computation, nearest.place)
    return here + median(math.log(best.latency_s) - log_roofline(best.computation, best.place) for best in known)


def claim(name: str, answers: Sequence[Answer]) -> Claim:
    """Share of latencies inside; its spread is the 95 % interval over workloads."""
    return Claim(name, coverage(answers), "", GOAL, "higher", spread(answers), len(answers))


def coverage(answers: Sequence[Answer]) -> float:
    return sum(one.inside for one in answers) / len(answers)


def spread(answers: Sequence[Answer]) -> tuple[float, float]:
    """Of the coverage, when workloads are drawn anew."""
    groups: dict[str, list[bool]] = {}
    for one in answers:
        groups.setdefault(one.workload, []).append(one.inside)
    inside = np.array([[sum(group), len(group)] for group in groups.values()])
    drawn = np.random.default_rng(0).integers(0, len(inside), (RESAMPLES, len(inside)))
    hits, counts = inside[drawn].sum(axis=1).T
    low, high = np.quantile(hits / counts, [0.025, 0.975])
    return float(low), float(high)


def cases(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [
        {"label": label, "left_out": left_out, **summary(chosen)}
        for label in (PREDICTED, TRANSFERRED)
        for left_out in LEFT_OUT
        if (chosen := [one for one in answers if (one.label, one.left_out) == (label, left_out)])
    ]


def operators(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Where intervals fail: by the workload's name, of predicted ones on known targets."""
    chosen = [one for one in answers if (one.label, one.left_out) == (PREDICTED, "nothing")]
    names = sorted({one.name for one in chosen})
    return [{"name": name, **summary([one for one in chosen if one.name == name])} for name in names]


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Errors as factors: 1.2 is off by 20 % in either direction."""
    return {
        "answers": len(answers),
        "coverage": coverage(answers),
        "above_090": max(0.0, coverage(answers) - MOST),
        "spread": spread(answers),
        "median_width": median(one.width for one in answers),
        "median_error": math.exp(median(abs(one.error) for one in answers)),
        "peer_median_error": math.exp(median(abs(one.peer_error) for one in answers)),
    }


def networks(held_out: Sequence[Best]) -> dict[str, Any]:
    """Sums over what was collected of each held-out network on each target, nothing of it known anywhere."""
    calls = weights()
    inside: list[bool] = []
    widths: list[float] = []
    for place, truth in by_target(held_out).items():
        expectations = Expectations(shipped())
        for network in sorted({name for counts in calls.values() for name in counts}):
            tasks = [best for best in truth if network in calls[best.computation.key]]
            found = expectations.of([best.computation for best in tasks], place)
            counts = [calls[best.computation.key][network] for best in tasks]
            if len(tasks) < 2 or None in found:
                continue
            whole = total([(count, each) for count, each in zip(counts, found, strict=True) if each is not None])
            truth_s = sum(count * best.latency_s for count, best in zip(counts, tasks, strict=True))
            inside.append(whole.low_s <= truth_s <= whole.high_s)
            widths.append(whole.high_s / whole.low_s)
    return {"sums": len(inside), "coverage": sum(inside) / max(1, len(inside)), "median_width": median(widths or [0.0])}


def weights() -> dict[str, dict[str, int]]:
    """Calls of each workload (by key) by each network."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(COLLECTED.glob(f"*/{WORKLOADS}.gz")):
        with NumberedLines(Path(path)) as lines:
            for _, text in lines:
                line = json.loads(text)
                if "version_free_key" in line:
                    found.setdefault(line["version_free_key"], {}).update(line["networks"])
    return found


if __name__ == "__main__":
    main()
