"""The default schedule: right for any shape, parallel and vectorised where there is work, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.default_schedule import default_module, default_trace
from crosstune.tuner.tvm_adapter.schedule import load_module, module_sha256, scheduled_module

Kernels = dict[str, Callable[..., str]]
Outputs = Callable[[Any], list[Any]]

SHAPES: list[tuple[str, dict[str, Any] | tuple[int, ...]]] = [
    ("matmul", (128, 96, 64)),
    ("matmul", (17, 5, 33)),
    ("matmul", (1, 1, 1)),
    ("dense", (1, 1000, 512)),
    ("dense", (64, 48, 128)),
    ("dense", (3, 7, 11)),
    ("conv2d", (14, 32, 64)),
    ("conv2d", (15, 7, 13, 3, 2, 1)),
    ("conv2d", (1, 64, 64, 1, 1, 0)),
    ("conv2d", (28, 3, 100, 1, 1, 0)),
    ("conv2d_nchw", (14, 8, 12)),
    ("conv2d_nchw", (13, 3, 5, 3, 2)),
    ("depthwise", (14, 48)),
    ("depthwise", (9, 5, 2)),
    ("softmax", (12, 16, 128)),
    ("softmax", (1, 1000)),
    ("softmax", (3, 7)),
    ("layer_norm", (32, 768)),
    ("layer_norm", (3, 50)),
    ("layer_norm", (1, 1)),
    ("max_pool", (28, 64)),
    ("max_pool", (7, 3)),
    ("transpose", (16, 30, 7)),
    ("gelu", (64, 100)),
    ("gelu", (1, 1)),
    ("add_broadcast", (300, 999)),
    ("scan", (50, 64)),
]


@pytest.mark.parametrize(("name", "shape"), SHAPES, ids=[f"{name}{shape}" for name, shape in SHAPES])
def test_the_default_program_computes_what_the_unscheduled_one_does(
    kernels: Kernels, target: Any, outputs: Outputs, name: str, shape: tuple[int, ...]
) -> None:
    module = kernels[name](*shape)
    expected = outputs(load_module(module))[-1]
    found = outputs(default_module(module, target))[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_default_program_is_right_for_drawn_shapes(
    kernels: Kernels, target: Any, outputs: Outputs, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["matmul", "dense", "conv2d", "depthwise", "softmax", "layer_norm", "mean"]))
    extent = st.integers(1, 40)
    if name in {"matmul", "dense"}:
        module = kernels[name](data.draw(extent), data.draw(extent), data.draw(extent))
    elif name == "conv2d":
        module = kernels[name](data.draw(st.integers(3, 12)), data.draw(extent), data.draw(extent))
    elif name == "mean":
        module = kernels[name](data.draw(extent), data.draw(st.integers(1, 300)), axis=data.draw(st.integers(0, 1)))
    else:
        module = kernels[name](data.draw(st.integers(3, 12)), data.draw(extent))
    expected = outputs(load_module(module))[-1]
    found = outputs(default_module(module, target))[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_it_agrees_with_numpy(kernels: Kernels, target: Any, outputs: Outputs) -> None:
    a, b, product = outputs(default_module(kernels["matmul"](24, 32, 40), target))
    np.testing.assert_allclose(product, np.maximum(a @ b, 0), rtol=1e-5, atol=1e-5)
    a, normal = outputs(default_module(kernels["softmax"](6, 65), target))
    exponents = np.exp(a - a.max(axis=-1, keepdims=True))
    np.testing.assert_allclose(normal, exponents / exponents.sum(axis=-1, keepdims=True), rtol=1e-5)
    a, w, bias, image = outputs(default_module(kernels["conv2d"](10, 5, 16), target))
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (1, y, x, channel, 3, 3)
    np.testing.assert_allclose(
        image, np.maximum(np.einsum("nyxcij,ijco->nyxo", windows, w) + bias, 0), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("matmul", (128, 96, 64)),
        ("dense", (1, 1000, 512)),
        ("conv2d", (14, 32, 64)),
        ("conv2d_nchw", (16, 8, 16)),
        ("depthwise", (28, 48)),
        ("softmax", (12, 64, 128)),
        ("layer_norm", (128, 768)),
        ("max_pool", (28, 64)),
        ("gelu", (64, 128)),
        ("add_broadcast", (300, 999)),
    ],
    ids=str,
)
def test_work_is_spread_over_threads_and_vectors(
    kernels: Kernels, target: Any, name: str, shape: tuple[int, ...]
) -> None:
    text = default_module(kernels[name](*shape), target).script()
    assert "T.parallel" in text
    assert "T.vectorized" in text


def test_tiny_work_starts_no_threads(kernels: Kernels, target: Any) -> None:
    assert "T.parallel" not in default_module(kernels["softmax"](3, 7), target).script()


def test_its_trace_is_a_record_like_any_other(kernels: Kernels, target: Any, target_spec: TargetSpec) -> None:
    for name, shape in SHAPES[::5]:
        module = kernels[name](*shape)
        trace = default_trace(module, target)
        assert trace == default_trace(module, target)
        assert module_sha256(scheduled_module(module, trace, target)) == module_sha256(default_module(module, target))
