"""Which task of a job gets the next round, and what more rounds would bring.

The next is the task with the largest expected saving in network latency per second of tuning. The same expectation,
spent greedily, says what another minute would bring, when the job will have converged, and what latency it will have.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crosstune.tuner import gains
from crosstune.tuner.gains import Best

LEAST_GAIN = 0.005
"""A job has converged when another minute is expected to take less than this share off the network's latency."""
MINUTE_S = 60.0
TRIAL_S = 0.25
"""What a candidate is taken to cost before one was measured."""
LONGEST_S = 7 * 24 * 3600.0
"""No forecast looks further."""
FORECAST_ROUNDS = 2000
HEADROOM = 1.25
"""Where the calibrated limit is wrong, it is taken to be so many times the highest rate that a task has reached."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """What is known of one task of a job; latencies in seconds of one call."""

    weight: int
    flops: float
    default_s: float | None
    curve: tuple[Best, ...]
    """The best so far, after each round; what was known before the job comes first."""
    trials: int
    """Candidates measured in this job, in `spent_s` seconds."""
    spent_s: float
    exhausted: bool

    @property
    def best(self) -> Best | None:
        return self.curve[-1] if self.curve else None

    @property
    def latency_s(self) -> float | None:
        """The best so far, else the default's."""
        return self.curve[-1].latency_s if self.curve else self.default_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What a forecast assumes."""

    round_trials: int
    peak_flops_per_s: float | None = None
    trials_left: float = float("inf")
    seconds_left: float = float("inf")
    least_gain: float = LEAST_GAIN
    """0: go on until the budget is used."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected of a job's search."""

    gain_per_minute: float
    """Share of the network's latency that another minute is expected to take off."""
    seconds_left: float
    """Of tuning, until the budget is used or the job has converged."""
    latency_s: float
    """The network's, then: the sum over its tasks."""


@dataclass(frozen=True, slots=True)
class Round:
    """One that a forecast expects: what it costs and takes off the network's latency, in seconds."""

    task: int
    trials: int
    cost_s: float
    saved_s: float

    @property
    def rate(self) -> float:
        return self.saved_s / self.cost_s


def next_task(tasks: Sequence[TaskState], plan: Plan) -> int | None:
    """Index of the task whose next round promises most; None when none promises anything.

    Tasks of which no latency is known come first, what is likely to cost most before the rest.
    """
    unknown = [i for i, task in enumerate(tasks) if task.best is None and not task.exhausted]
    if unknown:
        return max(unknown, key=lambda i: tasks[i].weight * _guess_s(tasks[i], plan.peak_flops_per_s))
    first = next(_rounds(tasks, plan), None)
    return None if first is None else first.task


def gain_per_minute(tasks: Sequence[TaskState], plan: Plan) -> float | None:
    """Share of the network's latency that another minute is expected to take off; None as for `outlook`."""
    network_s = _network_s(tasks)
    return saving_s(tasks, plan, MINUTE_S) / network_s if network_s else None


def outlook(tasks: Sequence[TaskState], plan: Plan) -> Outlook | None:
    """None while some task has no latency yet; tasks that were given up without one count for nothing."""
    network_s, gain = _network_s(tasks), gain_per_minute(tasks, plan)
    if network_s is None or gain is None:
        return None
    seconds, trials, latency_s = 0.0, 0, network_s
    for each in _rounds(tasks, _coarser(plan)):
        worth_it = each.rate * MINUTE_S >= plan.least_gain * latency_s
        if not worth_it or trials >= plan.trials_left or seconds >= min(plan.seconds_left, LONGEST_S):
            break
        seconds, trials, latency_s = seconds + each.cost_s, trials + each.trials, latency_s - each.saved_s
    return Outlook(gain, seconds, latency_s)


def saving_s(tasks: Sequence[TaskState], plan: Plan, seconds: float) -> float:
    """What so many more seconds of tuning are expected to take off the network's latency."""
    total_s, left_s = 0.0, seconds
    for each in _rounds(tasks, plan):
        total_s += each.saved_s * min(1.0, left_s / each.cost_s)
        left_s -= each.cost_s
        if left_s <= 0.0:
            break
    return total_s


def network_estimate_s(tasks: Sequence[TaskState], tuned: bool = True) -> float | None:
    """Sum of weight x latency over tasks (best so far, or default); None while some task has no latency."""
    total = 0.0
    for task in tasks:
        latency_s = task.latency_s if tuned else task.default_s
        if latency_s is None:
            return None
        total += task.weight * latency_s
    return total


def _network_s(tasks: Sequence[TaskState]) -> float | None:
    return network_estimate_s([task for task in tasks if task.latency_s is not None or not task.exhausted])


def _rounds(tasks: Sequence[TaskState], plan: Plan) -> Iterator[Round]:
    """The rounds that a job would run from here on, one after the other, the one that promises most first."""
    exponents = gains.exponents([task.curve for task in tasks])
    trial_s = _trial_s(tasks)
    peak = _believable_peak(tasks, plan)

    def expected(position: int, best: Best) -> tuple[Round, Best]:
        task = tasks[position]
        cost_s = plan.round_trials * (task.spent_s / task.trials if task.trials and task.spent_s > 0 else trial_s)
        floor_s = task.flops / peak if peak else 0.0
        then = gains.after(best, plan.round_trials, exponents[position], floor_s)
        saved_s = task.weight * (best.latency_s - then.latency_s)
        return Round(position, plan.round_trials, cost_s, saved_s), then

    waiting: list[tuple[float, int, Round, Best]] = []
    for i, task in enumerate(tasks):
        if task.best is not None and not task.exhausted:
            _wait(waiting, *expected(i, task.best))
    while waiting:
        _, position, each, then = heapq.heappop(waiting)
        yield each
        _wait(waiting, *expected(position, then))


def _believable_peak(tasks: Sequence[TaskState], plan: Plan) -> float | None:
    """The hardware's limit in operations per second: as calibrated, unless a task is beyond that already. Then the
    processor was disturbed when it was calibrated, or slower than it is now."""
    if plan.peak_flops_per_s is None:
        return None
    reached = max((task.flops / task.best.latency_s for task in tasks if task.best is not None), default=0.0)
    return plan.peak_flops_per_s if reached <= plan.peak_flops_per_s else HEADROOM * reached


def _wait(waiting: list[tuple[float, int, Round, Best]], each: Round, then: Best) -> None:
    """A task that promises nothing more is left out."""
    if each.saved_s > 0.0:
        heapq.heappush(waiting, (-each.rate, each.task, each, then))


def _trial_s(tasks: Sequence[TaskState]) -> float:
    """What a candidate of this job has cost."""
    trials, spent_s = sum(task.trials for task in tasks), sum(task.spent_s for task in tasks)
    return spent_s / trials if trials and spent_s > 0 else TRIAL_S


def _coarser(plan: Plan) -> Plan:
    """The same with rounds so large that some thousand of them use the budget."""
    trials = min(plan.trials_left, plan.seconds_left / TRIAL_S, LONGEST_S / TRIAL_S)
    return replace(plan, round_trials=max(plan.round_trials, math.ceil(trials / FORECAST_ROUNDS)))


def _guess_s(task: TaskState, peak_flops_per_s: float | None) -> float:
    """FLOPs at a tenth of the peak stand for the latency of what was never measured."""
    return task.default_s if task.default_s is not None else task.flops / (0.1 * (peak_flops_per_s or 1e11))
