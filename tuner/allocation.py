"""Which task of a job gets the next round: the largest expected gain in network latency per second.

The estimate blends what the task's last rounds brought with what an optimistic decline of its latency would bring
(the same two terms as Ansor's gradient, Zheng et al., OSDI 2020, section 6), never more than what is left above
the hardware's limit, and divides by the seconds that a round of this task has cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HISTORY_WEIGHT = 0.3
"""Share of the recent gain in the blend; the rest is the optimistic decline best / rounds."""
FLAT_ROUNDS = 4
"""A task is flat after this many rounds in a row that gained less than FLAT_GAIN."""
FLAT_GAIN = 0.01
SMALL_SHARE = 0.005
"""A flat task is converged once even an optimistic round would save less than this share of the network's latency."""
FIRST_ROUND_S = 10.0
"""What a round is taken to cost before one was run."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """What is known of one task of a job; latencies in seconds, `bests_s` after each round so far."""

    weight: int
    flops: float
    default_s: float | None
    bests_s: tuple[float, ...]
    spent_s: float
    exhausted: bool
    busy: bool = False
    """Another job has a live round of the same workload on the same target: wait for its result."""

    @property
    def rounds(self) -> int:
        return len(self.bests_s)


def converged(task: TaskState, network_s: float, peak_flops_per_s: float | None = None) -> bool:
    """True when nothing more is to be expected of this task.

    `network_s`: the network's latency as far as it is known. A task that is most of it is not given up after a few flat
    rounds, which are common, while one of a thousandth is.
    """
    if task.exhausted:
        return True
    if task.rounds <= FLAT_ROUNDS:
        return False
    before, now = task.bests_s[-1 - FLAT_ROUNDS], task.bests_s[-1]
    if now <= before * (1.0 - FLAT_GAIN):
        return False
    return task.weight * expected_gain_s(task, peak_flops_per_s) < SMALL_SHARE * network_s


def expected_gain_s(task: TaskState, peak_flops_per_s: float | None) -> float:
    """What another round may take off one call, seconds, after at least one round."""
    best_s = task.bests_s[-1]
    floor_s = task.flops / peak_flops_per_s if peak_flops_per_s else 0.0
    window = min(3, task.rounds - 1)
    recent_s = (task.bests_s[-1 - window] - best_s) / window if window else 0.0
    optimistic_s = best_s / task.rounds
    gain_s = HISTORY_WEIGHT * recent_s + (1.0 - HISTORY_WEIGHT) * optimistic_s
    return min(gain_s, max(best_s - floor_s, 0.0))


def expected_gain_per_s(task: TaskState, peak_flops_per_s: float | None) -> float:
    """Expected saving in network latency per second of tuning; unitless (seconds per second)."""
    if task.rounds == 0:
        # Never measured: order by what it is likely to cost, FLOPs at a tenth of the peak standing for the latency.
        guess_s = task.default_s if task.default_s is not None else task.flops / (0.1 * (peak_flops_per_s or 1e11))
        return 1e3 + task.weight * guess_s
    round_s = task.spent_s / task.rounds if task.spent_s > 0 else FIRST_ROUND_S
    return task.weight * expected_gain_s(task, peak_flops_per_s) / round_s


def next_task(tasks: Sequence[TaskState], peak_flops_per_s: float | None = None) -> int | None:
    """Index of the task whose next round promises most, or None when all are converged or busy."""
    network_s = sum(task.weight * task.bests_s[-1] for task in tasks if task.bests_s)
    open_tasks = [
        i for i, task in enumerate(tasks) if not task.busy and not converged(task, network_s, peak_flops_per_s)
    ]
    if not open_tasks:
        return None
    return max(open_tasks, key=lambda i: expected_gain_per_s(tasks[i], peak_flops_per_s))


def network_estimate_s(tasks: Sequence[TaskState], tuned: bool = True) -> float | None:
    """Sum of weight x latency over tasks (best so far, or default); None while some task has no latency."""
    total = 0.0
    for task in tasks:
        best = task.bests_s[-1] if tuned and task.bests_s else task.default_s
        if best is None:
            return None
        total += task.weight * best
    return total
