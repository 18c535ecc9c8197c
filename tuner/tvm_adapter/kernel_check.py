"""Check kernels of a compiled network, the very code that is deployed, against their unscheduled forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm.ir import IRModule
from tvm.s_tir import SBlock

from crosstune.tuner.comparison import Comparison, compare_kernel
from crosstune.tuner.tvm_adapter import runtime
from crosstune.tuner.tvm_adapter.schedule import load_module
from crosstune.tuner.weights_file import Array, aligned_empty

REDUCTION = 2
"""IterVar.kCommReduce"""


@dataclass(frozen=True, slots=True)
class KernelTask:
    """A kernel in the library and its workload: unscheduled module (TVM's JSON), (dtype, shape) of its arguments."""

    function: str
    module: str
    args: tuple[tuple[str, tuple[int, ...]], ...]
    output_count: int


def check_kernel(library: Any, task: KernelTask, target: Any, seed: int) -> Comparison:
    """Run the deployed kernel and the unscheduled one on the same random inputs; the worst of its outputs."""
    module = load_module(task.module)
    unscheduled = compile_unscheduled(module, target)
    deployed = kernel(library, task.function)
    inputs_of = task.args[: len(task.args) - task.output_count]
    generator = np.random.default_rng(seed)
    inputs = [random_array(dtype, shape, generator) for dtype, shape in inputs_of]
    expected = _run(unscheduled, inputs, task)
    if any(not np.isfinite(array).all() for array in expected if array.dtype.kind == "f"):
        # Logarithms and roots want positive numbers.
        inputs = [random_array(dtype, shape, generator, positive=True) for dtype, shape in inputs_of]
        expected = _run(unscheduled, inputs, task)
    found = _run(deployed, inputs, task)
    length = reduction_length(module["main"])
    comparisons = [compare_kernel(*pair, length) for pair in zip(found, expected, strict=True)]
    return max(comparisons, key=lambda each: (each.problem is not None, each.largest_relative))


def kernel(library: Any, name: str) -> Callable[..., None]:
    """The compiled kernel `name` of a loaded network library."""
    for part in (library, *library.imports):
        if part.implements_function(name):
            function: Callable[..., None] = part[name]
            return function
    raise LookupError(f"the library has no kernel {name!r}")


def compile_unscheduled(module: IRModule, target: Any) -> Callable[..., None]:
    """The module's `main` as the plain serial loops that it is written as."""
    function: Callable[..., None] = tvm.compile(module, target).jit()["main"]
    return function


def random_array(dtype: str, shape: Sequence[int], generator: np.random.Generator, *, positive: bool = False) -> Array:
    """Normal numbers, or numbers in [0.1, 1); zeros and ones for integers, which are valid as indices too."""
    array = aligned_empty(tuple(shape), dtype)
    if array.dtype.kind != "f":
        array[...] = generator.integers(0, 2, array.shape)
    elif positive:
        array[...] = generator.uniform(0.1, 1.0, array.shape)
    else:
        array[...] = generator.standard_normal(array.shape)
    return array


def reduction_length(function: Any) -> int:
    """The largest number of terms that one output element of a block sums up."""
    lengths = [1]

    def visit(block: SBlock) -> None:
        lengths.append(math.prod(int(axis.dom.extent) for axis in block.iter_vars if int(axis.iter_type) == REDUCTION))

    tvm_ffi.structural_walk(function.body, (SBlock, visit), order="post")
    return max(lengths)


def _run(function: Callable[..., None], inputs: Sequence[Array], task: KernelTask) -> list[Array]:
    outputs = [aligned_empty(shape, dtype) for dtype, shape in task.args[len(inputs) :]]
    for array in outputs:
        array[...] = np.nan if array.dtype.kind == "f" else 77  # what a kernel forgets to write must show
    function(*(runtime.tensor(array) for array in (*inputs, *outputs)))
    return outputs
