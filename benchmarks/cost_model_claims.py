"""From the scores of the cost model's benchmark to its claims: the bad ends of 95 % intervals over workloads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from benchmarks.cost_model_cases import (
    CLAIMED_SHARE,
    CONFIGURATION,
    GPU,
    HELD_OUT,
    KEPT,
    PRUNED_BY,
    SEEN,
    UNSEEN,
    WHOLE,
)
from benchmarks.report import Claim
from crosstune.cost_model.evaluation import GroupScore, Interval, difference, interval, noise_ceiling, random_score
from crosstune.cost_model.groups import Group
from crosstune.cost_model.metrics import skill

Scores = dict[str, dict[str, list[GroupScore]]]
"""By kind of split and method."""
COLD = "without-evidence"
"""The model where nothing is known of a workload anywhere."""
MARGIN = 0.005
"""A loss whose upper bound is below half a point is none."""
RANDOM, CHOSEN = PRUNED_BY


def ranking_claims(scores: Scores, groups: Sequence[Group]) -> list[Claim]:
    """Everything but what is timed. A claim whose split had no data has no value."""

    def level(name: str, kind: str, method: str, metric: str, goal: float) -> Claim:
        rows = _rows(scores, kind, method)
        return _claim(name, interval(rows, metric), goal, "higher", len(rows))

    def gap(name: str, one: tuple[str, str], other: tuple[str, str], metric: str, goal: float) -> Claim:
        rows = _rows(scores, *one)
        return _claim(name, difference(rows, _rows(scores, *other), metric), goal, "higher", len(rows))

    chosen, blind = ((f"kept {CLAIMED_SHARE:.0%} {name}", COLD) for name in (CHOSEN, RANDOM))
    whole_labels, few_labels = _rows(scores, "labels 100%", "attention"), _rows(scores, "labels 7%", "attention")
    lost = difference(whole_labels, few_labels, "top1")
    return [
        level("heldout_top1", HELD_OUT, COLD, "top1", 0.90),
        level("heldout_top5", HELD_OUT, COLD, "top5", 0.97),
        _skill(_rows(scores, HELD_OUT, COLD), [one for one in groups if one.held_out]),
        gap("heldout_top1_minus_xgboost", (HELD_OUT, COLD), (HELD_OUT, "xgboost"), "top1", 0.02),
        gap("pairwise_accuracy_minus_xgboost", (UNSEEN, COLD), (UNSEEN, "xgboost"), "pairwise", 0.02),
        level("unseen_target_top1", CONFIGURATION, "attention", "top1", 0.85),
        level("unseen_target_top5", CONFIGURATION, "attention", "top5", 0.95),
        gap("unseen_top1_minus_blind", (CONFIGURATION, "attention"), (CONFIGURATION, "target-blind"), "top1", 0.0),
        gap("seen_workload_top1_minus_copy", (SEEN, "attention"), (SEEN, "copying"), "top1", 0.0),
        gap("gpu_transfer_top1_minus_copy", (GPU, "attention"), (GPU, "copying"), "top1", 0.0),
        _claim("labels_7pct_top1_gap", lost, 0.02, "lower", len(few_labels)),
        _kept(scores),
        gap("pruned_minus_random_same_size", chosen, blind, "pairwise", 0.0),
    ]


def _rows(scores: Scores, kind: str, method: str) -> list[GroupScore]:
    return scores.get(kind, {}).get(method, [])


def _claim(name: str, found: Interval, goal: float, better: Literal["higher", "lower"], cases: int) -> Claim:
    if math.isnan(found.mean):
        return Claim(name, None, "", goal, better, None, 0)
    bad_end = found.low if better == "higher" else found.high
    return Claim(name, bad_end, "", goal, better, (found.low, found.high), cases)


def _skill(rows: Sequence[GroupScore], held_out: Sequence[Group]) -> Claim:
    """Against the noise ceiling and chance on the same groups."""
    top1, ceiling = interval(rows, "top1"), noise_ceiling(held_out)
    if math.isnan(top1.mean) or not ceiling:
        return Claim("heldout_skill_top1", None, "", 0.85, "higher", None, 0)
    chance = interval([random_score(one) for one in held_out], "top1").mean
    low, high = (skill(end, chance, ceiling["top1"]) for end in (top1.low, top1.high))
    assert low is not None and high is not None
    return Claim("heldout_skill_top1", low, "", 0.85, "higher", (low, high), len(rows))


def _kept(scores: Scores) -> Claim:
    """The smallest kept share, no larger one having lost, that loses less than the margin in both metrics."""
    whole = _rows(scores, WHOLE, COLD)
    smallest = 1.0 if whole else None
    for share in KEPT:
        part = _rows(scores, f"kept {share:.0%} {CHOSEN}", COLD)
        losses = [difference(whole, part, metric).high for metric in ("pairwise", "top1")]
        if not part or not all(loss < MARGIN for loss in losses):
            break
        smallest = share
    return Claim("kept_fraction_non_inferior", smallest, "", 0.25, "lower", None, len(whole))
