"""Whole rounds on real children: what goes wrong with one candidate is its own failed measurement."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from crosstune.tuner.builder import Builder, BuildJob, Built
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import (
    Attempt,
    CandidateResult,
    ImportedNetwork,
    Invalidity,
    KnownSchedule,
    Quality,
    RoundRequest,
    RoundResult,
    ShouldStop,
    TargetSpec,
    median,
)
from crosstune.tuner.rounds import LOOK_RATIO, LOOKS, RoundRunner
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.targets import detect_machine, native

TRIALS = 6


class Saboteur(Builder):
    """Compiles as always, then crashes, swaps or wounds chosen candidates."""

    def __init__(self, template: Template) -> None:
        super().__init__(template, 2, 20.0)
        self.crash: set[int] = set()
        self.wrong: set[int] = set()
        self.wrong_module = ""

    def build_many(
        self, jobs: Sequence[BuildJob], should_stop: ShouldStop, patience: float = math.inf, workload: str = ""
    ) -> list[Built | Attempt | None]:
        changed = [
            replace(job, module=self.wrong_module, trace=None, unscheduled=True) if index in self.wrong else job
            for index, job in enumerate(jobs)
        ]
        outcomes = super().build_many(changed, should_stop, patience, workload)
        for index in self.crash:
            outcome = outcomes[index]
            if isinstance(outcome, Built):
                os.killpg(outcome.child.pid, signal.SIGSEGV)
        return outcomes


@pytest.fixture(scope="module")
def request_(template: Template, imported_network: ImportedNetwork) -> RoundRequest:
    task = max(imported_network.tasks, key=lambda one: one.workload.flops)
    return RoundRequest(native(detect_machine(template)), task.workload, (), (), TRIALS, seed=1)


@pytest.fixture
def saboteur(template: Template) -> Saboteur:
    return Saboteur(template)


@pytest.fixture
def rounds(template: Template, saboteur: Saboteur) -> Iterator[RoundRunner]:
    runner = RoundRunner(Searcher(template), saboteur, Runner(template, 20.0))
    yield runner
    runner.close()


@contextmanager
def free_device() -> Iterator[None]:
    yield


def run(rounds: RoundRunner, request: RoundRequest) -> RoundResult:
    return rounds.run(request, free_device, lambda: False)


def known(result: RoundResult) -> tuple[KnownSchedule, ...]:
    found = []
    for one in result.candidates:
        last = one.attempts[-1]
        latency_s = median(last.latencies_s) if last.latencies_s else None
        quality = last.quality if latency_s else None
        found.append(
            KnownSchedule(
                one.trace, one.schedule_sha256, latency_s, quality, last.invalidity, one.features, one.module_sha256
            )
        )
    return tuple(found)


def full_s(candidate: CandidateResult) -> float:
    return median([median(one.latencies_s) for one in candidate.attempts if one.quality is Quality.FULL])


def test_a_round_measures_the_default_first_and_checks_what_becomes_best(
    rounds: RoundRunner, request_: RoundRequest
) -> None:
    result = run(rounds, request_)
    assert result.candidates[0].source == "default"
    full = [one for one in result.candidates if one.attempts[-1].quality is Quality.FULL]
    assert result.candidates[0] in full
    best = min(full, key=full_s)
    checked, again = best.attempts[-2:]
    assert checked.quality is again.quality is Quality.FULL  # what may become best is measured twice
    assert checked.conditions["checked"] and checked.conditions["cold"]
    assert checked.conditions["threads"] == request_.target.cores
    assert set(result.timings_s) == {"search", "build", "wait_for_device", "run"}


def test_what_is_near_the_best_is_timed_twice_and_what_is_far_from_it_once(
    rounds: RoundRunner, request_: RoundRequest
) -> None:
    first = run(rounds, request_)
    assert_looked_at_as_often_as_it_should(first, float("inf"))
    best_s = min(first_look_s(one) for one in first.candidates if looks(one))
    faster = replace(known(first)[0], quick_s=best_s / (1.3 * LOOK_RATIO))  # what hardly any candidate comes near
    second = run(rounds, replace(request_, known=(faster, *known(first)[1:]), seed=2))
    assert_looked_at_as_often_as_it_should(second, faster.quick_s or 0.0)


def assert_looked_at_as_often_as_it_should(result: RoundResult, known_s: float) -> None:
    timed = [one for one in result.candidates if looks(one)]
    best_s = min(known_s, *map(first_look_s, timed))
    assert timed
    for one in timed:
        assert len(looks(one)) == (LOOKS if first_look_s(one) <= LOOK_RATIO * best_s else 1)


def looks(candidate: CandidateResult) -> list[Attempt]:
    hot = [one for one in candidate.attempts if one.quality in (Quality.QUICK, Quality.CENSORED)]
    return [one for one in hot if not one.disturbed]


def first_look_s(candidate: CandidateResult) -> float:
    return median(looks(candidate)[0].latencies_s)


def test_a_second_round_proposes_nothing_that_is_known(rounds: RoundRunner, request_: RoundRequest) -> None:
    first = run(rounds, request_)
    second = run(rounds, replace(request_, known=known(first), seed=2))
    names = {one.schedule_sha256 for one in first.candidates}
    programs = {one.module_sha256 for one in first.candidates}
    assert not names & {one.schedule_sha256 for one in second.candidates}
    assert not programs & {one.module_sha256 for one in second.candidates}


def test_a_candidate_that_crashes_is_a_failed_measurement_and_the_round_goes_on(
    rounds: RoundRunner, request_: RoundRequest, saboteur: Saboteur
) -> None:
    saboteur.crash = {1}
    result = run(rounds, request_)
    assert result.candidates[1].attempts[-1].invalidity is Invalidity.RUNTIME
    assert sum(one.attempts[-1].invalidity is None for one in result.candidates) == len(result.candidates) - 1


def test_a_candidate_that_computes_something_else_never_becomes_best(
    rounds: RoundRunner, request_: RoundRequest, saboteur: Saboteur
) -> None:
    saboteur.wrong = set(range(TRIALS))
    saboteur.wrong_module = wrong_twin(request_.workload.module)
    result = run(rounds, request_)
    full = [attempt for one in result.candidates for attempt in one.attempts if attempt.quality is Quality.FULL]
    assert not full
    assert any(one.attempts[-1].invalidity is Invalidity.CORRECTNESS for one in result.candidates)


def wrong_twin(module: str) -> str:
    """The same program, but for one operator: each product is a difference."""
    assert '"prim.Mul"' in module
    return module.replace('"prim.Mul"', '"prim.Sub"')


def test_a_round_that_is_told_to_stop_hands_back_what_is_complete(rounds: RoundRunner, request_: RoundRequest) -> None:
    calls = 0

    def stop_soon() -> bool:
        nonlocal calls
        calls += 1
        return calls > 6

    result = rounds.run(request_, free_device, stop_soon)
    assert result.stopped
    assert len(result.candidates) < TRIALS
    assert all(one.attempts for one in result.candidates)


class Drifting(Runner):
    """Its reference kernel takes 1 ms first, then what it is told, and 1 ms again."""

    def __init__(self, template: Template, drift: float) -> None:
        super().__init__(template, 20.0)
        self._left_s = [1e-3, drift * 1e-3]

    def _run_reference(self, target: TargetSpec, *, again: bool = True) -> float:
        return self._left_s.pop(0) if self._left_s else 1e-3


@pytest.mark.parametrize(("drift", "marked"), [(1.2, False), (1.4, True)])
def test_a_batch_is_marked_and_repeated_when_the_machine_became_clearly_slower_beside_it(
    template: Template, saboteur: Saboteur, request_: RoundRequest, drift: float, marked: bool
) -> None:
    rounds = RoundRunner(Searcher(template), saboteur, Drifting(template, drift))
    result = run(rounds, request_)
    rounds.close()
    timed = [one for one in result.candidates if one.attempts[-1].latencies_s]
    assert timed
    for one in timed:
        assert any(attempt.disturbed for attempt in one.attempts) == marked
        assert not one.attempts[-1].disturbed
    assert result.reference_s == pytest.approx(1e-3 if marked else drift * 1e-3)
