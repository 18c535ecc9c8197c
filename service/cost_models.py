"""Versions of the cost model: retrain, compare, promote, roll back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix
from crosstune.db.repositories import artifacts, cost_models
from crosstune.db.repositories.cost_models import NOTHING_YET, CostModelRow, CostModelStatus
from crosstune.service import idempotency, journal, judging, lookups, work
from crosstune.service.errors import (
    CostModelHasNoFiles,
    CostModelNotTraining,
    CostModelUnknown,
    NothingToRollBack,
    PromotionRefused,
    RetrainRunning,
)
from crosstune.service.model_files import NAME, SHIPPED
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply, reply
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.cost_models import (
    Between,
    ComparisonOut,
    CostModelDetail,
    CostModelKind,
    CostModelOut,
    JudgeIn,
    JudgeOut,
    Quality,
    RetrainIn,
)
from crosstune.service.services import Services

if TYPE_CHECKING:
    from crosstune.cost_model.evaluation import Interval

LIST = "cost_models"


def retrain(services: Services, caller: Principal, key: str | None, body: RetrainIn) -> Reply:
    """A new version in training. One at a time: a second would learn from the same records."""

    def run(connection: Connection) -> Reply:
        running = cost_models.in_training(connection)
        if running is not None:
            raise RetrainRunning(running.id)
        model = begin(connection, caller.project_id, body)
        journal.note(connection, caller, "retrain", model.id)
        return reply(202, _out(connection, model))

    return idempotency.once(services, caller, key, ["retrain_cost_model", body.model_dump(mode="json")], run)


def judge(services: Services, caller: Principal, key: str | None, body: JudgeIn) -> Reply:
    """Rank the same programs with versions that never were, or that newer records would judge otherwise."""

    def run(connection: Connection) -> Reply:
        for version in body.versions:
            _usable(connection, version)
        versions = list(body.versions)
        step_id = work.enqueue_judge(connection, caller.project_id, versions)
        journal.note(connection, caller, "judge", step_id)
        return reply(202, JudgeOut(step=step_id, versions=versions))

    return idempotency.once(services, caller, key, ["judge_cost_models", body.model_dump(mode="json")], run)


def begin(connection: Connection, project_id: str, body: RetrainIn) -> CostModelRow:
    """A version in training, and its step."""
    request = body.model_dump(mode="json")
    request["targets"] = [lookups.target(connection, one).id for one in body.targets]
    if body.base is not None:
        _usable(connection, body.base)
    champion = cost_models.champion(connection, NAME)
    model = cost_models.add(
        connection,
        name=NAME,
        data_fingerprint=NOTHING_YET,
        feature_layout=_feature_layout(),
        card={"request": request},
        parent_key=None if champion is None else champion.key,
        status=CostModelStatus.TRAINING,
    )
    work.enqueue_retrain(connection, project_id, model.id, request)
    return model


def page(services: Services, limit: int, cursor: str | None) -> Page[CostModelOut]:
    """The shipped version ends the last page."""
    before = lookups.page_start(LIST, cursor, Prefix.COST_MODEL)
    with reading(services.engine) as connection:
        rows = cost_models.list_page(connection, limit + 1, before)
        found = lookups.page_of(
            LIST, rows, limit, lambda shown: [_out(connection, row) for row in shown], lambda row: row.id
        )
        if found.next is None:
            return Page(items=[*found.items, _shipped(connection)], next=None)
        return found


def show(services: Services, version: str) -> CostModelDetail:
    with reading(services.engine) as connection:
        if version == SHIPPED:
            return CostModelDetail(**_shipped(connection).model_dump(), progress=[])
        model = _get(connection, version)
        return CostModelDetail(
            **_out(connection, model).model_dump(),
            request=model.card.get("request"),
            code_version=model.card.get("code_version"),
            training=model.card.get("training"),
            quality=_quality(model),
            progress=model.card.get("progress", []),
        )


def cancel(services: Services, caller: Principal, version: str) -> CostModelOut:
    def ask(connection: Connection) -> CostModelOut:
        model = _get(connection, version)
        if model.status not in cost_models.LIVE:
            raise CostModelNotTraining(model.id, model.status)
        cost_models.ask_to_cancel(connection, model.id)
        journal.note(connection, caller, "cancel", model.id)
        return _out(connection, cost_models.get(connection, model.id))

    return retrying(services.engine, ask)


def compare(services: Services, first: str, second: str) -> ComparisonOut:
    with reading(services.engine) as connection:
        for version in (first, second):
            _usable(connection, version)
        fingerprint, found = judging.compare(connection, first, second)
    return ComparisonOut(
        first=first,
        second=second,
        data_fingerprint=fingerprint,
        groups=found.groups,
        overall=_between(found.overall),
        by_target=_between(found.by_target),
        may_replace=not found.reasons,
        reasons=list(found.reasons),
    )


def promote(services: Services, caller: Principal, version: str) -> CostModelOut:
    """Jobs use it from their next round on; PromotionRefused says which gates it did not pass."""

    def run(connection: Connection) -> CostModelOut:
        _usable(connection, version)
        reasons = judging.reasons_against(connection, version)
        if reasons:
            raise PromotionRefused(version, judging.champion_version(connection), reasons)
        model = cost_models.promote(connection, version)
        journal.note(connection, caller, "promote", model.id)
        return _out(connection, model)

    return retrying(services.engine, run)


def roll_back(services: Services, caller: Principal) -> CostModelOut:
    """Back to the version that the champion replaced, without gates: that one has passed them."""

    def run(connection: Connection) -> CostModelOut:
        champion = cost_models.champion(connection, NAME)
        if champion is None:
            raise NothingToRollBack
        before = cost_models.roll_back(connection, NAME)
        journal.note(connection, caller, "roll-back", champion.id)
        return _shipped(connection) if before is None else _out(connection, before)

    return retrying(services.engine, run)


def files(services: Services, version: str, training_set: bool = False) -> tuple[Path, str]:
    """The archive of a version's files, or of the data set that it learnt from, and its sha256."""
    with reading(services.engine) as connection:
        model = _usable(connection, version)
        wanted = None if model is None else model.card.get("training_set") if training_set else model.artifact_id
        if wanted is None:
            raise CostModelHasNoFiles(version)
        artifact = artifacts.get(connection, wanted)
    return services.store.path(artifact.uri), artifact.sha256


def require_files(connection: Connection, version: str) -> None:
    """Raises CostModelUnknown or CostModelHasNoFiles unless the version can rank."""
    _usable(connection, version)


def _usable(connection: Connection, version: str) -> CostModelRow | None:
    """A version with files; None for the shipped one."""
    if version == SHIPPED:
        return None
    model = _get(connection, version)
    if model.status not in cost_models.USABLE:
        raise CostModelHasNoFiles(version, model.status)
    return model


def _get(connection: Connection, version: str) -> CostModelRow:
    try:
        return cost_models.get(connection, version)
    except NotFound as error:
        raise CostModelUnknown(version) from error


def _out(connection: Connection, model: CostModelRow) -> CostModelOut:
    return CostModelOut(
        id=model.id,
        version=model.version,
        kind=model.card.get("request", {}).get("kind", CostModelKind.ATTENTION),
        state=model.status.value,
        parent=None if model.parent_key is None else cost_models.id_of(connection, model.parent_key),
        data_fingerprint=None if model.data_fingerprint == NOTHING_YET else model.data_fingerprint,
        failure=model.card.get("failure"),
        withdrawn=[one["reason"] for one in model.card.get("withdrawn", [])],
        created_at=lookups.utc(model.created_at),
    )


def _shipped(connection: Connection) -> CostModelOut:
    in_use = cost_models.champion(connection, NAME) is None
    state = CostModelStatus.CHAMPION if in_use else CostModelStatus.RETIRED
    return CostModelOut(id=SHIPPED, version=0, kind=CostModelKind.ATTENTION, state=state.value)


def _quality(model: CostModelRow) -> Quality | None:
    from crosstune.cost_model.evaluation import interval

    judged = model.card.get("judged")
    scores = judging.read(judged).scores.get(model.id) if judged else None
    if not scores:
        return None
    targets = sorted({one.target for one in scores})
    by_target = {target: interval([one for one in scores if one.target == target], "top1") for target in targets}
    overall = {metric: interval(scores, metric) for metric in judging.METRICS}
    return Quality(groups=len(scores), metrics=_between(overall), by_target=_between(by_target))


def _between(intervals: Mapping[str, Interval]) -> dict[str, Between]:
    return {name: Between(**asdict(one)) for name, one in intervals.items()}


def _feature_layout() -> int:
    from crosstune.cost_model.features import FEATURE_LAYOUT

    return FEATURE_LAYOUT
