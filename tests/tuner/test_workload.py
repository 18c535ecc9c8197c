"""Workload identity: what is the same computation has the same keys, what differs has not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosstune.tuner.contracts import Workload
from crosstune.tuner.tvm_adapter.preload import preload


@pytest.fixture(scope="module", autouse=True)
def tvm() -> Iterator[None]:
    preload()
    yield


def workload(function: Any) -> Workload:
    from crosstune.tuner.tvm_adapter.workload import workload_of

    return workload_of(function, "fused_conv2d1_add2_relu")


def convolution(
    names: Callable[[str], str] = str,
    size: int = 12,
    channels: int = 8,
    stride: int = 1,
    dilation: int = 1,
    before: int = 1,
    after: int = 1,
    layout: str = "NHWC",
    bound: float = 0.0,
) -> Any:
    """A convolution with bias and ReLU as TVM's operator library writes it."""
    from tvm import te, tirx, topi

    data = te.placeholder((1, size, size, 4), name=names("data"))
    weight = te.placeholder((3, 3, 4, channels), name=names("weight"))
    bias = te.placeholder((channels,), name=names("bias"))
    pads = (before, before, after, after)
    result = topi.nn.conv2d(data, weight, stride, pads, dilation, layout)
    total = te.compute(result.shape, lambda *at: result(*at) + bias[at[-1]], name=names("sum"))
    final = te.compute(total.shape, lambda *at: tirx.max(total(*at), tirx.const(bound, "float32")), name=names("top"))
    return te.create_prim_func([data, weight, bias, final])


def normalisation(axis: int, epsilon: float) -> Any:
    from tvm import te, topi

    data = te.placeholder((6, 6), name="data")
    scale, shift = te.placeholder((6,), name="scale"), te.placeholder((6,), name="shift")
    return te.create_prim_func([data, scale, shift, topi.nn.layer_norm(data, scale, shift, [axis], epsilon)])


def test_the_name_is_readable() -> None:
    from crosstune.tuner.tvm_adapter.workload import readable_name

    assert readable_name("fused_conv2d1_add2_relu") == "conv2d_add_relu"
    assert readable_name("fused_conv2d_add_tir_sigmoid7_multiply12") == "conv2d_add_sigmoid_multiply"
    assert readable_name("max_pool2d3") == "max_pool2d"
    assert readable_name("") == "workload"


def test_arguments_outputs_and_operations_are_those_of_the_program() -> None:
    found = workload(convolution())
    shapes = ((1, 12, 12, 4), (3, 3, 4, 8), (8,), (1, 12, 12, 8))
    assert found.args == tuple(("float32", shape) for shape in shapes)
    assert found.output_count == 1
    assert found.flops == 12 * 12 * 8 * (2 * 3 * 3 * 4 + 2)


@settings(max_examples=30, deadline=None)
@given(suffix=st.text("abcdefgh_", min_size=1, max_size=6), size=st.integers(5, 20), stride=st.integers(1, 2))
def test_renaming_changes_no_key(suffix: str, size: int, stride: int) -> None:
    plain = workload(convolution(size=size, stride=stride))
    renamed = workload(convolution(lambda name: f"{suffix}_{name}", size=size, stride=stride))
    assert (plain.sha256, plain.version_free_key, plain.module) == (
        renamed.sha256,
        renamed.version_free_key,
        renamed.module,
    )


@settings(max_examples=15, deadline=None)
@given(size=st.integers(5, 20), channels=st.integers(1, 9), dilation=st.integers(1, 2))
def test_a_workload_that_is_stored_and_read_again_keeps_its_keys(size: int, channels: int, dilation: int) -> None:
    from crosstune.tuner.tvm_adapter.workload import load_module

    first = workload(convolution(size=size, channels=channels, dilation=dilation))
    again = workload(load_module(first)["main"])
    assert (first.sha256, first.version_free_key) == (again.sha256, again.version_free_key)


def test_origin_and_target_attributes_change_no_key() -> None:
    plain = convolution()
    marked = plain.with_attr("op_pattern", 4).with_attr("global_symbol", "fused_conv2d_17")
    assert workload(plain).sha256 == workload(marked).sha256


def test_stride_dilation_padding_side_axis_epsilon_and_constants_give_different_keys() -> None:
    variants = [
        convolution(size=12),
        convolution(size=12, stride=2),
        convolution(size=12, dilation=2, before=2, after=2),
        convolution(size=12, before=2, after=0),
        convolution(size=12, before=0, after=2),
        convolution(size=12, bound=1.0),
        convolution(size=12, channels=9),
        normalisation(0, 1e-5),
        normalisation(1, 1e-5),
        normalisation(1, 1e-6),
    ]
    workloads = [workload(variant) for variant in variants]
    assert len({entry.version_free_key for entry in workloads}) == len(variants)
    assert len({entry.sha256 for entry in workloads}) == len(variants)


def test_the_version_free_key_does_not_see_how_an_index_is_written() -> None:
    """The same indices with int32 iterators, as other versions of the compiler make them."""
    from tvm import te

    def shifted(dtype: str, turned: bool) -> Any:
        from tvm import tirx

        extent = tirx.IntImm(dtype, 8)
        data = te.placeholder((tirx.IntImm(dtype, 18),), name="data")
        two, one = tirx.IntImm(dtype, 2), tirx.IntImm(dtype, 1)
        body = (lambda i: data[one + i * two]) if turned else (lambda i: data[i + i + one])
        return te.create_prim_func([data, te.compute((extent,), body, name="out")])

    keys = {
        workload(shifted(dtype, turned)).version_free_key for dtype in ("int32", "int64") for turned in (True, False)
    }
    assert len(keys) == 1


def test_block_names_are_canonical_and_a_trace_finds_them() -> None:
    from tvm.s_tir import Schedule

    from crosstune.tuner.tvm_adapter.workload import load_module

    found = workload(convolution(lambda name: f"my_{name}"))
    schedule = Schedule(load_module(found))
    root = schedule.get_sblock("root")
    names = [str(schedule.get(child).name_hint) for child in schedule.get_child_blocks(root)]
    assert names == [f"b{index}" for index in range(len(names))]
    assert "my_" not in found.module


def test_the_canonical_text_is_the_same_program() -> None:
    import tvm_ffi

    from crosstune.tuner.tvm_adapter.workload import load_module

    for function in (convolution(), normalisation(1, 1e-5)):
        main = load_module(workload(function))["main"]
        assert tvm_ffi.structural_equal(main, function.with_attr("global_symbol", "main"))


def test_the_stored_module_is_small() -> None:
    found = workload(convolution())
    assert len(found.module) < 30_000
    assert json.loads(found.module)["metadata"]["tvm_version"] == found.tvm_version


def test_a_program_without_arithmetic_has_no_operations_and_is_still_a_workload() -> None:
    from tvm import te, topi

    data = te.placeholder((2, 3, 4), name="data")
    found = workload(te.create_prim_func([data, topi.transpose(data, (2, 0, 1))]))
    assert found.flops == 0.0
    assert found.args[1] == ("float32", (4, 2, 3))
