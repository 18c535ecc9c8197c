"""The single operators of TenSet's and Ansor's papers, made with TVM in a process of its own: arguments as they come.

`python -m benchmarks.operators` prints them as JSON. Weights are arguments, so neither side may lay them out anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from crosstune.tuner.contracts import Workload

ROWS, COLUMNS, DEPTH = 4, 32, 4
"""Of the plain schedule's inner tile: the same as in ansor/side.py."""


@dataclass(frozen=True, slots=True)
class Operator:
    """`args` of a matmul: rows, columns, depth; of a convolution: size, inputs, outputs, kernel, stride, padding."""

    kind: str
    args: tuple[int, ...]
    peer_trials: int = 128
    """How long Ansor searches."""

    @property
    def name(self) -> str:
        return "_".join([self.kind, *map(str, self.args)])


OPERATORS = (
    Operator("matmul", (512, 512, 512), 512),
    Operator("matmul", (128, 768, 768), 512),
    Operator("matmul", (128, 3072, 768)),
    Operator("conv2d", (56, 64, 64, 3, 1, 1), 512),
    Operator("conv2d", (28, 128, 128, 3, 1, 1)),
    Operator("conv2d", (14, 256, 256, 3, 1, 1)),
    Operator("conv2d", (56, 256, 64, 1, 1, 0), 512),
    Operator("depthwise", (56, 144, 144, 3, 1, 1)),
)
OTHERS = (
    Operator("matmul", (128, 768, 3072)),
    Operator("conv2d", (28, 512, 128, 1, 1, 0)),
    Operator("depthwise", (28, 192, 192, 3, 1, 1)),
)
"""Never tuned for themselves: each operator has a neighbour."""
PLAIN = OPERATORS[0]
"""The operator that has a schedule by hand in both TVMs."""


@dataclass(frozen=True, slots=True)
class Made:
    workloads: dict[Operator, Workload]
    plain: str
    """The module of PLAIN with its schedule by hand."""


def make() -> Made:
    """All operators, in their order."""
    output = subprocess.run([sys.executable, "-m", "benchmarks.operators"], check=True, capture_output=True).stdout
    answer = json.loads(output)
    workloads = [
        Workload(**{**one, "args": tuple((d, tuple(s)) for d, s in one["args"])}) for one in answer["workloads"]
    ]
    return Made(dict(zip((*OPERATORS, *OTHERS), workloads, strict=True)), answer["plain"])


def main() -> None:
    from crosstune.tuner.tvm_adapter.preload import preload

    preload()
    import tvm

    from crosstune.tuner.tvm_adapter.workload import workload_of

    found = [asdict(workload_of(function(one), one.kind)) for one in (*OPERATORS, *OTHERS)]
    print(json.dumps({"workloads": found, "plain": tvm.ir.save_json(plain_matmul(function(PLAIN)))}))


def function(operator: Operator) -> Any:
    """The operator as a PrimFunc named main, without leave to lay out its weights anew."""
    from tvm import te

    made = te.create_prim_func(tensors(operator)).with_attr("global_symbol", "main").with_attr("tirx.noalias", True)
    return made.without_attr("layout_free_buffers") if "layout_free_buffers" in made.attrs else made


def tensors(operator: Operator) -> list[Any]:
    """The same as in ansor/side.py, which must not import this package."""
    from tvm import te, topi

    if operator.kind == "matmul":
        rows, columns, depth = operator.args
        left = te.placeholder((rows, depth), "float32", name="left")
        right = te.placeholder((depth, columns), "float32", name="right")
        axis = te.reduce_axis((0, depth), name="axis")
        product = te.compute(
            (rows, columns), lambda i, j: te.sum(left[i, axis] * right[axis, j], axis=axis), name="product"
        )
        return [left, right, product]
    size, inputs, outputs, kernel, stride, padding = operator.args
    data = te.placeholder((1, size, size, inputs), "float32", name="data")
    if operator.kind == "conv2d":
        weight = te.placeholder((kernel, kernel, inputs, outputs), "float32", name="weight")
        return [data, weight, topi.nn.conv2d_nhwc(data, weight, stride, padding, 1)]
    weight = te.placeholder((kernel, kernel, inputs, 1), "float32", name="weight")
    return [data, weight, topi.nn.depthwise_conv2d_nhwc(data, weight, stride, padding, 1)]


def plain_matmul(made: Any) -> Any:
    """A module with a schedule by hand: what the two compilers make of the same loops."""
    import tvm
    from tvm.s_tir import Schedule

    schedule = Schedule(tvm.IRModule({"main": made}))
    block = schedule.get_sblock("product")
    row, column, axis = schedule.get_loops(block)
    outer_row, row = schedule.split(row, [None, ROWS])
    outer_column, column = schedule.split(column, [None, COLUMNS])
    outer_depth, depth = schedule.split(axis, [None, DEPTH])
    schedule.reorder(outer_row, outer_column, outer_depth, depth, row, column)
    schedule.unroll(row)
    schedule.vectorize(column)
    schedule.parallel(schedule.fuse(outer_row, outer_column))
    initial = schedule.decompose_reduction(block, outer_depth)
    schedule.vectorize(schedule.get_loops(initial)[-1])
    return schedule.mod


if __name__ == "__main__":
    main()
