"""Which ONNX operators can be tuned, kept as data so that the answer needs no compiler.

The list is that of TVM 0.27's converter without what makes shapes depend on values or is no tensor computation.
"""

from __future__ import annotations

from crosstune.tuner.contracts import NetworkRefused
from crosstune.tuner.frontends.network import Network

NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift
BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip Concat ConstantOfShape Conv ConvTranspose Cos
Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike
Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf
IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpPool MatMul MatMulInteger Max MaxPool Mean
MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization Range
Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize RoiAlign Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(NAMES.split())


def refuse_unsupported(network: Network) -> None:
    """Raise unsupported_operator with every operator that cannot be tuned and a node that uses it."""
    found: dict[str, str] = {}
    for node in network.nodes:
        if node.op_type not in SUPPORTED:
            found.setdefault(node.op_type, node.name or (node.output[0] if node.output else ""))
    if found:
        named = ", ".join(f"{operator} (node {name!r})" for operator, name in sorted(found.items()))
        raise NetworkRefused(
            "unsupported_operator",
            f"the network uses operators that cannot be tuned: {named}",
            {"operators": sorted(found), "nodes": found},
        )


def counts(network: Network) -> dict[str, int]:
    """How often each operator is left in the network."""
    found: dict[str, int] = {}
    for node in network.nodes:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return dict(sorted(found.items()))
