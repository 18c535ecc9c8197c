"""Run and time a compiled kernel in this process, which runs nothing else.

TVM's thread pool belongs to the thread that first runs a parallel loop and binds its workers to the first cores,
so everything here runs in the process's main thread.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tvm_ffi

from crosstune.tuner.contracts import Quality, median
from crosstune.tuner.tvm_adapter import runtime
from crosstune.tuner.tvm_adapter.compile import ENTRY, Kernel
from crosstune.tuner.tvm_adapter.kernel_check import random_array
from crosstune.tuner.tvm_adapter.preload import set_threads
from crosstune.tuner.weights_file import Array, aligned_empty

QUICK_S = 5e-3
"""Least time in all of a quick measurement: one kernel timed 50 times in this way varied by 3 %."""
QUICK_REPEATS = 3
SHORT = 0.8
"""A quick measurement that came out shorter than this share of QUICK_S is made again with more calls."""
CENSOR_RATIO = 3.0
"""A candidate this much slower than the best is not worth a second look."""
FIRST_CENSOR_RATIO = 10.0
FIRST_CENSOR_S = 0.05
"""The first call also starts threads and touches new memory; beyond both of these it is slow for sure."""
FULL_REPEATS = 10
FULL_REPEATS_MOST = 50
FULL_S = 0.05
POOL_VALUES = 65_536
FLUSH = "crosstune.flush_weights"

Args = Sequence[tuple[str, Sequence[int]]]
"""(dtype, shape) of each argument, outputs last."""


class KernelFailed(RuntimeError):
    """The kernel itself raised: the candidate's fault, not ours."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call, one value per repeat of `number` calls."""

    latencies_s: tuple[float, ...]
    quality: Quality
    number: int
    cold: bool


@cache
def start_threads(count: int) -> None:
    """Start this process's thread pool with `count` threads, this one its first; a second call changes nothing.

    TVM binds the others to cores 1, 2, ... whatever this process is allowed to use, and leaves this one free: it often
    begins on the core of the second, and all that is timed before the kernel moves it takes twice as long. So it is
    bound to core 0. Where this process may not use these cores, all are left free.
    """
    fits = set(range(count)) <= os.sched_getaffinity(0)
    if not fits:
        os.environ["TVM_BIND_THREADS"] = "0"
    set_threads(count)
    if fits:  # after the pool was started, whose threads would inherit it
        os.sched_setaffinity(0, {0})


def timing_arrays(args: Args, output_count: int, seed: int) -> list[Array]:
    """Random inputs, made fast by repeating a pool of values, and outputs whose memory has been touched."""
    generator = np.random.default_rng(seed)
    pools: dict[str, Array] = {}
    arrays = []
    for dtype, shape in args[: len(args) - output_count]:
        if dtype not in pools:
            pools[dtype] = random_array(dtype, (POOL_VALUES,), generator)
        array = aligned_empty(tuple(shape), dtype)
        array[...] = np.resize(pools[dtype], array.shape)
        arrays.append(array)
    return arrays + output_arrays(args, output_count)


def output_arrays(args: Args, output_count: int) -> list[Array]:
    """Outputs filled with what no right kernel leaves there."""
    outputs = [aligned_empty(tuple(shape), dtype) for dtype, shape in args[len(args) - output_count :]]
    for array in outputs:
        array[...] = np.nan if array.dtype.kind == "f" else 77 if array.dtype.kind != "b" else True
    return outputs


def time_quick(kernel: Kernel, arrays: Sequence[Array], best_s: float | None) -> Timing:
    """Hot caches: one warm-up, then a few milliseconds; CENSORED as soon as it is clearly slower than `best_s`."""
    tensors = [runtime.tensor(array) for array in arrays]
    warm_up_s = _call_s(kernel, tensors)
    if best_s is not None and warm_up_s > max(FIRST_CENSOR_RATIO * best_s, FIRST_CENSOR_S):
        return Timing((warm_up_s,), Quality.CENSORED, 1, False)
    first_s = _call_s(kernel, tensors)
    if best_s is not None and first_s > CENSOR_RATIO * best_s:
        first_s = min(first_s, _call_s(kernel, tensors))
        if first_s > CENSOR_RATIO * best_s:
            return Timing((first_s,), Quality.CENSORED, 1, False)
    number = math.ceil(QUICK_S / QUICK_REPEATS / first_s)
    if number <= 2:  # long enough to be timed from here, without the evaluator's own warm-up
        latencies_s = [first_s, _call_s(kernel, tensors)]
        while sum(latencies_s) < QUICK_S:
            latencies_s.append(_call_s(kernel, tensors))
        return Timing(tuple(latencies_s), Quality.QUICK, 1, False)
    while True:
        repeats_s = _evaluate(kernel, tensors, number, QUICK_REPEATS)
        if number * sum(repeats_s) > SHORT * QUICK_S:
            return Timing(repeats_s, Quality.QUICK, number, False)
        number = math.ceil(QUICK_S / sum(repeats_s))  # the first call had been disturbed


def time_full(kernel: Kernel, arrays: Sequence[Array], output_count: int) -> Timing:
    """Cold weights: before each call all inputs but the first are flushed from the caches, as a network finds them.

    The first input (the activation) and the outputs stay where the last call left them.
    """
    tensors = [runtime.tensor(array) for array in arrays]
    _call_s(kernel, tensors)
    hot_s = _call_s(kernel, tensors)
    repeats = min(FULL_REPEATS_MOST, max(FULL_REPEATS, math.ceil(FULL_S / hot_s)))
    flush = tvm_ffi.get_global_func("cache_flush_cpu_non_first_arg")
    flushed = tensors[: len(tensors) - output_count]
    tvm_ffi.register_global_func(FLUSH, lambda *_: flush(*flushed), override=True)
    return Timing(_evaluate(kernel, tensors, 1, repeats, FLUSH), Quality.FULL, 1, True)


def time_steadily(kernel: Kernel, arrays: Sequence[Array], repeats: int, least_s: float) -> float:
    """Median seconds per call over `repeats` stretches of `least_s` in all."""
    tensors = [runtime.tensor(array) for array in arrays]
    _call_s(kernel, tensors)
    once_s = min(_call_s(kernel, tensors), _call_s(kernel, tensors))
    return median(_evaluate(kernel, tensors, max(1, math.ceil(least_s / repeats / once_s)), repeats))


def run_once(kernel: Kernel, arrays: Sequence[Array]) -> None:
    _call_s(kernel, [runtime.tensor(array) for array in arrays])


def _call_s(kernel: Kernel, tensors: Sequence[Any]) -> float:
    started = time.perf_counter()
    try:
        kernel.function(*tensors)
    except Exception as error:
        raise KernelFailed(str(error)) from error
    return time.perf_counter() - started


def _evaluate(kernel: Kernel, tensors: Sequence[Any], number: int, repeats: int, before: str = "") -> tuple[float, ...]:
    """TVM's timer: calls once untimed, then `repeats` times `number` calls, with `before` ahead of each repeat."""
    import tvm

    timer = kernel.library.time_evaluator(ENTRY, tvm.cpu(), number=number, repeat=repeats, f_preproc=before)
    return tuple(float(value) for value in timer(*tensors).results)
