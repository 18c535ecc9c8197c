"""Check a compiled network: each kernel against its unscheduled form, the whole against onnxruntime.

Called in children by `tuner.deploy`; `compare` must have a child of its own, since onnxruntime's threads spin.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.tuner.artifact import load_library
from crosstune.tuner.comparison import compare_outputs
from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.manifest import Manifest
from crosstune.tuner.weights_file import Array


def check_kernel(payload: dict[str, Any]) -> dict[str, Any]:
    """Check kernel number `index` of the list in `kernels` within `library`; answers a Comparison.

    payload: library, kernels (paths), index, target, seed
    """
    from crosstune.tuner.tvm_adapter import kernel_check, runtime
    from crosstune.tuner.tvm_adapter.target import tvm_target

    spec = TargetSpec.from_json(payload["target"])
    runtime.start_runtime(spec.cores)
    entry = _kernels(payload["kernels"])[payload["index"]]
    args = tuple((str(dtype), tuple(shape)) for dtype, shape in entry["args"])
    task = kernel_check.KernelTask(entry["function"], entry["module"], args, entry["output_count"])
    library = _library(payload["library"])
    return kernel_check.check_kernel(library, task, tvm_target(spec), payload["seed"]).to_json()


@lru_cache(maxsize=1)
def _kernels(path: str) -> list[dict[str, Any]]:
    return list(json.loads(Path(path).read_text()))


@lru_cache(maxsize=1)
def _library(path: str) -> Any:
    from crosstune.tuner.tvm_adapter import runtime

    return runtime.load_library(Path(path))


def run_network(payload: dict[str, Any]) -> None:
    """Run the network on random inputs and store them with the outputs.

    payload: library, weights (paths), manifest, seed, sets (how many inputs), inputs, outputs (.npz paths to write)
    """
    manifest = Manifest.from_json(payload["manifest"])
    library, weights = Path(payload["library"]), Path(payload["weights"])
    network = load_library(library, weights, manifest, manifest.threads)
    inputs: dict[str, Array] = {}
    outputs: dict[str, Array] = {}
    for number in range(payload["sets"]):
        given = network.random_inputs(payload["seed"] + number)
        result = network(*given)
        inputs |= {f"{number}/{position}": array for position, array in enumerate(given)}
        outputs |= {f"{number}/{position}": array for position, array in enumerate(result.values())}
    np.savez(payload["inputs"], **inputs)  # type: ignore[arg-type]
    np.savez(payload["outputs"], **outputs)  # type: ignore[arg-type]


def compare(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Run onnxruntime on the stored inputs and compare: a Comparison per output of the network.

    payload: reference (ONNX path), manifest, sets, inputs, outputs (.npz paths)
    """
    from crosstune.tuner import reference

    manifest = Manifest.from_json(payload["manifest"])
    found, sets = _read(payload["outputs"]), payload["sets"]
    expected = reference.outputs(
        Path(payload["reference"]),
        input_sets(payload["inputs"], manifest, sets),
        [port.name for port in manifest.outputs],
        manifest.threads,
    )
    return [
        compare_outputs(
            [found[f"{number}/{position}"] for number in range(sets)], [each[position] for each in expected]
        ).to_json()
        for position in range(len(manifest.outputs))
    ]


def input_sets(path: str, manifest: Manifest, sets: int) -> list[dict[str, Array]]:
    """The stored inputs by name, per set."""
    stored = _read(path)
    return [
        {port.name: stored[f"{number}/{position}"] for position, port in enumerate(manifest.inputs)}
        for number in range(sets)
    ]


def _read(path: str) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
