"""Tiny workloads and traces of them, made with TVM in a child: the test process itself stays free of TVM."""

from __future__ import annotations

from typing import Any


def matmul(payload: dict[str, Any]) -> dict[str, Any]:
    """The module of `relu(left @ right) + offset` and, for each seed, a sampled trace.

    payload: offset, shape (rows, columns, depth), target, seeds
    """
    import tvm
    from tvm import te
    from tvm.s_tir.meta_schedule import TuneContext
    from tvm.s_tir.schedule import Trace

    from crosstune.tuner.contracts import TargetSpec
    from crosstune.tuner.tvm_adapter.schedule import ReplayFailed, new_schedule, postprocess, trace_json
    from crosstune.tuner.tvm_adapter.target import tvm_target

    rows, columns, depth_extent = payload["shape"]
    left = te.placeholder((rows, depth_extent), "float32", name="left")
    right = te.placeholder((depth_extent, columns), "float32", name="right")
    depth = te.reduce_axis((0, depth_extent), name="depth")
    product = te.compute(
        (rows, columns), lambda i, j: te.sum(left[i, depth] * right[depth, j], axis=depth), name="product"
    )
    offset = tvm.tirx.const(payload["offset"], "float32")
    zero = tvm.tirx.const(0, "float32")
    out = te.compute((rows, columns), lambda i, j: te.max(product[i, j], zero) + offset, name="out")
    function = te.create_prim_func([left, right, out]).with_attr("global_symbol", "main")
    module = tvm.IRModule({"main": function})
    text = tvm.ir.save_json(module)

    target = tvm_target(TargetSpec.from_json(payload["target"]))
    context = TuneContext(module, target=target, space_generator="post-order-apply", num_threads=1, rand_state=1)
    space = context.generate_design_space()
    traces: list[Any] = []
    for seed in payload.get("seeds", ()):
        for attempt in range(50):
            schedule = new_schedule(module, seed=1000 * seed + attempt + 1)
            Trace(space[-1].trace.insts, {}).apply_to_schedule(schedule, remove_postproc=True)
            trace = trace_json(schedule)
            try:
                postprocess(schedule, text, target)
            except ReplayFailed:
                continue
            traces.append(trace)
            break
    args = [["float32", [rows, depth_extent]], ["float32", [depth_extent, columns]], ["float32", [rows, columns]]]
    return {"module": text, "args": args, "flops": 2.0 * rows * columns * depth_extent, "traces": traces}


def threads_in_effect(count: int) -> dict[str, Any]:
    """Start TVM's threads as a measurement does; answers how many run, and on which processors they may."""
    import os
    from pathlib import Path

    import tvm_ffi

    from crosstune.tuner.tvm_adapter.timing import start_threads

    start_threads(count)
    return {
        "threads": int(tvm_ffi.get_global_func("runtime.NumThreads")()),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "affinity": sorted(os.sched_getaffinity(0)),
    }
