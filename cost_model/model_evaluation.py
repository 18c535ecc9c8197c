"""How a trained model does on groups, target by target, beside what needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstune.cost_model.attention.prepared import Prepared, prepare
from crosstune.cost_model.attention.scoring import Scorer
from crosstune.cost_model.baselines.copying import copying_scores
from crosstune.cost_model.evaluation import ceiling_score, group_score, noise_ceiling, random_score, summarise
from crosstune.cost_model.groups import Group


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`rows`: a summary of each method on each target, with the target as canonical JSON; latencies are of the
    programs for which the model gives an estimate."""

    rows: Sequence[Mapping[str, Any]]
    predicted_s: NDArray[np.float64]
    measured_s: NDArray[np.float64]
    card: Mapping[str, Any]


def evaluated(scorer: Scorer, groups: Sequence[Group]) -> Evaluation:
    """Each group with the others' measurements of its workload as evidence."""
    prepared = prepare(groups, groups)
    rows = []
    for target in sorted({one.target for one in groups}):
        chosen = [one for one in prepared if one.group.target == target]
        rows += [{"target": target, **row} for row in _on_target(scorer, chosen)]
    predicted_s, measured_s = _latencies(scorer, prepared)
    return Evaluation(rows, predicted_s, measured_s, scorer.card)


def _on_target(scorer: Scorer, chosen: Sequence[Prepared]) -> list[dict[str, Any]]:
    own = [one.group for one in chosen]
    most = noise_ceiling(own).get("top1", 1.0)
    methods = {
        "model": [group_score(one.group, scorer.score(one.batch)) for one in chosen],
        "model without evidence": [
            group_score(one.group, scorer.score(one.batch.without_evidence())) for one in chosen
        ],
        "copying": copying_scores(chosen),
        "random": [random_score(one) for one in own],
        "noise ceiling": [found for found in map(ceiling_score, own) if found is not None],
    }
    return [asdict(summarise(name, scores, own, most)) for name, scores in methods.items() if scores]


def _latencies(scorer: Scorer, prepared: Sequence[Prepared]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimated and measured seconds of the programs that have both."""
    predicted_s = np.concatenate([scorer.latencies_s(one.batch) for one in prepared] or [np.zeros(0)])
    measured = [program.latency_s for one in prepared for program in one.group.programs]
    measured_s = np.array([np.nan if one is None else one for one in measured], dtype=np.float64)
    both = ~(np.isnan(predicted_s) | np.isnan(measured_s))
    return predicted_s[both], measured_s[both]
