"""Figures for Prometheus, taken from the database at each scrape, so that every process of a service tells the same."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from crosstune.db.engine import reading
from crosstune.db.repositories import jobs, steps, targets, workers
from crosstune.service import availability, drift, work
from crosstune.service.schemas.cost_models import Accuracy
from crosstune.service.services import Services

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

ALL = "all"
"""Label of the mean over a target's operators."""


def exposition(services: Services) -> tuple[bytes, str]:
    """The text format, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

    with reading(services.engine) as connection:
        live = len(workers.seen_since(connection, availability.seen_after(services)))
        states = steps.counts(connection)
        queues = _queues(connection)
        failed, repeated, expired = steps.failures(connection), steps.repeats(connection), steps.expiries(connection)
        ended, trials = jobs.counts(connection), jobs.all_trials(connection)
        accuracies = drift.entries(connection, services.settings.drift_threshold)
    registry = CollectorRegistry()
    Gauge("crosstune_workers_live", "Workers heard of lately.", registry=registry).set(live)
    by_state = Gauge("crosstune_steps", "Steps of durable work.", ["state"], registry=registry)
    for state in steps.StepState:
        by_state.labels(state.value).set(states.get(state, 0))
    depth = Gauge("crosstune_queue_steps", "Steps that wait, by target.", ["target"], registry=registry)
    age = Gauge("crosstune_queue_oldest_seconds", "How long the oldest of them waits.", ["target"], registry=registry)
    for target, waiting, waits_s in queues:
        depth.labels(target).set(waiting)
        age.labels(target).set(waits_s)
    # Sums over rows that are kept, so they only ever grow.
    by_kind = Counter("crosstune_steps_failed", "Steps that failed for good.", ["kind"], registry=registry)
    for kind, count in failed.items():
        by_kind.labels(kind).inc(count)
    Counter("crosstune_steps_repeated", "Claims after a death.", registry=registry).inc(repeated)
    Counter("crosstune_lease_expiries", "Steps taken from silent workers.", registry=registry).inc(expired)
    Counter("crosstune_trials", "Candidates that jobs measured.", registry=registry).inc(trials)
    by_end = Gauge("crosstune_jobs", "Jobs by state.", ["state"], registry=registry)
    for job_state in jobs.JobState:
        by_end.labels(job_state.value).set(ended.get(job_state, 0))
    _rankings(registry, accuracies)
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _queues(connection: Connection) -> list[tuple[str, int, float]]:
    """(target's name or the queue's, steps that wait, seconds that the oldest one waits)."""
    now = time.time()
    names = {work.target_queue(one.id): one.name for one in targets.every(connection)}
    return [
        (names.get(one.queue, one.queue), one.waiting, max(0.0, now - one.oldest)) for one in steps.depths(connection)
    ]


def _rankings(registry: CollectorRegistry, accuracies: list[Accuracy]) -> None:
    from prometheus_client import Gauge

    labels = ["target", "operator"]
    gauges = {
        "checks": Gauge("crosstune_ranking_checks", "Measured batches that count.", labels, registry=registry),
        "pairwise": Gauge(
            "crosstune_ranking_pairwise_accuracy", "Pairs of a batch in the right order.", labels, registry=registry
        ),
        "regret_top1": Gauge(
            "crosstune_ranking_regret_top1", "How much slower the first-ranked was.", labels, registry=registry
        ),
        "regret_top5": Gauge(
            "crosstune_ranking_regret_top5", "The same of the best of five.", labels, registry=registry
        ),
        "drifting": Gauge(
            "crosstune_ranking_drifting", "1: the accuracy is below its threshold.", labels, registry=registry
        ),
    }
    for one in accuracies:
        for name, gauge in gauges.items():
            gauge.labels(one.target, one.operator or ALL).set(float(getattr(one, name)))
