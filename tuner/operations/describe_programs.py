"""Child side: statement features of programs that were measured without them, by replaying their traces."""

from __future__ import annotations

import base64
from typing import Any

from crosstune.cost_model.features import pack
from crosstune.tuner.contracts import TargetSpec, TraceJson
from crosstune.tuner.tvm_adapter.schedule import ReplayFailed, load_module, postprocess, replay
from crosstune.tuner.tvm_adapter.statements import statement_features
from crosstune.tuner.tvm_adapter.target import tvm_target


def run(payload: dict[str, Any]) -> list[str | None]:
    """Packed features in base64 of each of `traces`; None where one does not replay or cannot be described.

    payload: module (TVM's JSON), target, traces, threads
    """
    target = tvm_target(TargetSpec.from_json(payload["target"]))
    schedules = [_replayed(payload["module"], trace, target) for trace in payload["traces"]]
    there = [schedule for schedule in schedules if schedule is not None]
    features = iter(statement_features(there, payload["module"], target, payload["threads"]))
    found: list[str | None] = []
    for schedule in schedules:
        matrix = None if schedule is None else next(features)
        found.append(None if matrix is None else base64.b64encode(pack(matrix)).decode())
    return found


def without_postprocessing(trace: TraceJson) -> TraceJson:
    """The trace up to EnterPostproc: what follows is done anew."""
    instructions, decisions = trace
    names = [instruction[0] for instruction in instructions]
    end = names.index("EnterPostproc") if "EnterPostproc" in names else len(names)
    return [instructions[:end], [decision for decision in decisions if decision[0] < end]]


def _replayed(module_json: str, trace: TraceJson, target: Any) -> Any:
    try:
        schedule = replay(load_module(module_json), without_postprocessing(trace), strict=False, seed=1)
        postprocess(schedule, module_json, target)
    except ReplayFailed:
        return None
    return schedule
