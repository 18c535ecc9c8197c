"""Shadow and drift: each measured batch is compared with the order that the model had put it in."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sqlalchemy import Connection

from crosstune.db.engine import reading, stamp
from crosstune.db.repositories import cost_models, projects, ranking_checks
from crosstune.db.repositories.ranking_checks import CheckRow, Ranked
from crosstune.service import lookups
from crosstune.service.cost_models import begin
from crosstune.service.schemas.cost_models import Accuracy, DriftOut, RetrainIn
from crosstune.service.services import Services
from crosstune.service.settings import Settings
from crosstune.tuner.contracts import CandidateResult

LEAST_PROGRAMS = 4
"""A smaller batch says nothing."""
WINDOW = 200
"""Newest batches of a target that count."""
LEAST_CHECKS = 10
"""Fewer are no drift yet."""
RETRAIN_PAUSE_S = 24 * 3600.0
"""A new version needs new records."""


def ranked(candidates: Sequence[CandidateResult]) -> Ranked | None:
    """None where too few programs of a batch have both a score and a latency.

    Scores are the model's with its correction: what chose these candidates. Chosen ones are alike and hard to tell
    apart, so this is less than what a model reaches on all programs of a workload.
    """
    import numpy as np

    from crosstune.cost_model.metrics import pairwise_accuracy_without_ties, top_k
    from crosstune.tuner.rounds import quick_s

    pairs = [(one.predicted_score, quick_s(one.attempts)) for one in candidates if one.predicted_score is not None]
    timed = [(score, latency_s) for score, latency_s in pairs if latency_s is not None]
    if len(timed) < LEAST_PROGRAMS:
        return None
    scores, latencies_s = (np.array(column, dtype=np.float64) for column in zip(*timed, strict=True))
    labels = latencies_s.min() / latencies_s
    pairwise = pairwise_accuracy_without_ties(scores, labels)
    return Ranked(
        len(timed),
        0.5 if pairwise is None else pairwise,
        *(1.0 / top_k(scores, labels, k) - 1.0 for k in (1, 5)),
    )


def report(services: Services, target: str | None) -> DriftOut:
    threshold = services.settings.drift_threshold
    with reading(services.engine) as connection:
        key = None if target is None else lookups.target(connection, target).key
        return DriftOut(threshold=threshold, window=WINDOW, entries=entries(connection, threshold, key))


def entries(connection: Connection, threshold: float, target_key: int | None = None) -> list[Accuracy]:
    """By target, all its operators first and then each; operators in the order of their names."""
    rows = ranking_checks.newest(connection, WINDOW, target_key)
    by_target: dict[str, list[CheckRow]] = {}
    for row in rows:
        by_target.setdefault(row.target_id, []).append(row)
    found = []
    for target_id, checks in by_target.items():
        found.append(_accuracy(target_id, None, checks, threshold))
        for operator in sorted({one.workload_name for one in checks}):
            own = [one for one in checks if one.workload_name == operator]
            found.append(_accuracy(target_id, operator, own, threshold))
    return found


def retrain_where_needed(connection: Connection, settings: Settings, now: float | None = None) -> str | None:
    """Begin a retraining when a target has drifted, if that is asked for, none runs, and none began lately; its id."""
    if not settings.retrain_on_drift or cost_models.in_training(connection) is not None:
        return None
    newest = cost_models.list_page(connection, 1)
    if newest and stamp(now) - newest[0].created_at < RETRAIN_PAUSE_S:
        return None
    if not any(one.drifting for one in entries(connection, settings.drift_threshold) if one.operator is None):
        return None
    return begin(connection, projects.get(connection).id, RetrainIn()).id


def _accuracy(target_id: str, operator: str | None, checks: Sequence[CheckRow], threshold: float) -> Accuracy:
    pairwise = fmean(one.pairwise for one in checks)
    return Accuracy(
        target=target_id,
        operator=operator,
        checks=len(checks),
        pairwise=pairwise,
        regret_top1=fmean(one.regret_top1 for one in checks),
        regret_top5=fmean(one.regret_top5 for one in checks),
        cost_models=sorted({one.model_id or "shipped" for one in checks}),
        since=lookups.utc(min(one.checked_at for one in checks)),
        drifting=len(checks) >= LEAST_CHECKS and pairwise < threshold,
    )
