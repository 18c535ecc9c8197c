"""Child side: score schedules of one workload on one target from their decisions alone, nothing lowered."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from crosstune.cost_model.attention.candidates import Candidates
from crosstune.cost_model.attention.scoring import load_scorer
from crosstune.cost_model.ranker import Elsewhere
from crosstune.tuner.contracts import MeasuredElsewhere, TargetSpec, sha256_json

THREADS = 2


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Answers scores in order: higher = faster among these.

    payload: model_folder, module (TVM's JSON of the workload), target, attributes, elsewhere
    (of MeasuredElsewhere), instructions, and decisions of each schedule
    """
    scorer = load_scorer(Path(payload["model_folder"]), THREADS)
    candidates = _candidates(_Asked(payload))
    traces = [[payload["instructions"], decisions] for decisions in payload["decisions"]]
    return {"scores": scorer.score(candidates.batch(traces, [None] * len(traces))).tolist()}


class _Asked:
    """The part of a payload that is the same for many requests; equal when all of it is."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.module, self.elsewhere = payload["module"], payload["elsewhere"]
        self.target = fields(payload["target"], payload["attributes"])
        self._key = sha256_json([self.module, self.target, self.elsewhere])

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


@lru_cache(maxsize=16)
def _candidates(asked: _Asked) -> Candidates:
    known = [MeasuredElsewhere.from_json(one) for one in asked.elsewhere]
    elsewhere = [Elsewhere(fields(one.target.to_json(), one.attributes), one.traces, one.latencies_s) for one in known]
    return Candidates(asked.module, asked.target, elsewhere)


def fields(target: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    """A target as the cost model sees it."""
    return {**TargetSpec.from_json(target).to_json(), "attributes": attributes}
