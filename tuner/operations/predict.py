"""Child side: score schedules of one workload on one target from their decisions alone, nothing lowered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crosstune.cost_model.attention.candidates import Candidates
from crosstune.cost_model.attention.scoring import load_scorer
from crosstune.tuner.contracts import MeasuredElsewhere, TargetSpec, sha256_json
from crosstune.tuner.evidence import elsewhere_of, fields_of

THREADS = 2

_candidates: dict[str, Candidates] = {}
"""Of the last request: the next is often of the same workload and target, and what is known of them costs most."""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Answers scores in order: higher = faster among these.

    payload: model_folder, module (TVM's JSON of the workload), target, attributes, elsewhere (of MeasuredElsewhere),
    instructions, and decisions of each schedule
    """
    scorer = load_scorer(Path(payload["model_folder"]), THREADS)
    traces = [[payload["instructions"], decisions] for decisions in payload["decisions"]]
    return {"scores": scorer.score(_known(payload).batch(traces, [None] * len(traces))).tolist()}


def _known(payload: dict[str, Any]) -> Candidates:
    key = sha256_json([payload[name] for name in ("module", "target", "attributes", "elsewhere")])
    if key not in _candidates:
        _candidates.clear()
        target = fields_of(TargetSpec.from_json(payload["target"]), payload["attributes"])
        elsewhere = [elsewhere_of(MeasuredElsewhere.from_json(one)) for one in payload["elsewhere"]]
        _candidates[key] = Candidates(payload["module"], target, elsewhere)
    return _candidates[key]
