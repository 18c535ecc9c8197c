"""How well each measured batch was ranked, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from crosstune.db.engine import stamp
from crosstune.db.tables import CostModel, RankingCheck, Target, Workload


@dataclass(frozen=True, slots=True)
class Ranked:
    """Of one batch; see `RankingCheck`."""

    programs: int
    pairwise: float
    regret_top1: float
    regret_top5: float


@dataclass(frozen=True, slots=True)
class CheckRow:
    target_id: str
    workload_name: str
    model_id: str | None
    programs: int
    pairwise: float
    regret_top1: float
    regret_top5: float
    checked_at: float


def add(
    connection: Connection,
    ranked: Ranked,
    *,
    target_key: int,
    workload_key: int,
    model_key: int | None,
    step_key: int | None,
    now: float | None = None,
) -> None:
    connection.execute(
        insert(RankingCheck).values(
            target_key=target_key,
            workload_key=workload_key,
            model_key=model_key,
            step_key=step_key,
            programs=ranked.programs,
            pairwise=ranked.pairwise,
            regret_top1=ranked.regret_top1,
            regret_top5=ranked.regret_top5,
            checked_at=stamp(now),
        )
    )


def newest(connection: Connection, per_target: int, target_key: int | None = None) -> list[CheckRow]:
    """The `per_target` newest checks of each target, or of one, newest first."""
    place = (
        func.row_number().over(partition_by=RankingCheck.target_key, order_by=RankingCheck.key.desc()).label("place")
    )
    chosen = select(RankingCheck.key, place)
    if target_key is not None:
        chosen = chosen.where(RankingCheck.target_key == target_key)
    found = chosen.subquery()
    rows: Any = connection.execute(
        select(
            Target.id,
            Workload.name,
            CostModel.id,
            RankingCheck.programs,
            RankingCheck.pairwise,
            RankingCheck.regret_top1,
            RankingCheck.regret_top5,
            RankingCheck.checked_at,
        )
        .join_from(RankingCheck, found, found.c.key == RankingCheck.key)
        .join(Target, Target.key == RankingCheck.target_key)
        .join(Workload, Workload.key == RankingCheck.workload_key)
        .outerjoin(CostModel, CostModel.key == RankingCheck.model_key)
        .where(found.c.place <= per_target)
        .order_by(RankingCheck.key.desc())
    )
    return [CheckRow(*row) for row in rows]
