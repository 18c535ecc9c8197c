"""Measure a stored schedule again, in a fresh build: do its records hold?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from crosstune.tuner.builder import Builder, BuildJob
from crosstune.tuner.contracts import Attempt, Quality, RoundRequest
from crosstune.tuner.runner import Runner

MEASUREMENTS = 3
"""Of one schedule; the median over all their repeats counts, as a record is judged by that of its measurements."""
TRIES = 7
"""Measurements of one schedule at most, while something else disturbs them; the last then counts."""


def measure_again(
    builder: Builder,
    runner: Runner,
    request: RoundRequest,
    trace: Any,
    device: Callable[[], AbstractContextManager[None]],
) -> Attempt:
    """One full attempt made of several undisturbed ones; `request` names target and workload, `device` holds it."""
    built = builder.build(BuildJob(request.workload.module, trace, request.target))
    if isinstance(built, Attempt):
        return built
    undisturbed: list[Attempt] = []
    with built, device():
        for _ in range(TRIES):
            before_s = runner.settle(request.target)
            attempt = runner.measure(built, request, Quality.FULL, None)
            if attempt.invalidity is not None:
                return attempt
            if not runner.disturbed(max(before_s, runner.reference(request.target))):
                undisturbed.append(attempt)
            if len(undisturbed) == MEASUREMENTS:
                break
    if not undisturbed:
        return replace(attempt, disturbed=True)
    return replace(attempt, latencies_s=tuple(value for each in undisturbed for value in each.latencies_s))
