"""Tiny workloads, as the module JSON that the tuner passes around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.preload import preload

preload()

import tvm  # noqa: E402
from tvm import te, topi  # noqa: E402
from tvm.target import Target  # noqa: E402
from tvm.target.codegen import llvm_get_system_cpu  # noqa: E402

from crosstune.tuner.tvm_adapter.target import tvm_target  # noqa: E402

Kernel = Callable[..., str]


def placeholder(name: str, *shape: int, dtype: str = "float32") -> Any:
    return te.placeholder(shape, name=name, dtype=dtype)


def module_json(*tensors: Any) -> str:
    function = te.create_prim_func(list(tensors)).with_attr("global_symbol", "main").with_attr("tirx.noalias", True)
    if "layout_free_buffers" in function.attrs:
        function = function.without_attr("layout_free_buffers")
    return str(tvm.ir.save_json(tvm.IRModule({"main": function})))


def matmul(m: int, n: int, k: int) -> str:
    a, b = placeholder("a", m, k), placeholder("b", k, n)
    return module_json(a, b, topi.nn.relu(topi.matmul(a, b)))


def dense(m: int, n: int, k: int) -> str:
    a, b, bias = placeholder("a", m, k), placeholder("b", n, k), placeholder("bias", n)
    return module_json(a, b, bias, topi.add(topi.nn.dense(a, b), bias))


def conv2d(size: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> str:
    a = placeholder("a", 1, size, size, inputs)
    w, bias = placeholder("w", kernel, kernel, inputs, outputs), placeholder("bias", outputs)
    return module_json(a, w, bias, topi.nn.relu(topi.add(topi.nn.conv2d_nhwc(a, w, stride, padding, 1), bias)))


def conv2d_nchw(size: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
    a, w = placeholder("a", 1, inputs, size, size), placeholder("w", outputs, inputs, kernel, kernel)
    return module_json(a, w, topi.nn.conv2d_nchw(a, w, stride, 1, 1))


def depthwise(size: int, channels: int, stride: int = 1) -> str:
    a, w = placeholder("a", 1, size, size, channels), placeholder("w", 3, 3, channels, 1)
    return module_json(a, w, topi.nn.relu(topi.nn.depthwise_conv2d_nhwc(a, w, stride, 1, 1)))


def softmax(*shape: int) -> str:
    a = placeholder("a", *shape)
    return module_json(a, topi.nn.softmax(a))


def layer_norm(rows: int, columns: int) -> str:
    a, gamma, beta = placeholder("a", rows, columns), placeholder("gamma", columns), placeholder("beta", columns)
    return module_json(a, gamma, beta, topi.nn.layer_norm(a, gamma, beta, [1], 1e-5))


def max_pool(size: int, channels: int) -> str:
    a = placeholder("a", 1, size, size, channels)
    return module_json(a, topi.nn.pool2d(a, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], "max", layout="NHWC"))


def mean(*shape: int, axis: int) -> str:
    a = placeholder("a", *shape)
    return module_json(a, topi.divide(topi.sum(a, axis=axis), float(shape[axis])))


def transpose(*shape: int) -> str:
    a = placeholder("a", *shape)
    return module_json(a, topi.transpose(a, list(reversed(range(len(shape))))))


def gelu(*shape: int) -> str:
    a = placeholder("a", *shape)
    return module_json(a, topi.multiply(a, topi.add(topi.erf(topi.multiply(a, 0.70710678)), 1.0)))


def add_broadcast(rows: int, columns: int) -> str:
    a, b = placeholder("a", rows, columns), placeholder("b", 1, columns)
    return module_json(a, b, topi.tanh(topi.add(a, b)))


def scan(rows: int, columns: int) -> str:
    """A PrimFunc written as plain loops, which no schedule primitive can touch."""
    a = placeholder("a", rows, columns)
    return module_json(a, topi.cumsum(a, axis=1))


KERNELS: dict[str, Kernel] = {
    each.__name__: each
    for each in (
        matmul, dense, conv2d, conv2d_nchw, depthwise, softmax, layer_norm, max_pool, mean, transpose, gelu,
        add_broadcast, scan,
    )
}  # fmt: skip


@pytest.fixture(scope="session")
def kernels() -> dict[str, Kernel]:
    """Makers of module JSON by operator."""
    return KERNELS


@pytest.fixture(scope="session")
def target_spec() -> TargetSpec:
    return TargetSpec(kind="llvm", mcpu=str(llvm_get_system_cpu()), cores=2, model="this machine")


@pytest.fixture(scope="session")
def target(target_spec: TargetSpec) -> Target:
    return tvm_target(target_spec)


@pytest.fixture(scope="session")
def outputs(target: Target) -> Callable[[Any], list[Any]]:
    """Runs a module on inputs that depend on its shapes only; gives inputs and outputs, the output last."""

    def run(module: Any) -> list[Any]:
        generator = np.random.default_rng(0)
        arrays = []
        for parameter in module["main"].params:
            values = generator.standard_normal([int(size) for size in parameter.shape])
            arrays.append(tvm.runtime.tensor(values.astype(str(parameter.dtype))))
        tvm.compile(module, target)["main"](*arrays)
        return [array.numpy() for array in arrays]

    return run
