"""Weights that are missing: seeded random values that keep activations at a bearable scale.

A network may come stripped: initialisers beyond 1,024 elements without data, or weights that a `ConstantOfShape`
makes (all equal, so that every output is, and no wrong schedule would ever show). Convolution and matrix weights get
normal values with variance gain / fan-in (He et al. 2015, "Delving Deep into Rectifiers": gain 2 keeps the scale
through a ReLU); a layer whose output is added to a residual path gets a smaller gain, so that deep sums stay bounded,
one behind a max pooling, which picks large values, a quarter, one without an activation behind it gain 1, and the
last one a tenth, so that a softmax does not saturate. Values depend on the seed and the tensor's name only.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.frontends.network import SMALL_ELEMENTS, Array, Network, Weight, attributes

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
PASSED_THROUGH = ("Unsqueeze", "Reshape", "Identity", "Squeeze", "Cast")
LINEAR = (*PASSED_THROUGH, "Add", "Mul", "BatchNormalization", "Transpose", "Dropout")
NORMALISATIONS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization")
ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Gelu", "Elu", "Softplus")
GAIN, LINEAR_GAIN, RESIDUAL_GAIN, LAST_GAIN, POOLED = 2.0, 1.0, 0.2, 0.1, 0.25


@dataclass(frozen=True, slots=True)
class Role:
    """What a constant is for: kind `layer` has a fan-in, the others a usual range."""

    kind: str
    """layer | variance | scale | shift | table"""
    deviation: float = 0.1


def generate(shape: tuple[int, ...], dtype: np.dtype[Any], role: Role, seed: int, name: str) -> Array:
    """The values of one missing tensor; integers are zeros, which are valid as indices and as masks' padding."""
    if dtype.kind not in "f" and dtype.name != "bfloat16":
        return np.zeros(shape, dtype)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    random = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "little")))
    if role.kind == "variance":
        return random.uniform(0.8, 1.2, shape).astype(dtype)
    values = random.standard_normal(shape, dtype=np.float32)
    values *= np.float32(role.deviation)
    if role.kind == "scale":
        values += np.float32(1.0)
    return values.astype(dtype, copy=False)


Consumers = dict[str, list[tuple[onnx.NodeProto, int]]]


def role_of(name: str, shape: tuple[int, ...], network: Network, consumers: Consumers) -> Role:
    """What tensor `name` is for, from the first operator that says so."""
    for node, position in consumers.get(name, []):
        if node.op_type == "Transpose":
            return Role("layer", math.sqrt(GAIN / max(1, shape[-1] if shape else 1)))
        if node.op_type in PASSED_THROUGH and position == 0:
            return role_of(node.output[0], shape, network, consumers)
        if node.op_type in LAYERS and position == 1:
            gain = _gain(node, network, consumers) * (POOLED if _is_pooled(node.input[0], network) else 1.0)
            deviation = math.sqrt(gain / max(1, _fan_in(node, shape)))
            return Role("layer", deviation)
        if node.op_type in NORMALISATIONS and position > 0:
            return (Role("scale"), Role("shift"), Role("shift"), Role("variance"))[min(position, 4) - 1]
        if node.op_type == "Mul":
            return Role("scale")
        if node.op_type == "Gather" and position == 0:
            return Role("table", 0.5)
    return Role("shift")


def _fan_in(node: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    if not shape:
        return 1
    if node.op_type == "Conv":
        return math.prod(shape[1:])
    if node.op_type == "ConvTranspose":
        return shape[0] * math.prod(shape[2:])
    if node.op_type == "Gemm":
        return shape[1] if attributes(node).get("transB", 0) else shape[0]
    return shape[-2] if len(shape) > 1 else shape[0]


def _gain(node: onnx.NodeProto, network: Network, consumers: Consumers) -> float:
    """The variance gain of a layer, from what its output runs into."""
    for _ in range(4):
        following = consumers.get(node.output[0], [])
        if not following or following[0][0].op_type == "Softmax":
            return LAST_GAIN
        node, position = following[0]
        constant = all(name in network.constants for index, name in enumerate(node.input) if index != position)
        if node.op_type in ("Add", "Sum") and not constant and len(following) == 1:
            return RESIDUAL_GAIN
        if node.op_type in LINEAR:
            continue
        return GAIN if node.op_type in ACTIVATIONS else LINEAR_GAIN
    return GAIN


def _is_pooled(name: str, network: Network) -> bool:
    """True when a max pooling made the tensor, perhaps with a ReLU or a normalisation behind it."""
    for _ in range(3):
        producer = next((node for node in network.nodes if name in node.output), None)
        if producer is None or producer.op_type not in ("MaxPool", "Relu", "LRN"):
            return False
        if producer.op_type == "MaxPool":
            return True
        name = producer.input[0]
    return False


def has_data(tensor: onnx.TensorProto) -> bool:
    """False for a tensor whose shape is there and whose values are not."""
    fields = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
    return bool(tensor.raw_data) or any(len(getattr(tensor, field)) for field in fields) or 0 in tensor.dims


def weight_of(tensor: onnx.TensorProto) -> Weight | None:
    """The constant a tensor holds, or None when its data is missing; raises NetworkRefused when it is damaged."""
    elements = math.prod(tensor.dims)
    if not has_data(tensor):
        if elements > SMALL_ELEMENTS:
            return None
        raise NetworkRefused(
            "missing_data",
            f"tensor {tensor.name!r} has no values; only those of more than {SMALL_ELEMENTS} elements may be left out",
            {"tensor": tensor.name, "elements": elements},
        )
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if tensor.raw_data and dtype.itemsize * elements != len(tensor.raw_data) and tensor.data_type < 17:
            raise ValueError(f"{len(tensor.raw_data)} bytes for {elements} elements of {dtype}")
        if elements <= SMALL_ELEMENTS:
            return Weight.of(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        raise NetworkRefused("invalid_network", f"tensor {tensor.name!r} is damaged: {error}") from None
    return Weight(tuple(tensor.dims), dtype, lambda: numpy_helper.to_array(tensor))


def seeded(shape: tuple[int, ...], dtype: np.dtype[Any], role: Role, seed: int, name: str) -> Weight:
    """A weight that makes its random values when asked."""
    return Weight(shape, dtype, lambda: generate(shape, dtype, role, seed, name))


def strip_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the values of floating-point initialisers beyond 1,024 elements: what a client may upload."""
    stripped = onnx.ModelProto()
    stripped.CopyFrom(model)
    for tensor in stripped.graph.initializer:
        floating = tensor.data_type in (
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.FLOAT16,
            onnx.TensorProto.DOUBLE,
            onnx.TensorProto.BFLOAT16,
        )
        if floating and math.prod(tensor.dims) > SMALL_ELEMENTS:
            for field in ("raw_data", "float_data", "double_data", "int32_data"):
                tensor.ClearField(field)
    return stripped
