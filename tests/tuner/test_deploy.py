"""Building a network: pinned schedules are found, wrong ones are refused, and only then is there a manifest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from crosstune.tuner import deploy
from crosstune.tuner.artifact import read_manifest
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import (
    BuildOutcome,
    BuildRequest,
    ChildFailed,
    Invalidity,
    NetworkRefused,
    PinnedSchedule,
)
from crosstune.tuner.manifest import LIBRARY_NAME, MANIFEST_NAME, WEIGHTS_NAME
from crosstune.tuner.tvm_adapter.preload import preload

MakeRequest = Callable[..., BuildRequest]
SIZE = 48


def sampled_schedules(request: BuildRequest) -> list[PinnedSchedule]:
    """A random schedule out of TVM's search space for every workload of the request's network."""
    modules = workload_modules(request)
    from crosstune.tuner.tvm_adapter.target import tvm_target

    target = tvm_target(request.target)
    return [sampled_schedule(sha256, module_json, target) for sha256, module_json in modules.items()]


def workload_modules(request: BuildRequest) -> dict[str, str]:
    """sha256 of each workload of the request's network -> its module."""
    preload()
    from crosstune.tuner.tvm_adapter.graph import prepare, prim_funcs
    from crosstune.tuner.tvm_adapter.workload import workload_of

    prepared = prepare(Path(request.network_path).read_bytes(), request.shapes, request.seed)
    workloads = [workload_of(function, name) for name, function in prim_funcs(prepared.module).items()]
    return {workload.sha256: workload.module for workload in workloads}


def sampled_schedule(workload_sha256: str, module_json: str, target: Any) -> PinnedSchedule:
    from tvm.s_tir.meta_schedule import TuneContext

    from crosstune.tuner.tvm_adapter import schedule

    for seed in range(1, 30):
        context = TuneContext(
            schedule.load_module(module_json),
            target=target,
            space_generator="post-order-apply",
            num_threads=1,
            rand_state=seed,
        )
        for candidate in context.generate_design_space():
            trace = schedule.trace_json(candidate)
            try:
                schedule.scheduled_module(module_json, trace, target)
            except schedule.ReplayFailed:
                continue
            return PinnedSchedule(workload_sha256, trace, schedule.schedule_sha256(trace), 1e-5)
    raise AssertionError("no random schedule of 29 is usable")


def build(template: Template, request: BuildRequest) -> BuildOutcome:
    compiled = deploy.compile_network(template, request)
    verification = deploy.verify(template, compiled)
    timings = None if verification.refused else deploy.time_network(template, compiled, duration_s=0.1)
    return deploy.finish(compiled, verification, timings)


def matrix_network(constant: bool = False) -> onnx.ModelProto:
    """Two fully connected layers with square weights, so that swapped axes have the right shape."""
    generator = np.random.default_rng(2)
    first = generator.standard_normal((SIZE, SIZE)).astype(np.float32) / SIZE**0.5
    second = np.full((SIZE, SIZE), 0.01, np.float32) if constant else first[::-1].copy()
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "matrices",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZE])],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_every_pinned_workload_is_found_and_the_network_is_verified_and_timed(
    template: Template, small_network: onnx.ModelProto, make_request: MakeRequest
) -> None:
    schedules = sampled_schedules(make_request(small_network))
    request = make_request(small_network, schedules)
    outcome = build(template, request)
    assert outcome.refused is None
    assert outcome.workloads_applied == outcome.workloads_total == len({each.workload_sha256 for each in schedules})
    assert outcome.largest_error is not None and outcome.largest_error < 1e-3
    for latency_s in (outcome.tuned_latency_s, outcome.untuned_latency_s, outcome.reference_latency_s):
        assert latency_s is not None and 1e-7 < latency_s < 1.0
    folder = Path(request.output_folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST_NAME, LIBRARY_NAME, WEIGHTS_NAME])
    manifest = read_manifest(folder)
    assert manifest.to_json() == json.loads(json.dumps(outcome.manifest))
    assert {each["source"] for each in manifest.schedules} == {"pinned"}
    assert {each["schedule_sha256"] for each in manifest.schedules} == {each.schedule_sha256 for each in schedules}
    assert all(each["problem"] is None for each in manifest.verification["kernels"])
    assert manifest.verification["weights"] == "real" and not manifest.synthetic_weights
    assert len(manifest.verification["kernels"]) == len(manifest.schedules)


def test_a_workload_without_a_pin_gets_the_default_and_a_foreign_pin_is_counted_as_not_found(
    template: Template, make_request: MakeRequest
) -> None:
    own = sampled_schedules(make_request(matrix_network()))[0]
    foreign = PinnedSchedule("f" * 64, own.trace, own.schedule_sha256, None)
    compiled = deploy.compile_network(template, make_request(matrix_network(), [own, foreign]))
    assert compiled.manifest is not None
    assert (compiled.manifest.workloads_applied, compiled.manifest.workloads_total) == (1, 2)
    assert sorted(each["source"] for each in compiled.manifest.schedules) == ["default", "pinned"]


def test_inputs_of_a_verification_are_drawn_afresh(template: Template, make_request: MakeRequest) -> None:
    compiled = deploy.compile_network(template, make_request(matrix_network()))
    first, second = deploy.verify(template, compiled), deploy.verify(template, compiled)
    assert first.refused is None and second.refused is None
    assert first.report["seed"] != second.report["seed"]


def with_wrong_tile(schedule: PinnedSchedule) -> PinnedSchedule:
    """The schedule with one tile that does not divide its loop."""
    trace = json.loads(json.dumps(schedule.trace))
    tiles = [decision for decision in trace[1] if isinstance(decision[1], list)]
    tiles[0][1][-1] += 1
    return PinnedSchedule(schedule.workload_sha256, trace, schedule.schedule_sha256, schedule.latency_s)


def test_a_schedule_with_a_wrong_tile_is_refused(template: Template, make_request: MakeRequest) -> None:
    request = make_request(matrix_network())
    damaged = [
        with_wrong_tile(each) if any(isinstance(decision[1], list) for decision in each.trace[1]) else each
        for each in sampled_schedules(request)
    ]
    outcome = build(template, make_request(matrix_network(), damaged))
    assert outcome.refused is not None and "unusable" in outcome.refused
    assert outcome.tuned_latency_s is None
    assert list(Path(request.output_folder).iterdir()) == []


def test_untried_schedules_that_spoil_the_network_are_left_out_and_the_reason_is_kept(
    template: Template, make_request: MakeRequest
) -> None:
    tried, spoilt = sampled_schedules(make_request(matrix_network()))
    spoilt = replace(with_wrong_tile(spoilt), label="predicted")
    request = make_request(matrix_network(), [tried, spoilt])
    compiled, verification = deploy.compile_verified(template, request, lambda: False)
    outcome = deploy.finish(compiled, verification, deploy.time_network(template, compiled, duration_s=0.1))
    assert outcome.refused is None
    by_workload = {each["workload_sha256"]: each for each in outcome.manifest["schedules"]}
    assert by_workload[tried.workload_sha256]["label"] == "measured"
    left_out = by_workload[spoilt.workload_sha256]
    assert (left_out["label"], left_out["schedule_sha256"]) == ("default", None)
    assert "unusable" in left_out["reason"]
    assert compiled.request.schedules == (tried,)


def test_a_measured_schedule_that_spoils_the_network_is_refused_and_nothing_is_hidden(
    template: Template, make_request: MakeRequest
) -> None:
    first, spoilt = sampled_schedules(make_request(matrix_network()))
    untried = replace(first, label="transferred")
    request = make_request(matrix_network(), [untried, with_wrong_tile(spoilt)])
    _, verification = deploy.compile_verified(template, request, lambda: False)
    assert verification.refused is not None and spoilt.workload_sha256[:12] in verification.refused


Damage = Callable[[Any], Any]


def damaged_library(request: BuildRequest, damage: Damage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The request's network compiled with `damage` applied to the schedule of its first matrix product."""
    preload()
    from crosstune.tuner.tvm_adapter import network_build
    from crosstune.tuner.tvm_adapter.graph import prepare
    from crosstune.tuner.tvm_adapter.target import tvm_target

    real, damaged = network_build.scheduled_module, []

    def scheduled_module(module_json: str, trace: Any, target: Any) -> Any:
        module = real(module_json, trace, target)
        if not damaged:
            damaged.append(True)
            module = damage(module_json)
        return module

    monkeypatch.setattr(network_build, "scheduled_module", scheduled_module)
    prepared = prepare(Path(request.network_path).read_bytes(), request.shapes, request.seed)
    built = network_build.build(prepared.module, len(prepared.inputs), {}, tvm_target(request.target))
    library = Path(request.network_path).with_name("damaged.so")
    network_build.export(built, library)
    return library


def swapped_axes(module_json: str) -> Any:
    """The workload with the axes of its weights exchanged: same shapes, other numbers."""
    return rewritten(module_json, lambda indices: [indices[1], indices[0]])


def skipped_terms(module_json: str) -> Any:
    """The workload with a tile that stops short: the last weights' rows are never read, the first ones twice."""
    import tvm

    return rewritten(
        module_json, lambda indices: [tvm.tirx.min(indices[0], tvm.tirx.IntImm("int64", SIZE - 3)), indices[1]]
    )


def rewritten(module_json: str, change: Callable[[Sequence[Any]], list[Any]]) -> Any:
    """The workload with the indices of each read of a (SIZE, SIZE) buffer changed, and a plain schedule."""
    import tvm_ffi
    from tvm.ir import IRModule, TensorLoad
    from tvm.tirx import BufferLoad

    from crosstune.tuner.tvm_adapter.schedule import load_module

    def changed(load: Any) -> Any:
        if [int(size) for size in load.source.shape] == [SIZE, SIZE]:
            return BufferLoad(load.source, change(list(load.indices)))
        return load

    function = load_module(module_json)["main"]
    return IRModule({"main": function.with_body(tvm_ffi.structural_map(function.body, (TensorLoad, changed)))})


@pytest.mark.parametrize("damage", [swapped_axes, skipped_terms])
def test_a_kernel_that_computes_something_else_is_refused(
    template: Template, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    compiled = deploy.compile_network(template, make_request(matrix_network()))
    assert deploy.verify(template, compiled).refused is None
    shutil.copy(damaged_library(compiled.request, damage, monkeypatch), compiled.folder / LIBRARY_NAME)
    verification = deploy.verify(template, compiled)
    assert verification.refused is not None and "computes something else" in verification.refused
    outcome = deploy.finish(compiled, verification, None)
    assert outcome.refused == verification.refused
    assert list(compiled.folder.iterdir()) == []


def test_a_wrong_network_of_right_kernels_is_refused(template: Template, make_request: MakeRequest) -> None:
    compiled = deploy.compile_network(template, make_request(matrix_network()))
    weights = compiled.folder / WEIGHTS_NAME
    content = bytearray(weights.read_bytes())
    # Several rows: the ReLU before them may make any one of them meet nothing but zeros.
    rows = np.frombuffer(content, np.float32, offset=len(content) - 4 * 8 * SIZE)
    rows[:] = rows[::-1].copy()
    weights.write_bytes(content)
    verification = deploy.verify(template, compiled)
    assert verification.refused is not None and "output 'y' differs by" in verification.refused


def test_a_library_that_crashes_is_refused(template: Template, make_request: MakeRequest) -> None:
    compiled = deploy.compile_network(template, make_request(matrix_network()))
    library = compiled.folder / LIBRARY_NAME
    library.write_bytes(library.read_bytes()[:4096])
    verification = deploy.verify(template, compiled)
    assert verification.refused is not None and "cannot be run" in verification.refused


def test_a_network_whose_outputs_are_all_equal_cannot_be_verified(
    template: Template, make_request: MakeRequest
) -> None:
    outcome = build(template, make_request(matrix_network(constant=True)))
    assert outcome.refused is not None and "constant" in outcome.refused


def test_a_network_that_cannot_be_imported_is_refused_as_an_import_would(
    template: Template, make_request: MakeRequest
) -> None:
    request = make_request(matrix_network())
    Path(request.network_path).write_bytes(b"not a network")
    with pytest.raises(NetworkRefused) as caught:
        deploy.compile_network(template, request)
    assert caught.value.code in {"not_onnx", "truncated"}


def test_a_build_that_takes_too_long_fails_by_time(template: Template, make_request: MakeRequest) -> None:
    request = make_request(matrix_network())
    hurried = BuildRequest(**{name: getattr(request, name) for name in request.__slots__} | {"timeout_s": 0.05})
    with pytest.raises(ChildFailed) as caught:
        deploy.compile_network(template, hurried)
    assert caught.value.invalidity is Invalidity.TIMEOUT


APPLY = """
import json, sys
from pathlib import Path
import numpy as np
from crosstune.tuner.tvm_adapter.preload import preload
preload()
import tvm
from tvm import relax
folder = Path(sys.argv[1])
target = tvm.target.Target(json.loads(sys.argv[2]))
module = tvm.ir.load_json((folder / "network.json").read_text())
with target:
    module = relax.transform.MetaScheduleApplyDatabase(str(folder))(module)
kernels = [function for function in module.functions.values() if isinstance(function, tvm.tirx.PrimFunc)]
scheduled = [function for function in kernels if function.attrs.get("tirx.is_scheduled")]
machine = relax.VirtualMachine(tvm.compile(module, target), tvm.cpu())
generator = np.random.default_rng(1)
arguments = [
    generator.standard_normal([int(size) for size in parameter.ty.shape]).astype("float32")
    for parameter in module["main"].params
]
np.savez(folder / "found.npz", machine["main"](*map(tvm.runtime.tensor, arguments)).numpy(), *arguments)
print(json.dumps([len(scheduled), len(kernels)]))
"""


def test_the_exported_database_is_found_by_plain_tvm_with_the_same_result(
    template: Template, make_request: MakeRequest, tmp_path: Path
) -> None:
    request = make_request(matrix_network())
    modules = workload_modules(request)
    entries = [(modules[each.workload_sha256], each.trace, 1e-5) for each in sampled_schedules(request)]
    written = deploy.export_tvm_database(template, request.target, entries, tmp_path / "database", network=request)
    assert written == len(entries) == 2
    options = json.dumps({"kind": "llvm", "mcpu": request.target.mcpu, "num-cores": request.target.cores})
    answer = subprocess.run(
        [sys.executable, "-c", APPLY, str(tmp_path / "database"), options], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout.splitlines()[-1]) == [2, 2]
    with np.load(tmp_path / "database" / "found.npz") as stored:
        found, x, first, second = (stored[f"arr_{index}"] for index in range(4))
    np.testing.assert_allclose(found, np.maximum(x @ first, 0) @ second, rtol=1e-4, atol=1e-4)
