"""A schedule that nobody measured: proposed by the trained model, and used only when it is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from crosstune.tuner.builder import Builder
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import ImportedNetwork, RoundRequest
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.untried import NothingUsable, Untried
from tests.tuner.conftest import TARGET


@pytest.fixture
def untried(template: Template) -> Iterator[Untried]:
    searcher = Searcher(template)
    with Runner(template, 10.0) as runner:
        yield Untried(searcher, Builder(template, 1, 60.0), runner)
    searcher.close()


@pytest.fixture
def request_(imported_network: ImportedNetwork) -> RoundRequest:
    """For the convolution with the most work."""
    workload = max((task.workload for task in imported_network.tasks), key=lambda each: each.flops)
    return RoundRequest(TARGET, workload, (), (), 1, 0)


def test_a_workload_that_nobody_knows_gets_the_schedule_that_the_model_holds_for_the_fastest(
    untried: Untried, request_: RoundRequest
) -> None:
    found = untried.proposed(request_)
    assert found.source == "search" and found.predicted_score is not None
    untried.check(request_, found.trace)


def test_a_schedule_that_does_not_fit_the_workload_is_not_used(untried: Untried, request_: RoundRequest) -> None:
    trace: Any = untried.proposed(request_).trace
    tile = next(decision for decision in trace[1] if isinstance(decision[1], list))
    tile[1][-1] += 1
    with pytest.raises(NothingUsable, match="replay"):
        untried.check(request_, trace)


def test_a_schedule_that_takes_too_long_to_compile_is_not_used(
    template: Template, untried: Untried, request_: RoundRequest
) -> None:
    hurried = replace(untried, builder=Builder(template, 1, 0.01))
    with pytest.raises(NothingUsable, match="timeout"):
        hurried.proposed(request_)


def test_a_model_that_learnt_nothing_chooses_nothing(untried: Untried, request_: RoundRequest) -> None:
    with pytest.raises(NothingUsable, match="could rank"):
        untried.proposed(replace(request_, ranker="xgboost"))  # learns from records, of which there are none


def test_the_default_schedule_competes_and_may_be_held_for_the_fastest(
    untried: Untried, imported_network: ImportedNetwork
) -> None:
    held_for_fastest, others = 0, 0
    for task in imported_network.tasks:
        try:
            untried.proposed(RoundRequest(TARGET, task.workload, (), (), 1, 0))
            others += 1
        except NothingUsable as problem:
            assert "holds the default schedule for the fastest" in str(problem)
            held_for_fastest += 1
    assert held_for_fastest and others
