"""Building and measuring real, tiny kernels in children."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crosstune.tuner import builder as builder_module
from crosstune.tuner import runner as runner_module
from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.child import OPERATIONS, Template
from crosstune.tuner.contracts import (
    Attempt,
    CrosstuneError,
    Invalidity,
    Quality,
    RoundRequest,
    TargetSpec,
    Workload,
    median,
    sha256_json,
)
from crosstune.tuner.hardware import usable_cores
from crosstune.tuner.runner import Runner
from crosstune.tuner.targets import detect_machine, native

PACKAGES = (*OPERATIONS, "crosstune_test_operations", "crosstune_test_workloads")
IMPORT_PATH = (str(Path(__file__).parent / "child_operations"),)
WAIT_S = 60.0
TINY = (64, 96, 128)


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with Template.start(packages=PACKAGES, import_path=IMPORT_PATH) as started:
        yield started


@pytest.fixture(scope="module")
def target(template: Template) -> TargetSpec:
    return native(detect_machine(template))


@pytest.fixture
def builder(template: Template) -> Builder:
    return Builder(template, workers=2, timeout_s=WAIT_S)


@pytest.fixture
def runner(template: Template) -> Iterator[Runner]:
    with Runner(template) as made:
        yield made


Made = tuple[RoundRequest, list[Any]]


def made(
    template: Template,
    target: TargetSpec,
    offset: float = 1.0,
    shape: tuple[int, int, int] = TINY,
    seeds: tuple[int, ...] = (),
) -> Made:
    """A round's request for the tiny matrix product, and sampled traces."""
    payload = {"offset": offset, "shape": shape, "target": target.to_json(), "seeds": list(seeds)}
    with template.spawn("make") as child:
        found = child.call("crosstune_test_workloads:matmul", payload, WAIT_S)
    workload = Workload(
        sha256=sha256_json(payload),
        version_free_key="matmul",
        name="matmul",
        module=found["module"],
        flops=found["flops"],
        args=tuple((dtype, tuple(shape)) for dtype, shape in found["args"]),
        output_count=1,
        tvm_version="",
        pipeline_version=1,
    )
    return RoundRequest(target, workload, (), (), trials=4, seed=7), found["traces"]


@pytest.fixture(scope="module")
def tiny(template: Template, target: TargetSpec) -> Made:
    return made(template, target, seeds=(1, 2, 3, 4))


def built(outcome: Built | Attempt | None) -> Built:
    assert isinstance(outcome, Built), outcome
    return outcome


def test_candidates_are_built_beside_each_other_and_answered_in_order(builder: Builder, tiny: Made) -> None:
    request, traces = tiny
    bad = [[["NoSuchInstruction", [], [], []]], []]
    jobs = [BuildJob(request.workload.module, trace, request.target) for trace in (traces[0], bad, traces[1], None)]
    outcomes = builder.build_many(jobs, never)
    good = [built(outcomes[index]) for index in (0, 2, 3)]
    assert len({each.module_sha256 for each in good}) == 3
    assert all(each.child.alive for each in good)
    assert isinstance(outcomes[1], Attempt) and outcomes[1].invalidity is Invalidity.REPLAY
    for each in good:
        each.close()
        assert not each.child.alive


def test_equal_programs_have_equal_module_identities(builder: Builder, tiny: Made) -> None:
    request, traces = tiny
    job = BuildJob(request.workload.module, traces[0], request.target)
    with built(builder.build(job)) as first, built(builder.build(job)) as second:
        assert first.module_sha256 == second.module_sha256


@pytest.mark.parametrize(
    ("function", "invalidity"),
    [("hang", Invalidity.TIMEOUT), ("crash", Invalidity.COMPILE), ("kill_itself", Invalidity.OUT_OF_MEMORY)],
)
def test_a_compiler_that_hangs_or_dies_fails_its_candidate_only(
    template: Template, tiny: Made, monkeypatch: pytest.MonkeyPatch, function: str, invalidity: Invalidity
) -> None:
    request, _ = tiny
    job = BuildJob(request.workload.module, None, request.target)
    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "BUILD", f"crosstune_test_operations:{function}")
        started = time.monotonic()
        outcome = Builder(template, 1, timeout_s=0.5).build(job)
        assert time.monotonic() - started < 5
    assert isinstance(outcome, Attempt) and outcome.invalidity is invalidity and not outcome.latencies_s
    with built(Builder(template, 1, WAIT_S).build(job)) as fine:
        assert fine.child.alive


def test_what_takes_much_longer_than_the_rest_of_its_batch_is_given_up(
    template: Template, tiny: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, _ = tiny
    monkeypatch.setattr(builder_module, "BUILD", "crosstune_test_operations:build_or_hang")
    usual = BuildJob(request.workload.module, None, request.target)
    jobs = [*[usual] * 5, replace(usual, unscheduled=True)]
    started = time.monotonic()
    outcomes = Builder(template, 2, WAIT_S).build_many(jobs, never, patience=3.0)
    assert time.monotonic() - started < 10
    for each in outcomes[:5]:
        built(each).close()
    assert isinstance(outcomes[5], Attempt) and outcomes[5].invalidity is Invalidity.TIMEOUT
    assert "1.5 s" in outcomes[5].detail


def test_how_long_a_workload_takes_is_known_to_its_next_batch(
    template: Template, tiny: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, _ = tiny
    monkeypatch.setattr(builder_module, "BUILD", "crosstune_test_operations:build_or_hang")
    usual = BuildJob(request.workload.module, None, request.target)
    builder = Builder(template, 2, 5.0)
    for outcome in builder.build_many([usual] * 4, never, 3.0, "this one"):
        built(outcome).close()
    for workload, limit_s in (("this one", "1.5"), ("another", "5")):
        (outcome,) = builder.build_many([replace(usual, unscheduled=True)], never, 3.0, workload)
        assert isinstance(outcome, Attempt) and f"longer than {limit_s} s" in outcome.detail


def test_a_stop_ends_the_builds_at_once(template: Template, tiny: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    request, _ = tiny
    monkeypatch.setattr(builder_module, "BUILD", "crosstune_test_operations:hang")
    jobs = [BuildJob(request.workload.module, None, request.target)] * 5
    started = time.monotonic()
    assert Builder(template, 2, WAIT_S).build_many(jobs, lambda: True) == [None] * 5
    assert time.monotonic() - started < 5


def test_more_candidates_than_fit_into_memory_are_refused(builder: Builder, tiny: Made) -> None:
    request, _ = tiny
    with pytest.raises(CrosstuneError, match="at most"):
        builder.build_many([BuildJob(request.workload.module, None, request.target)] * 1000, never)


def test_a_quick_and_a_full_measurement_say_how_they_were_made(builder: Builder, runner: Runner, tiny: Made) -> None:
    request, _ = tiny
    reference_s = runner.reference(request.target)
    assert 0 < reference_s < 1 and runner.best_reference_s == reference_s
    with built(builder.build(BuildJob(request.workload.module, None, request.target))) as candidate:
        quick = runner.measure(candidate, request, Quality.QUICK, None)
        full = runner.measure(candidate, request, Quality.FULL, median(quick.latencies_s))
    assert quick.quality is Quality.QUICK and full.quality is Quality.FULL
    assert quick.conditions["threads"] == request.target.cores == usable_cores()
    assert not quick.conditions["cold"] and full.conditions["cold"]
    assert sum(quick.latencies_s) * quick.conditions["number"] > 0.003
    assert full.conditions["number"] == 1 and len(full.latencies_s) >= 10
    assert full.conditions["sandbox"] == "process" and full.conditions["reference_ratio"] >= 1.0
    assert full.conditions["build_s"] == candidate.build_s


def test_weights_are_out_of_the_caches_in_a_full_measurement(
    template: Template, target: TargetSpec, builder: Builder, runner: Runner
) -> None:
    one_core = replace(target, cores=1)  # fewer cores, fewer disturbances by other programs
    request, _ = made(template, one_core, shape=(1, 1024, 2048))  # 8 MB of weights, each used once
    hot_s, cold_s = [], []
    with built(builder.build(BuildJob(request.workload.module, None, one_core))) as candidate:
        for _ in range(10):
            hot_s += runner.measure(candidate, request, Quality.QUICK, None).latencies_s
            cold_s += runner.measure(candidate, request, Quality.FULL, None).latencies_s
            if min(cold_s) > 1.2 * min(hot_s):
                return
    pytest.fail(f"cold {min(cold_s)} s, hot {min(hot_s)} s")


def test_a_candidate_far_slower_than_the_best_is_censored(builder: Builder, runner: Runner, tiny: Made) -> None:
    request, _ = tiny
    with built(builder.build(BuildJob(request.workload.module, None, request.target, unscheduled=True))) as candidate:
        attempt = runner.measure(candidate, request, Quality.QUICK, 1e-6)
    assert attempt.quality is Quality.CENSORED and len(attempt.latencies_s) == 1
    assert attempt.invalidity is None


def test_right_schedules_pass_the_check_and_a_wrong_program_is_found(
    template: Template, target: TargetSpec, builder: Builder, runner: Runner, tiny: Made
) -> None:
    request, traces = tiny
    for trace in (*traces[:2], None):
        with built(builder.build(BuildJob(request.workload.module, trace, target))) as candidate:
            assert runner.check(candidate, request) is None
    wrong, _ = made(template, target, offset=1.01)
    with built(builder.build(BuildJob(wrong.workload.module, None, target))) as candidate:
        attempt = runner.check(candidate, request)
    assert attempt is not None and attempt.invalidity is Invalidity.CORRECTNESS


def test_a_kernel_that_crashes_or_hangs_is_a_failed_measurement(
    builder: Builder, runner: Runner, tiny: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, _ = tiny
    for function, invalidity in (("crash", Invalidity.RUNTIME), ("kill_itself", Invalidity.OUT_OF_MEMORY)):
        with monkeypatch.context() as patch:
            patch.setattr(runner_module, "MEASURE", f"crosstune_test_operations:{function}")
            candidate = built(builder.build(BuildJob(request.workload.module, None, request.target)))
            attempt = runner.measure(candidate, request, Quality.QUICK, None)
            assert attempt.invalidity is invalidity
            candidate.close()


def test_a_dead_reference_child_is_replaced(runner: Runner, target: TargetSpec) -> None:
    runner.reference(target)
    (child,) = runner._references.values()
    os.killpg(child.pid, 9)
    assert runner.reference(target) > 0


def test_waiting_children_use_no_processor(template: Template, builder: Builder, runner: Runner, tiny: Made) -> None:
    request, _ = tiny
    with built(builder.build(BuildJob(request.workload.module, None, request.target))) as candidate:
        runner.measure(candidate, request, Quality.QUICK, None)
        runner.reference(request.target)
        pids = [candidate.child.pid, *(child.pid for child in runner._references.values())]
        before = [processor_ticks(pid) for pid in pids]
        time.sleep(0.3)
        assert [processor_ticks(pid) for pid in pids] == before


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("count", [1, 2])
def test_the_threads_that_a_target_asks_for_are_really_in_effect(template: Template, count: int) -> None:
    with template.spawn("threads") as child:
        found = child.call("crosstune_test_workloads:threads_in_effect", count, WAIT_S)
    assert found["threads"] == count and found["tasks"] == count
    assert set(found["affinity"]) <= os.sched_getaffinity(0)
