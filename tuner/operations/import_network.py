"""Runs in a child: one ONNX file in, its tasks out, as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.tvm_adapter.graph import PIPELINE_VERSION, PreparedNetwork, prepare, prim_funcs
from crosstune.tuner.tvm_adapter.workload import workload_of


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Import the network at `onnx_path`.

    payload: onnx_path, shapes ({input: [sizes]}), seed (for missing weights).
    Returns what `tuner.tasks.imported_from_answer` reads, or {"refused": {code, detail, facts}}.
    """
    try:
        data = Path(payload["onnx_path"]).read_bytes()
        network = prepare(data, payload.get("shapes") or {}, int(payload.get("seed", 0)))
        return described(network)
    except NetworkRefused as refusal:
        return {"refused": {"code": refusal.code, "detail": refusal.detail, "facts": refusal.facts}}


def described(network: PreparedNetwork) -> dict[str, Any]:
    return {
        "graph_key": network.graph_key,
        "inputs": [[spec.name, spec.dtype.name, list(spec.shape)] for spec in network.inputs],
        "outputs": [[spec.name, spec.dtype.name, list(spec.shape)] for spec in network.outputs],
        "tasks": tasks(network),
        "layout": network.layout,
        "layout_note": network.layout_note,
        "synthetic_weights": network.synthetic_weights,
        "pipeline_version": PIPELINE_VERSION,
        "operators": network.operators,
    }


def tasks(network: PreparedNetwork) -> list[dict[str, Any]]:
    """Each distinct workload once, with how often one inference runs it."""
    found: dict[str, dict[str, Any]] = {}
    for name, function in prim_funcs(network.module).items():
        workload = workload_of(function, name)
        entry = found.setdefault(workload.sha256, {"workload": asdict(workload), "weight": 0})
        entry["weight"] += network.calls.get(name, 0)
    return [entry for entry in found.values() if entry["weight"]]
