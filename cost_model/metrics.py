"""How well a model ranks: TenSet's metrics exactly as its code has them, and variants without their quirks.

A *pool* is the measured programs of one workload on one target. Labels are throughputs relative to the pool's fastest
program, in [0, 1], 0 for failures; predictions are any numbers, higher = faster. Both have shape (n,).

Sources: tlc-pack/tenset@35774ed3, python/tvm/auto_scheduler/cost_model/metric.py, scripts/train_model.py and
scripts/eval_model_on_dataset.py. Published figures compare only when they were computed on the same files and split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
LEAST_THROUGHPUT = 1e-5
"""TenSet's floor: a failure counts as a latency of 100,000 times the best."""


def pairwise_accuracy(predicted: Values, labels: Values) -> float:
    """Share of pairs i < j in which `predicted[i] > predicted[j]` says the same as `labels[i] > labels[j]`.

    TenSet's: a tie counts as "not greater", so the value depends on the order, and constant predictions do not score
    one half. 0.5 for a pool of one.
    """
    count = len(labels)
    if count <= 1:
        return 0.5
    right = sum(
        int(np.count_nonzero((predicted[i] > predicted[i + 1 :]) == (labels[i] > labels[i + 1 :])))
        for i in range(count - 1)
    )
    return right / (count * (count - 1) / 2)


def pairwise_accuracy_without_ties(predicted: Values, labels: Values) -> float | None:
    """Share of the pairs with different labels that are in the right order; equal predictions count as half right.

    It does not depend on the order, and constant predictions score one half. None when all labels are equal.
    """
    right, pairs = 0.0, 0
    for i in range(len(labels) - 1):
        label_sign = np.sign(labels[i] - labels[i + 1 :])
        differs = label_sign != 0
        agreement = np.sign(predicted[i] - predicted[i + 1 :])[differs] * label_sign[differs]
        right += float(np.count_nonzero(agreement > 0)) + 0.5 * float(np.count_nonzero(agreement == 0))
        pairs += int(np.count_nonzero(differs))
    return right / pairs if pairs else None


def top_k_recall(predicted: Values, labels: Values, k: int) -> float:
    """How many of the k best are among the k best-predicted, over k (TenSet)."""
    best = set(np.argsort(-labels)[:k].tolist())
    return len(best.intersection(np.argsort(-predicted)[:k].tolist())) / k


def peak(predicted: Values, labels: Values, k: int) -> float:
    """TenSet's peak@k: mean over j = 1..k of the best label among the j best-predicted, over the best label.

    An average of the running maximum, not the maximum at k. Among equal predictions the last comes first.
    """
    chosen = labels[np.argsort(predicted)[::-1][:k]]
    return float(np.mean(np.maximum.accumulate(chosen) / np.max(labels)))


def top_k(predicted: Values, labels: Values, k: int) -> float:
    """The best label among the k best-predicted over the pool's best: 1 when the fastest program is among them.

    Equal predictions count by their expected value, so that a constant model scores as random does.
    """
    best = float(np.max(labels))
    if best <= 0.0:
        return 1.0  # nothing works, and nothing better could be chosen
    order = np.argsort(-predicted, kind="stable")
    edge = predicted[order[min(k, len(labels)) - 1]]
    sure = labels[predicted > edge]
    tied = labels[predicted == edge]
    return expected_maximum(tied, min(k, len(labels)) - len(sure), float(sure.max(initial=0.0))) / best


def expected_maximum(labels: Values, drawn: int, least: float = 0.0) -> float:
    """Expected value of the largest of `least` and `drawn` labels, taken without replacement."""
    count = len(labels)
    if drawn >= count:
        return max(least, float(labels.max(initial=least)))
    ordered = np.maximum(np.sort(labels), least)
    ways = _log_choose(count, drawn)
    # The largest of the drawn is the i-th smallest with probability C(i, drawn - 1) / C(count, drawn), i from 0.
    weights = [math.exp(_log_choose(i, drawn - 1) - ways) for i in range(drawn - 1, count)]
    return float(np.dot(weights, ordered[drawn - 1 :]))


def random_top_k(labels: Values, k: int) -> float:
    """What `top_k` is on average when programs are chosen blindly."""
    best = float(np.max(labels))
    return expected_maximum(labels, min(k, len(labels))) / best if best > 0.0 else 1.0


def skill(score: float, random: float, ceiling: float) -> float | None:
    """How far from random to the noise ceiling: (score - random) / (ceiling - random); None when there is no room."""
    return (score - random) / (ceiling - random) if ceiling > random else None


def root_mean_square_error(predicted: Values, labels: Values) -> float:
    return float(np.sqrt(np.mean(np.square(predicted - labels))))


def r_squared(predicted: Values, labels: Values) -> float:
    """TenSet's: 1 where the labels hardly differ."""
    total = float(np.sum(np.square(labels - np.mean(labels))))
    return 1.0 if total < 1e-6 else 1.0 - float(np.sum(np.square(labels - predicted))) / total


def mean_relative_error(predicted: Values, labels: Values) -> float:
    """TenSet's MAPE, as a share; failures with labels near 0 make it explode, so give it none."""
    return float(np.mean(np.abs(labels - predicted) / labels))


@dataclass(frozen=True, slots=True)
class Pool:
    """Predictions and labels of one workload on one target; `weight` is how often a network calls the workload."""

    predicted: Values
    labels: Values
    fastest_s: float = 1.0
    """Latency of the fastest program."""
    weight: float = 1.0


def average(pools: Sequence[Pool], metric: Callable[[Values, Values], float]) -> float:
    """TenSet's value of a data set: the mean over pools, weighted by their sizes."""
    return float(
        np.average([metric(one.predicted, one.labels) for one in pools], weights=[len(p.labels) for p in pools])
    )


def average_root_mean_square_error(pools: Sequence[Pool]) -> float:
    """TenSet's: the root of the weighted mean of squared errors."""
    return math.sqrt(average(pools, lambda predicted, labels: root_mean_square_error(predicted, labels) ** 2))


def network_top_k(pools: Sequence[Pool], k: int) -> float:
    """Best possible latency of a network over the one that the k best-predicted of each task give.

    sum w * fastest / sum w * min(latency of the k best-predicted), with latency = fastest / max(label, 1e-5). For the
    *pooled* score of several networks (TLP, NLTSP) give the tasks of all of them at once; for TenSet's, the mean of
    each network's score.
    """
    best = chosen = 0.0
    for one in pools:
        labels = np.maximum(one.labels, LEAST_THROUGHPUT)
        top = labels[np.argsort(-one.predicted)[:k]]
        best += one.weight * one.fastest_s
        chosen += one.weight * float(np.min(one.fastest_s / top))
    return best / chosen


def _log_choose(count: int, drawn: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(drawn + 1) - math.lgamma(count - drawn + 1)
