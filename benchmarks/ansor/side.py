"""What runs in Ansor's own Python, beside a TVM of another version: tunes, and times what it found. No crosstune here.

`side.py tune REQUEST.json` prints a JSON line for each measured batch. `side.py time REQUEST.json` builds the best
program of a log anew and prints its latencies; `side.py fixed REQUEST.json` those of a plain schedule by hand.
Request: kind, args, mcpu, threads, log; tune: trials; time and fixed: looks.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

QUICK_S, REPEATS = 5e-3, 3  # as crosstune's quick measurements
WARM_UP_S = 0.5
ROWS, COLUMNS, DEPTH = 4, 32, 4  # of the plain schedule's inner tile


def main():
    action, request = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    os.environ["TVM_NUM_THREADS"] = str(request["threads"])
    import tvm

    target = tvm.target.Target(f"llvm -mcpu={request['mcpu']} -num-cores={request['threads']}")
    if action == "tune":
        tune(task_of(request, target), request)
        return
    if action == "time":
        schedule, tensors = task_of(request, target).apply_best(request["log"])
    else:
        schedule, tensors = plain_matmul(*request["args"])
    built = tvm.build(schedule, tensors, target)
    print(json.dumps(latencies(built, tensors, request["looks"])))


def operator(kind, args):
    """The placeholders and the result."""
    from tvm import te, topi

    if kind == "matmul":
        rows, columns, depth = args
        left = te.placeholder((rows, depth), name="left")
        right = te.placeholder((depth, columns), name="right")
        axis = te.reduce_axis((0, depth), name="axis")
        product = te.compute(
            (rows, columns), lambda i, j: te.sum(left[i, axis] * right[axis, j], axis=axis), name="product"
        )
        return [left, right, product]
    size, inputs, outputs, kernel, stride, padding = args
    data = te.placeholder((1, size, size, inputs), name="data")
    if kind == "conv2d":
        weight = te.placeholder((kernel, kernel, inputs, outputs), name="weight")
        return [data, weight, topi.nn.conv2d_nhwc(data, weight, stride, padding, 1)]
    weight = te.placeholder((kernel, kernel, inputs, 1), name="weight")
    return [data, weight, topi.nn.depthwise_conv2d_nhwc(data, weight, stride, padding, 1)]


def task_of(request, target):
    from tvm import auto_scheduler

    @auto_scheduler.register_workload
    def crosstune_operator(kind, *args):
        return operator(kind, args)

    return auto_scheduler.SearchTask(func=crosstune_operator, args=(request["kind"], *request["args"]), target=target)


def tune(task, request):
    from tvm import auto_scheduler

    started_s = time.time()
    state = {"trials": 0, "best_s": None}

    class Curve(auto_scheduler.measure.PythonBasedMeasureCallback):
        def callback(self, policy, inputs, results):
            for result in results:
                state["trials"] += 1
                if result.error_no == 0:
                    latency_s = sum(cost.value for cost in result.costs) / len(result.costs)
                    state["best_s"] = min(state["best_s"] or math.inf, latency_s)
            print(json.dumps({"seconds": time.time() - started_s, **state}), flush=True)

    task.tune(
        auto_scheduler.TuningOptions(
            num_measure_trials=request["trials"],
            num_measures_per_round=32,
            verbose=0,
            runner=auto_scheduler.LocalRunner(number=3, repeat=1, min_repeat_ms=50),
            measure_callbacks=[auto_scheduler.RecordToFile(request["log"]), Curve()],
        )
    )


def plain_matmul(rows, columns, depth):
    """The schedule that benchmarks/operators.py makes with the other TVM."""
    from tvm import te

    left, right, product = operator("matmul", (rows, columns, depth))
    schedule = te.create_schedule(product.op)
    (axis,) = schedule[product].op.reduce_axis
    outer_row, row = schedule[product].split(product.op.axis[0], ROWS)
    outer_column, column = schedule[product].split(product.op.axis[1], COLUMNS)
    outer_depth, inner_depth = schedule[product].split(axis, DEPTH)
    schedule[product].reorder(outer_row, outer_column, outer_depth, inner_depth, row, column)
    schedule[product].unroll(row)
    schedule[product].vectorize(column)
    schedule[product].parallel(schedule[product].fuse(outer_row, outer_column))
    return schedule, [left, right, product]


def latencies(built, tensors, looks):
    """Seconds, with hot caches, timed as crosstune times: a few milliseconds for each look.

    This TVM is left to choose its cores: bound to one, it was slower. Until its threads lie apart it is half as fast.
    """
    import numpy as np
    import tvm

    generator, device = np.random.default_rng(0), tvm.cpu()
    shapes = [[int(extent) for extent in one.shape] for one in tensors]
    arrays = [tvm.nd.array(generator.standard_normal(shape).astype("float32"), device) for shape in shapes]
    until_s = time.perf_counter() + WARM_UP_S
    while time.perf_counter() < until_s:
        built(*arrays)
    found = []
    for _ in range(looks):
        built(*arrays)
        began_s = time.perf_counter()
        built(*arrays)
        number = max(1, math.ceil(QUICK_S / REPEATS / (time.perf_counter() - began_s)))
        found += built.time_evaluator(built.entry_name, device, number=number, repeat=REPEATS)(*arrays).results
    return found


if __name__ == "__main__":
    main()
