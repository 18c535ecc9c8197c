"""Child side: time the kernel that this child has compiled, run it for the record, or compare it with that record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from crosstune.tuner.comparison import compare_kernel
from crosstune.tuner.contracts import Quality
from crosstune.tuner.operations.build_candidate import built_kernel
from crosstune.tuner.tvm_adapter import kernel_check, schedule, timing
from crosstune.tuner.tvm_adapter.preload import TVM_VERSION
from crosstune.tuner.weights_file import Array


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Time the kernel; answers latencies_s, quality, conditions (threads, cold, number, repeat, run_s, tvm_version).

    payload: args ([dtype, shape] each, outputs last), output_count, quality (quick | full), best_s (or None),
    threads, seed
    """
    started = time.perf_counter()
    timing.start_threads(payload["threads"])
    kernel, count = built_kernel(), payload["output_count"]
    arrays = timing.timing_arrays(payload["args"], count, payload["seed"])
    if payload["quality"] == Quality.FULL:
        found = timing.time_full(kernel, arrays, count)
    else:
        found = timing.time_quick(kernel, arrays, payload["best_s"])
    conditions = {
        "threads": payload["threads"],
        "cold": found.cold,
        "number": found.number,
        "repeat": len(found.latencies_s),
        "run_s": time.perf_counter() - started,
        "tvm_version": TVM_VERSION,
    }
    return {"latencies_s": list(found.latencies_s), "quality": found.quality.value, "conditions": conditions}


def expected(payload: dict[str, Any]) -> dict[str, Any]:
    """Run this child's (unscheduled) kernel on seeded inputs and store its outputs in the .npz file `path`.

    Answers `positive` (the inputs had to be positive to give finite numbers) and `reduction_length`.

    payload: module, args, output_count, seed, threads, path
    """
    timing.start_threads(payload["threads"])
    args, count = payload["args"], payload["output_count"]
    outputs, positive = _outputs(args, count, payload["seed"], positive=False), False
    if not all(np.isfinite(array).all() for array in outputs if array.dtype.kind == "f"):
        outputs, positive = _outputs(args, count, payload["seed"], positive=True), True
    np.savez(payload["path"], *outputs)
    return {
        "positive": positive,
        "reduction_length": kernel_check.reduction_length(schedule.load_module(payload["module"])["main"]),
    }


def compare(payload: dict[str, Any]) -> dict[str, Any]:
    """Run this child's kernel on the same inputs; answers the worst output's Comparison.

    payload: args, output_count, seed, threads, path, positive, reduction_length
    """
    timing.start_threads(payload["threads"])
    found = _outputs(payload["args"], payload["output_count"], payload["seed"], positive=payload["positive"])
    with np.load(payload["path"], allow_pickle=False) as stored:
        wanted = [stored[name] for name in stored.files]
    length = payload["reduction_length"]
    comparisons = [compare_kernel(*pair, length) for pair in zip(found, wanted, strict=True)]
    return max(comparisons, key=lambda each: (each.problem is not None, each.largest_relative)).to_json()


def _outputs(args: Sequence[Any], output_count: int, seed: int, *, positive: bool) -> list[Array]:
    generator = np.random.default_rng(seed)
    inputs = [
        kernel_check.random_array(dtype, shape, generator, positive=positive)
        for dtype, shape in args[: len(args) - output_count]
    ]
    outputs = timing.output_arrays(args, output_count)
    timing.run_once(built_kernel(), [*inputs, *outputs])
    return outputs
