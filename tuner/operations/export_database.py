"""Export schedules as TVM's JSON database; called in a child by `tuner.deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.database_export import write_database, write_network
from crosstune.tuner.tvm_adapter.graph import prepare
from crosstune.tuner.tvm_adapter.target import tvm_target


def run(payload: dict[str, Any]) -> int:
    """Answers how many records were written.

    payload: target, folder, entries (of [module JSON, trace, latency in seconds]); optional network (network_path,
    shapes, seed)
    """
    folder = Path(payload["folder"])
    if network := payload.get("network"):
        model_bytes = Path(network["network_path"]).read_bytes()
        write_network(folder, prepare(model_bytes, network["shapes"], network["seed"]).module)
    entries = [(str(module), trace, float(latency_s)) for module, trace, latency_s in payload["entries"]]
    return write_database(folder, entries, tvm_target(TargetSpec.from_json(payload["target"])))
