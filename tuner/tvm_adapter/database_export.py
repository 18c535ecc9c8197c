"""Schedules as TVM's own JSON tuning database, for people who deploy with plain TVM."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvm.ir import IRModule, save_json
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

from crosstune.tuner.contracts import TraceJson
from crosstune.tuner.tvm_adapter.graph import prim_funcs
from crosstune.tuner.tvm_adapter.schedule import load_module, postprocess, replay
from crosstune.tuner.tvm_adapter.workload import workload_of

NETWORK = "network.json"
WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"


def write_database(folder: Path, entries: Iterable[tuple[str, TraceJson, float]], target: Any) -> int:
    """Write (workload module JSON, trace, latency in seconds) as a database of `target`; answers how many.

    The traces get the target's post-processing, which TVM's records hold and ours do not. Files of an older export
    are replaced. Raises ReplayFailed for a trace that does not fit.
    """
    for name in (WORKLOADS, RECORDS):
        (folder / name).unlink(missing_ok=True)
    database = JSONDatabase(str(folder / WORKLOADS), str(folder / RECORDS))
    for module_json, trace, latency_s in entries:
        module = load_module(module_json)
        schedule = replay(module, trace)
        postprocess(schedule, module_json, target)
        workload = database.commit_workload(module)
        arguments = ArgInfo.from_entry_func(module, remove_preproc=False)
        database.commit_tuning_record(
            TuningRecord(schedule.trace.simplified(False), workload, [latency_s], target, arguments)
        )
    return len(database)


def write_network(folder: Path, module: IRModule) -> None:
    """Write a fused network for use with the database: TVM's JSON of it, its kernels in canonical form.

    A record finds its kernel by structure and then addresses blocks by name, so both must be the tuned ones.
    """
    canonical = IRModule(dict(module.functions.items()), attrs=module.attrs)
    for name, function in prim_funcs(module).items():
        kernel = load_module(workload_of(function, name).module)["main"].without_attr("global_symbol")
        canonical.update_func(module.get_global_var(name), kernel)
    (folder / NETWORK).write_text(save_json(canonical))
