"""How versions of the cost model compare, by what was stored when they were judged on the same programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from crosstune.db.repositories import cost_models
from crosstune.service.errors import NotJudgedTogether
from crosstune.service.model_files import NAME, SHIPPED

if TYPE_CHECKING:
    from crosstune.cost_model.evaluation import GroupScore
    from crosstune.cost_model.gates import Comparison

METRICS = ("top1", "top5", "pairwise")


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of versions on the same programs, which `data_fingerprint` names."""

    data_fingerprint: str
    scores: dict[str, list[GroupScore]]


def champion_version(connection: Connection) -> str:
    model = cost_models.champion(connection, NAME)
    return SHIPPED if model is None else model.id


def compare(connection: Connection, first: str, second: str) -> tuple[str, Comparison]:
    """The fingerprint of the judged data, and the comparison. Raises NotJudgedTogether."""
    from crosstune.cost_model import gates

    found = _together(connection, first, second)
    return found.data_fingerprint, gates.compare(found.scores[first], found.scores[second], METRICS)


def reasons_against(connection: Connection, version: str) -> tuple[str, ...]:
    """Why the version may not replace the champion; none when it may, or is it already."""
    champion = champion_version(connection)
    return () if champion == version else compare(connection, version, champion)[1].reasons


def passes(connection: Connection, version: str) -> bool:
    """Whether its gates are open; not where it cannot be compared with the champion."""
    try:
        return not reasons_against(connection, version)
    except NotJudgedTogether:
        return False


def _together(connection: Connection, first: str, second: str) -> Judged:
    """The newest occasion on which both were judged."""
    for model in cost_models.usable(connection):
        judged = model.card.get("judged")
        if judged and all(isinstance(judged["scores"].get(one), list) for one in (first, second)):
            return read(judged)
    raise NotJudgedTogether(first, second)


def read(judged: dict[str, Any]) -> Judged:
    from crosstune.cost_model.evaluation import GroupScore

    scores = {
        version: [GroupScore(**one) for one in rows]
        for version, rows in judged["scores"].items()
        if isinstance(rows, list)
    }
    return Judged(judged["fingerprint"], scores)
