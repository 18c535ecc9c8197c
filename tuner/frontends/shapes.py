"""Make every shape of a network static: sizes of inputs from the user, all others by inference and folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.frontends.network import Network, TensorSpec

LARGEST_EXTENT = 1 << 26


def static_inputs(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> list[TensorSpec]:
    """The graph's real inputs (those without an initialiser) with static shapes.

    A size given for one symbolic dimension holds for all inputs that name it. Raises NetworkRefused with code
    unknown_input, shape_mismatch, dynamic_shape or unsupported_type.
    """
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise NetworkRefused(
                "unknown_input", f"the network has no input {name!r}; its inputs: {', '.join(names)}", {"inputs": names}
            )
    sizes: dict[str, int] = {}
    for value in inputs:
        if value.name in shapes:
            _match(value, shapes[value.name], sizes)
    return [_static(value, shapes.get(value.name), sizes) for value in inputs]


def _match(value: onnx.ValueInfoProto, given: Sequence[int], sizes: dict[str, int]) -> None:
    """Check a given shape against the declared one and note what it says of symbolic dimensions."""
    if any(extent <= 0 or extent > LARGEST_EXTENT for extent in given):
        raise _mismatch(value, given, "every size must be a positive whole number")
    if not value.type.tensor_type.HasField("shape"):
        return
    declared = value.type.tensor_type.shape.dim
    if len(declared) != len(given):
        raise _mismatch(value, given, f"it has {len(declared)} dimensions")
    for dimension, extent in zip(declared, given, strict=True):
        if dimension.HasField("dim_value") and dimension.dim_value > 0 and dimension.dim_value != extent:
            raise _mismatch(value, given, "its fixed sizes cannot be changed")
        if dimension.dim_param and sizes.setdefault(dimension.dim_param, extent) != extent:
            known = sizes[dimension.dim_param]
            raise _mismatch(value, given, f"dimension {dimension.dim_param!r} is {known} in another input")


def _mismatch(value: onnx.ValueInfoProto, given: Sequence[int], why: str) -> NetworkRefused:
    declared = [str(d.dim_param or d.dim_value or "?") for d in value.type.tensor_type.shape.dim]
    return NetworkRefused(
        "shape_mismatch",
        f"input {value.name!r} is declared as [{', '.join(declared)}], which [{', '.join(map(str, given))}] does not "
        f"fit: {why}",
        {"input": value.name, "declared": declared, "given": list(given)},
    )


def _static(value: onnx.ValueInfoProto, given: Sequence[int] | None, sizes: Mapping[str, int]) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise NetworkRefused("unsupported_type", f"input {value.name!r} is not a tensor", {"input": value.name})
    tensor = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        raise NetworkRefused("unsupported_type", f"input {value.name!r} has an unknown element type") from None
    if given is not None:
        return TensorSpec(value.name, dtype, tuple(int(extent) for extent in given))
    if not tensor.HasField("shape"):
        raise NetworkRefused(
            "dynamic_shape",
            f"input {value.name!r} is declared without a shape; give one: --shape {value.name}:1,3,224,224",
            {"input": value.name, "dimensions": []},
        )
    shape, unknown = [], []
    for index, dimension in enumerate(tensor.shape.dim):
        extent = dimension.dim_value if dimension.dim_value > 0 else sizes.get(dimension.dim_param, 0)
        shape.append(extent)
        if not extent:
            unknown.append({"axis": index, "name": dimension.dim_param or "?"})
    if unknown:
        raise _dynamic_input(value.name, shape, unknown)
    return TensorSpec(value.name, dtype, tuple(shape))


def _dynamic_input(name: str, shape: list[int], unknown: list[dict[str, object]]) -> NetworkRefused:
    places = ", ".join(f"{entry['name']} (dimension {entry['axis']})" for entry in unknown)
    usual = (1, 3, 224, 224) if len(shape) == 4 else (1, 128)
    example = ",".join(
        str(extent or (usual[index] if index < len(usual) else 64)) for index, extent in enumerate(shape)
    )
    return NetworkRefused(
        "dynamic_shape",
        f"input {name!r} has no fixed size in {places}; give its shape: --shape {name}:{example}",
        {"input": name, "dimensions": unknown, "example": example},
    )


def infer_types(network: Network) -> None:
    """Fill `network.types` with what ONNX's shape inference finds static; large weights take no part by value."""
    network.types = {}
    model = network.to_model(with_values=False)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise NetworkRefused("invalid_network", f"shape inference fails: {error}") from None
    for value in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]:
        spec = _spec(value)
        if spec is not None:
            network.types[value.name] = spec


def _spec(value: onnx.ValueInfoProto) -> TensorSpec | None:
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    if any(not dimension.HasField("dim_value") for dimension in tensor.shape.dim):
        return None
    shape = tuple(int(dimension.dim_value) for dimension in tensor.shape.dim)
    return TensorSpec(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)


def require_static(network: Network, limit_elements: int = 1 << 30) -> None:
    """Raise dynamic_shape when any tensor's size still depends on values, too_large when one is beyond all reason."""
    for node in network.nodes:
        for name in node.output:
            if not name:
                continue
            shape = network.shape(name)
            if shape is None:
                raise NetworkRefused(
                    "dynamic_shape",
                    f"the size of {name!r}, which {node.op_type} {node.name!r} makes, depends on the input's values; "
                    "only networks whose every size follows from the input shapes can be tuned",
                    {"tensor": name, "operator": node.op_type, "node": node.name},
                )
            elements = 1
            for extent in shape:
                elements *= extent
            if elements > limit_elements:
                raise NetworkRefused("too_large", f"tensor {name!r} would hold {elements:,} elements", {"tensor": name})
