"""The candidates of a search as the model's arrays: one workload on one target, evidence from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crosstune.cost_model.attention.batches import Batch, group_batch
from crosstune.cost_model.attention.elsewhere import ElsewhereTrees
from crosstune.cost_model.features import Matrix
from crosstune.cost_model.formats.record import canonical
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.ranker import Elsewhere
from crosstune.cost_model.tokens.hardware import hardware_token
from crosstune.cost_model.tokens.schedule import tokens
from crosstune.cost_model.tokens.trace_steps import trace_steps
from crosstune.cost_model.tokens.workload import workload_token

Trace = Sequence[Any]
"""[instructions, decisions]"""


class Candidates:
    """Makes batches for one workload on one target; what is the same for all candidates is worked out once."""

    def __init__(self, workload_module: str, target: Mapping[str, Any], elsewhere: Sequence[Elsewhere] = ()) -> None:
        """`target`: its fields, with `attributes` where they are known; `workload_module`: TVM's JSON."""
        self._shape = workload_token(workload_module)
        self._target = canonical(target)
        self._others = [self._known(one) for one in elsewhere]
        self._taught = ElsewhereTrees(hardware_token(self._target), self._others)

    def batch(self, traces: Sequence[Trace], features: Sequence[Matrix | None]) -> Batch:
        """One row for each trace; features (stores, 164) are None where a candidate was not lowered.

        What trees expect is filled in by the scorer.
        """
        programs = [
            Program("", tokens(trace_steps(trace)), matrix, None)
            for trace, matrix in zip(traces, features, strict=True)
        ]
        return group_batch(self._group(self._target, programs), self._others, self._taught)

    def _known(self, one: Elsewhere) -> Group:
        programs = [
            Program("", tokens(trace_steps(trace)), None, latency_s)
            for trace, latency_s in zip(one.traces, one.latencies_s, strict=True)
        ]
        return self._group(canonical(one.target), programs)

    def _group(self, target: str, programs: list[Program]) -> Group:
        return Group("", "", target, "", hardware_token(target), self._shape, False, programs)
