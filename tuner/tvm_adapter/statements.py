"""Statement features of scheduled programs, through TVM's per-store feature extractor (parallel in C++)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule import MeasureCandidate, TuneContext
from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature
from tvm.target import Target

from crosstune.cost_model.features import STATEMENT_COLUMNS, Matrix
from crosstune.tuner.tvm_adapter.schedule import load_module

REFUSALS = (RuntimeError, ValueError, TypeError)
"""What the extractor raises for programs outside its language (`while` loops)."""


def statement_features(
    schedules: Sequence[Schedule], module_json: str, target: Target, threads: int
) -> list[Matrix | None]:
    """One (stores, 164) float32 matrix per post-processed schedule; None where the program cannot be described."""
    if not schedules:
        return []
    context = _context(module_json, target, threads)
    try:
        return _extract(schedules, context)
    except REFUSALS:
        return [_extract_one(schedule, context) for schedule in schedules]


def module_features(module: IRModule, module_json: str, target: Target) -> Matrix | None:
    """The features of one scheduled program."""
    return statement_features([Schedule(module, debug_mask="none")], module_json, target, 1)[0]


def _extract(schedules: Sequence[Schedule], context: Any) -> list[Matrix | None]:
    candidates = [MeasureCandidate(schedule, []) for schedule in schedules]
    found = PerStoreFeature().extract_from(context, candidates)
    return [np.asarray(tensor.numpy(), dtype=np.float32).reshape(-1, STATEMENT_COLUMNS) for tensor in found]


def _extract_one(schedule: Schedule, context: Any) -> Matrix | None:
    try:
        return _extract([schedule], context)[0]
    except REFUSALS:
        return None


@lru_cache(maxsize=2)
def _context(module_json: str, target: Target, threads: int) -> Any:
    return TuneContext(load_module(module_json), target=target, num_threads=threads)
