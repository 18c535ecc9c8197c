"""Parse an uploaded ONNX file from bytes alone, and refuse what is not safe to look at any further.

Nothing here opens a file: a tensor that claims to live in one is refused wherever it hides (CVE-2022-25882,
CVE-2024-27318, CVE-2026-34447), before anything may ask for its values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx

from crosstune.tuner.contracts import NetworkRefused

OLDEST_OPSET = 7
NEWEST_OPSET = min(24, onnx.defs.onnx_opset_version())
STANDARD_DOMAINS = ("", "ai.onnx")
FREE_TEXT = frozenset({"doc_string", "metadata_props", "producer_name", "producer_version"})
"""Written for people: in whatever encoding, nothing here reads them."""
MODEL_FIELDS = frozenset(field.number for field in onnx.ModelProto.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one network may cost at most."""

    model_bytes: int = 2_000_000_000
    """protobuf itself ends at 2 GiB"""
    nodes: int = 50_000
    weight_bytes: int = 8_000_000_000
    """declared by initialisers, whether their data is there or not"""
    dimension: int = 1 << 26
    rank: int = 8
    nesting: int = 8
    """sub-graphs inside sub-graphs"""


def load_model(data: bytes, limits: Limits | None = None) -> onnx.ModelProto:
    """The model in `data`, known to be complete, self-contained and of bearable size.

    Raises NetworkRefused with code not_onnx, truncated, external_data, unsupported_opset, unsupported_domain
    or too_large.
    """
    limits = limits or Limits()
    if len(data) > limits.model_bytes:
        raise too_large("file size in bytes", len(data), limits.model_bytes)
    model = _parse(data)
    _check_depth(model.graph, limits.nesting)
    _check_text(model)
    refuse_external_data(model)
    _check_opsets(model)
    _check_size(model, limits)
    return model


def too_large(what: str, found: int, limit: int) -> NetworkRefused:
    return NetworkRefused("too_large", f"{what} is {found:,}; at most {limit:,} is accepted", {"limit": limit})


def _parse(data: bytes) -> onnx.ModelProto:
    if not data:
        raise NetworkRefused("not_onnx", "the file is empty")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # of the protobuf package that onnx happens to bring
            raise
        raise _undecodable(data) from None
    if not model.HasField("graph") or not model.graph.output:
        code = "truncated" if _walk(data) and model.ir_version else "not_onnx"
        raise NetworkRefused(code, "the file holds no complete ONNX graph; upload all of it")
    if not model.opset_import and not model.functions:
        raise NetworkRefused("truncated", "the file ends before its operator set; upload all of it")
    return model


def _undecodable(data: bytes) -> NetworkRefused:
    if _walk(data):
        return NetworkRefused("truncated", f"the ONNX file is cut off: its {len(data):,} bytes end inside a field")
    return NetworkRefused("not_onnx", "the file is not ONNX (no protobuf ModelProto)")


def _walk(data: bytes) -> bool:
    """True when the top level looks like a ModelProto up to the end, or up to a field that runs past the end."""
    position, size = 0, len(data)
    while position < size:
        tag, position = _varint(data, position)
        if tag is None:
            return position >= size
        field, wire = tag >> 3, tag & 7
        if field not in MODEL_FIELDS or wire not in (0, 2):
            return False
        value, position = _varint(data, position)
        if value is None:
            return position >= size
        position += value if wire == 2 else 0
    return True


def _varint(data: bytes, position: int) -> tuple[int | None, int]:
    value = 0
    for index in range(10):
        if position >= len(data):
            return None, position
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position
    return None, position


def _attribute_graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for attribute in itertools.chain.from_iterable(node.attribute for node in nodes):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_depth(graph: onnx.GraphProto, levels_left: int) -> None:
    if levels_left == 0:
        raise NetworkRefused("too_large", "sub-graphs are nested too deeply")
    for inner in _attribute_graphs(graph.node):
        _check_depth(inner, levels_left - 1)


def _check_text(message: Any) -> None:
    """Refuse names that are no text: protobuf hands them out as bytes, which compare with no other name."""
    if isinstance(message, onnx.TensorProto):  # to list its fields would copy its values
        _require_text("name", message.name)
        return
    for field, value in message.ListFields():
        if field.name in FREE_TEXT or field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        single = isinstance(value, str | bytes) or hasattr(value, "ListFields")
        for one in [value] if single else value:
            if field.type == field.TYPE_STRING:
                _require_text(field.name, one)
            else:
                _check_text(one)


def _require_text(name: str, value: str | bytes) -> None:
    if isinstance(value, bytes):
        raise NetworkRefused("not_onnx", f"a {name} in the file is not UTF-8 text: {value[:80]!r}; it is damaged")


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor reachable from `graph`: initialisers, attributes, sparse parts and sub-graphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    yield from _attribute_tensors(attribute for node in nodes for attribute in node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in [*single, *attribute.sparse_tensors]:
            yield from (sparse.values, sparse.indices)
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            yield from tensors(graph)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model, also those of functions and training information."""
    yield from tensors(model.graph)
    for information in model.training_info:
        yield from tensors(information.initialization)
        yield from tensors(information.algorithm)
    for function in model.functions:
        yield from _node_tensors(function.node)
        yield from _attribute_tensors(function.attribute_proto)


def refuse_external_data(model: onnx.ModelProto) -> None:
    """Raise external_data when any tensor of the model says that its values are in another file."""
    for tensor in all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise NetworkRefused(
                "external_data",
                f"tensor {tensor.name!r} keeps its values in another file, which is never opened; save the network "
                "in one file, or strip its weights (they are replaced by random ones)",
                {"tensor": tensor.name},
            )


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    yield from graph.node
    for inner in _attribute_graphs(graph.node):
        yield from _all_nodes(inner)


def _check_opsets(model: onnx.ModelProto) -> None:
    local = {function.domain for function in model.functions}
    used = {node.domain for node in _all_nodes(model.graph)} | {n.domain for f in model.functions for n in f.node}
    foreign = sorted(used - local - set(STANDARD_DOMAINS))
    if foreign:
        raise NetworkRefused(
            "unsupported_domain",
            f"operators of the domains {', '.join(foreign)} are not supported; only standard ONNX operators are",
            {"domains": foreign},
        )
    opsets = [*model.opset_import, *(entry for function in model.functions for entry in function.opset_import)]
    for entry in opsets:
        if entry.domain in STANDARD_DOMAINS and not OLDEST_OPSET <= entry.version <= NEWEST_OPSET:
            raise NetworkRefused(
                "unsupported_opset",
                f"the network uses opset {entry.version}; opsets {OLDEST_OPSET} to {NEWEST_OPSET} are supported",
                {"opset": entry.version},
            )


def _check_size(model: onnx.ModelProto, limits: Limits) -> None:
    nodes = sum(1 for _ in _all_nodes(model.graph)) + sum(len(function.node) for function in model.functions)
    if nodes > limits.nodes:
        raise too_large("the number of operators", nodes, limits.nodes)
    total = 0
    for tensor in all_tensors(model):
        if len(tensor.dims) > limits.rank:
            raise too_large(f"the rank of tensor {tensor.name!r}", len(tensor.dims), limits.rank)
        elements = 1
        for extent in tensor.dims:
            if extent < 0:
                raise NetworkRefused("not_onnx", f"tensor {tensor.name!r} has a negative dimension")
            if extent > limits.dimension:
                raise too_large(f"a dimension of tensor {tensor.name!r}", extent, limits.dimension)
            elements *= extent
        total += elements * item_bytes(tensor.data_type)
    if total > limits.weight_bytes:
        raise too_large("the size of all weights in bytes", total, limits.weight_bytes)


def item_bytes(data_type: int) -> int:
    """Bytes of one element, counting anything below a byte as one; strings as 16."""
    if data_type == onnx.TensorProto.STRING:
        return 16
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except KeyError:
        raise NetworkRefused("not_onnx", f"a tensor has the unknown element type {data_type}") from None
