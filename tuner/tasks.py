"""The parent's side of an import: a child reads the network, its answer becomes plain values. No TVM, no ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstune.tuner.contracts import ImportedNetwork, NetworkRefused, NetworkTask, Workload

if TYPE_CHECKING:
    from crosstune.tuner.child import Child

IMPORT = "operations.import_network:run"
TensorFacts = tuple[tuple[str, str, tuple[int, ...]], ...]


def import_network(
    child: Child, path: Path, shapes: Mapping[str, Sequence[int]], timeout_s: float, seed: int = 0
) -> ImportedNetwork:
    """Read the ONNX file at `path` in a child process.

    shapes: sizes of inputs that the file leaves open; seed: for missing weights. Raises NetworkRefused, or ChildFailed
    when the child did not come back in `timeout_s`.
    """
    sizes = {name: list(extents) for name, extents in shapes.items()}
    answer = child.call(IMPORT, {"onnx_path": str(path.resolve()), "shapes": sizes, "seed": seed}, timeout_s)
    return imported_from_answer(answer)


def imported_from_answer(answer: dict[str, Any]) -> ImportedNetwork:
    """The network that `tuner.operations.import_network` found; raises NetworkRefused when it refused it."""
    refused = answer.get("refused")
    if refused is not None:
        raise NetworkRefused(refused["code"], refused["detail"], refused.get("facts"))
    return ImportedNetwork(
        graph_key=answer["graph_key"],
        inputs=_tensors(answer["inputs"]),
        outputs=_tensors(answer["outputs"]),
        tasks=tuple(NetworkTask(_workload(entry["workload"]), int(entry["weight"])) for entry in answer["tasks"]),
        layout=answer["layout"],
        layout_note=answer["layout_note"],
        synthetic_weights=bool(answer["synthetic_weights"]),
        pipeline_version=int(answer["pipeline_version"]),
    )


def _workload(value: dict[str, Any]) -> Workload:
    args = tuple((str(dtype), tuple(int(extent) for extent in shape)) for dtype, shape in value["args"])
    return Workload(**{**value, "args": args})


def _tensors(values: list[list[Any]]) -> TensorFacts:
    return tuple((str(name), str(dtype), tuple(int(extent) for extent in shape)) for name, dtype, shape in values)
