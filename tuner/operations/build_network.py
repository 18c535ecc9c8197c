"""Compile a network with its schedules; called in a child by `tuner.deploy`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from crosstune.tuner.contracts import NetworkRefused, PinnedSchedule, TargetSpec
from crosstune.tuner.cpu_features import host_architecture, required_features
from crosstune.tuner.frontends.network import TensorSpec
from crosstune.tuner.frontends.onnx import seed_weights
from crosstune.tuner.frontends.safety import load_model
from crosstune.tuner.manifest import Port
from crosstune.tuner.tvm_adapter import network_build
from crosstune.tuner.tvm_adapter.graph import PIPELINE_VERSION, prepare
from crosstune.tuner.tvm_adapter.preload import TVM_VERSION
from crosstune.tuner.tvm_adapter.target import tvm_target
from crosstune.tuner.weights_file import write_weights


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Compile the network at `network_path` into `library`.

    payload: target, network_path, shapes, seed, schedules (of PinnedSchedule), library; and, where the files that do
    not depend on schedules are wanted, weights, reference (ONNX for onnxruntime) and kernels (JSON), each a path.
    Answers the facts for the manifest, or `refused` when a pinned schedule cannot be used.
    """
    clock = time.perf_counter()
    spec = TargetSpec.from_json(payload["target"])
    target = tvm_target(spec)
    model_bytes = Path(payload["network_path"]).read_bytes()
    try:
        prepared = prepare(model_bytes, payload["shapes"], payload["seed"])
    except NetworkRefused as error:
        return {"network_refused": {"code": error.code, "detail": error.detail, "facts": error.facts}}
    prepared_s = time.perf_counter() - clock
    pinned = {each["workload_sha256"]: PinnedSchedule(**each) for each in payload["schedules"]}
    try:
        built = network_build.build(prepared.module, len(prepared.inputs), pinned, target)
    except network_build.ScheduleUnusable as error:
        return {"refused": str(error)}
    compiled_s = time.perf_counter() - clock - prepared_s
    network_build.export(built, Path(payload["library"]))
    if "weights" in payload:
        values = [*prepared.weight_values(), *built.constants.values()]
        write_weights(Path(payload["weights"]), dict(zip(built.parameters, values, strict=True)))
        seeded = seed_weights(load_model(model_bytes), payload["seed"])
        Path(payload["reference"]).write_bytes(seeded.SerializeToString())
        Path(payload["kernels"]).write_text(json.dumps(_distinct_kernels(built)))
    return {
        "refused": None,
        "tvm_version": TVM_VERSION,
        "architecture": spec.triple.split("-")[0] or host_architecture(),
        "cpu_features": required_features(network_build.llvm_features(target)),
        "inputs": [_port(spec) for spec in prepared.inputs],
        "outputs": [_port(spec) for spec in prepared.outputs],
        "parameters": list(built.parameters),
        "pipeline_version": PIPELINE_VERSION,
        "layout": prepared.layout,
        "synthetic_weights": prepared.synthetic_weights,
        "schedules": _schedules(built, prepared.calls),
        "applied": sorted({kernel.workload.sha256 for kernel in built.kernels if kernel.pinned}),
        "timings_s": {
            "prepare": prepared_s,
            "compile": compiled_s,
            "export": time.perf_counter() - clock - prepared_s - compiled_s,
        },
    }


def _port(spec: TensorSpec) -> dict[str, Any]:
    return Port(spec.name, spec.dtype.name, tuple(spec.shape)).to_json()


def _distinct_kernels(built: network_build.BuiltNetwork) -> list[dict[str, Any]]:
    """What `verify_network.check_kernel` needs: one kernel per workload."""
    distinct = {kernel.workload.sha256: kernel for kernel in built.kernels}
    return [
        {
            "function": kernel.function,
            "name": kernel.workload.name,
            "workload_sha256": kernel.workload.sha256,
            "module": kernel.workload.module,
            "args": kernel.workload.args,
            "output_count": kernel.workload.output_count,
        }
        for kernel in distinct.values()
    ]


def _schedules(built: network_build.BuiltNetwork, calls: dict[str, int]) -> list[dict[str, Any]]:
    """Per distinct workload what it was scheduled with, for the manifest; `weight` is its calls per inference."""
    found: dict[str, dict[str, Any]] = {}
    for kernel in built.kernels:
        pinned = kernel.pinned
        entry = found.setdefault(
            kernel.workload.sha256,
            {
                "workload_sha256": kernel.workload.sha256,
                "name": kernel.workload.name,
                "functions": [],
                "weight": 0,
                "source": "pinned" if pinned else "default",
                "schedule_sha256": pinned.schedule_sha256 if pinned else None,
                "latency_s": pinned.latency_s if pinned else None,
                "label": pinned.label if pinned else "default",
                "expected_latency_s": pinned.expected_latency_s if pinned else None,
            },
        )
        entry["functions"].append(kernel.function)
        entry["weight"] += calls.get(kernel.function, 0)
    return list(found.values())
