"""Rounds of search on tiny workloads: new every time, replayable, and at an end when the space is."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crosstune.cost_model.attention import ranker
from crosstune.cost_model.features import unpack
from crosstune.cost_model.pretrained import model_folder
from crosstune.tuner import search as search_module
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import (
    Invalidity,
    KnownSchedule,
    MeasuredElsewhere,
    Offered,
    Quality,
    RoundRequest,
    TargetSpec,
    TrainingExample,
    Workload,
)
from crosstune.tuner.operations import propose as operation
from crosstune.tuner.search import Proposal, Proposals, Searcher, request_from_json, request_to_json
from crosstune.tuner.tvm_adapter import search
from crosstune.tuner.tvm_adapter.schedule import module_sha256, schedule_sha256, scheduled_module

Kernels = dict[str, Callable[..., str]]

REPLAY = """
import json, sys
from crosstune.tuner.tvm_adapter.preload import preload
preload()
from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.tvm_adapter.schedule import module_sha256, scheduled_module
from crosstune.tuner.tvm_adapter.target import tvm_target
request = json.load(sys.stdin)
target = tvm_target(TargetSpec.from_json(request["target"]))
print(json.dumps([module_sha256(scheduled_module(request["module"], trace, target)) for trace in request["traces"]]))
"""


def a_request(module: str, target: TargetSpec, trials: int = 8, seed: int = 1) -> RoundRequest:
    workload = Workload("0" * 64, "1" * 64, "tiny", module, 1.0, (), 1, "0.27", 1)
    return RoundRequest(target, workload, (), (), trials, seed)


def propose(request: RoundRequest, default_only: str = "") -> Proposals:
    search._sessions.clear()  # what a child remembers may not matter
    payload = json.loads(json.dumps({**request_to_json(request), "default_only": default_only}))
    return search.propose(request_from_json(payload))


def measured(proposal: Proposal, latency_s: float | None, invalidity: Invalidity | None = None) -> KnownSchedule:
    return KnownSchedule(
        trace=proposal.trace,
        schedule_sha256=proposal.schedule_sha256,
        latency_s=latency_s,
        quality=Quality.QUICK,
        invalidity=invalidity,
        features=proposal.features,
        module_sha256=proposal.module_sha256,
    )


def innermost(proposal: Proposal) -> float:
    """A make-believe latency: schedules with large innermost tiles are fast."""
    tiles = [decision for _, decision in proposal.trace[1] if isinstance(decision, list)]
    return 1e-3 / (1 + sum(tile[-1] for tile in tiles))


def test_the_first_proposal_is_the_default_schedule(kernels: Kernels, target_spec: TargetSpec) -> None:
    found = propose(a_request(kernels["matmul"](16, 16, 16), target_spec))
    assert [candidate.source for candidate in found.candidates] == ["default"] + 7 * ["search"]
    assert not found.exhausted
    assert found.note == ""
    assert {"context", "fit", "draft", "replay", "features", "rank", "search"} <= set(found.timings_s)


@pytest.mark.parametrize(("name", "shape"), [("matmul", (16, 16, 16)), ("conv2d", (8, 8, 16)), ("softmax", (8, 64)),
                                             ("layer_norm", (8, 64))])  # fmt: skip
def test_every_proposal_replays_to_its_program_in_another_process(
    kernels: Kernels, target_spec: TargetSpec, target: Any, name: str, shape: tuple[int, ...]
) -> None:
    module = kernels[name](*shape)
    found = propose(a_request(module, target_spec))
    assert len(found.candidates) == 8
    done = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=json.dumps(
            {
                "target": target_spec.to_json(),
                "module": module,
                "traces": [candidate.trace for candidate in found.candidates],
            }
        ),
        env={**os.environ, "PYTHONHASHSEED": "99"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [candidate.module_sha256 for candidate in found.candidates]
    for candidate in found.candidates:
        assert schedule_sha256(candidate.trace) == candidate.schedule_sha256
        assert module_sha256(scheduled_module(module, candidate.trace, target)) == candidate.module_sha256
        assert candidate.features is not None
        assert unpack(candidate.features).shape[1] == 164


def test_what_is_known_is_never_proposed_again(kernels: Kernels, target_spec: TargetSpec) -> None:
    request = a_request(kernels["conv2d"](8, 8, 16), target_spec, trials=12)
    known: list[KnownSchedule] = []
    verdicts = itertools.cycle([None, None, Invalidity.COMPILE, None, Invalidity.CORRECTNESS, Invalidity.TIMEOUT])
    for seed in range(4):
        found = propose(replace(request, known=tuple(known), seed=seed))
        schedules, programs = {each.schedule_sha256 for each in known}, {each.module_sha256 for each in known}
        assert len(found.candidates) == 12
        assert len({candidate.module_sha256 for candidate in found.candidates}) == 12
        assert not schedules & {candidate.schedule_sha256 for candidate in found.candidates}
        assert not programs & {candidate.module_sha256 for candidate in found.candidates}
        for candidate in found.candidates:
            verdict = next(verdicts)
            known.append(measured(candidate, None if verdict else innermost(candidate), verdict))


def test_a_tiny_space_is_gone_through_and_then_at_an_end(kernels: Kernels, target_spec: TargetSpec) -> None:
    request = a_request(kernels["add_broadcast"](4, 8), target_spec, trials=4)
    known: list[KnownSchedule] = []
    for seed in range(30):
        found = propose(replace(request, known=tuple(known), seed=seed))
        known += [measured(candidate, 1e-6) for candidate in found.candidates]
        if found.exhausted:
            break
    assert found.exhausted
    after = propose(replace(request, known=tuple(known), seed=77))
    assert after.candidates == ()
    assert after.exhausted


def test_search_learns_from_what_was_measured(kernels: Kernels, target_spec: TargetSpec) -> None:
    request = a_request(kernels["conv2d"](14, 32, 32), target_spec, trials=16)
    known: list[KnownSchedule] = []
    medians = []
    for seed in range(4):
        found = propose(replace(request, known=tuple(known), seed=seed))
        latencies = sorted(innermost(candidate) for candidate in found.candidates)
        medians.append(latencies[len(latencies) // 2])
        known += [measured(candidate, innermost(candidate)) for candidate in found.candidates]
    assert medians[-1] < 0.7 * medians[0]
    assert any(candidate.predicted_score is not None for candidate in found.candidates)


def test_schedules_are_told_apart_by_their_decisions(kernels: Kernels, target_spec: TargetSpec) -> None:
    instructions, decisions = propose(a_request(kernels["matmul"](16, 16, 16), target_spec)).candidates[-1].trace
    index, decision = next(one for one in decisions if isinstance(one[1], list))
    changed = [[at, decision[::-1] if at == index else made] for at, made in decisions]
    assert search.differing_decisions([instructions, decisions], [instructions, decisions]) == 0
    assert search.differing_decisions([instructions, decisions], [instructions, changed]) == (
        decision != decision[::-1]
    )
    assert search.differing_decisions([instructions, decisions], [instructions, decisions[1:]]) == 1
    assert search.differing_decisions([instructions, decisions], [instructions[1:], decisions]) == math.inf


def test_a_batch_is_spread_over_different_schedules(kernels: Kernels, target_spec: TargetSpec) -> None:
    """With an opinion from the first round on, all proposals would else be the best one's neighbours."""
    found = propose(a_request(kernels["matmul"](64, 64, 64), target_spec, trials=17)).candidates[1:]
    assert all(one.predicted_score is not None for one in found)
    near = [
        search.differing_decisions(one.trace, other.trace) <= search.ALIKE
        for one, other in itertools.combinations(found[:8], 2)
    ]
    assert not any(near)


def test_examples_of_other_workloads_give_the_first_round_an_opinion(kernels: Kernels, target_spec: TargetSpec) -> None:
    other = propose(a_request(kernels["matmul"](32, 32, 32), target_spec, trials=20))
    examples = tuple(
        TrainingExample("other", candidate.features, innermost(candidate))
        for candidate in other.candidates
        if candidate.features is not None
    )
    request = replace(a_request(kernels["matmul"](16, 64, 16), target_spec), ranker="xgboost")
    found = propose(replace(request, examples=examples))
    assert [candidate.predicted_score is None for candidate in found.candidates] == [True] + 7 * [False]


def test_what_other_targets_measured_leads_the_first_round(kernels: Kernels, target_spec: TargetSpec) -> None:
    """Nothing is known here; on another target schedules with large innermost tiles were fast."""
    request = replace(a_request(kernels["matmul"](64, 64, 64), target_spec, trials=64), ranker="random")
    there = propose(request).candidates
    traces, latencies_s = tuple(one.trace for one in there), tuple(map(innermost, there))
    elsewhere = (MeasuredElsewhere(replace(target_spec, mcpu="znver3"), {}, traces, latencies_s),)
    first = replace(request, trials=17, seed=2)
    means_s = {
        told: sum(innermost(one) for one in propose(given).candidates[1:]) / 16
        for told, given in {
            "something": replace(first, ranker="attention", elsewhere=elsewhere),
            "nothing": replace(first, ranker="random"),
        }.items()
    }
    assert means_s["something"] < 0.8 * means_s["nothing"]


def test_a_seed_from_elsewhere_is_tried_first_and_repaired_if_it_must(
    kernels: Kernels, target_spec: TargetSpec
) -> None:
    larger = propose(a_request(kernels["matmul"](64, 64, 64), target_spec, trials=4)).candidates[-1]
    seed = KnownSchedule(larger.trace, larger.schedule_sha256, None, None, None)
    found = propose(replace(a_request(kernels["matmul"](48, 48, 48), target_spec), known=(seed,)))
    assert [candidate.source for candidate in found.candidates] == ["default", "transfer"]
    assert not found.exhausted


def test_a_first_round_tries_the_foremost_schedules_of_other_targets_and_nothing_else(
    kernels: Kernels, target_spec: TargetSpec
) -> None:
    request = a_request(kernels["matmul"](64, 64, 64), target_spec, trials=17)
    seeds = tuple(
        KnownSchedule(one.trace, one.schedule_sha256, None, None, None) for one in propose(request).candidates[1:]
    )
    sources = [one.source for one in propose(replace(request, known=seeds, seed=3)).candidates]
    assert sources == ["default"] + ["transfer"] * search.TRANSFERS
    blind = [one.source for one in propose(replace(request, known=seeds[:9], seed=3, ranker="random")).candidates]
    assert blind == ["default"] + ["transfer"] * 9


def test_a_first_round_starts_from_schedules_of_like_workloads(kernels: Kernels, target_spec: TargetSpec) -> None:
    like = propose(a_request(kernels["matmul"](64, 64, 64), target_spec, trials=8)).candidates[1:]
    other = propose(a_request(kernels["conv2d"](8, 4, 4), target_spec, trials=3)).candidates[-1]
    near = (*(one.trace for one in like), other.trace)
    found = propose(replace(a_request(kernels["matmul"](96, 64, 32), target_spec, trials=12), near=near))
    sources = [candidate.source for candidate in found.candidates]
    assert sources == ["default"] + ["neighbour"] * search.NEIGHBOURS
    assert found.offered["neighbour"].schedules == len(near)
    assert found.offered["neighbour"].fit >= search.NEIGHBOURS


def test_a_damaged_seed_is_passed_over(kernels: Kernels, target_spec: TargetSpec) -> None:
    seed = KnownSchedule([[["Frobnicate", [], [], []]], []], "2" * 64, None, None, None)
    found = propose(replace(a_request(kernels["matmul"](16, 16, 16), target_spec), known=(seed,)))
    assert "transfer" not in {candidate.source for candidate in found.candidates}
    assert found.offered == {"transfer": Offered(schedules=1, fit=0)}
    assert len(found.candidates) == 8


def test_a_workload_without_a_space_gets_its_default_only(kernels: Kernels, target_spec: TargetSpec) -> None:
    found = propose(a_request(kernels["scan"](8, 16), target_spec))
    assert [candidate.source for candidate in found.candidates] == ["default"]
    assert found.exhausted


def test_a_round_told_not_to_search_says_why(kernels: Kernels, target_spec: TargetSpec) -> None:
    found = propose(a_request(kernels["matmul"](16, 16, 16), target_spec), default_only="the generator crashed")
    assert [candidate.source for candidate in found.candidates] == ["default"]
    assert found.exhausted
    assert found.note == "the generator crashed"


@pytest.mark.parametrize("missing", ["card.json", "model.onnx", "trees-0.ubj"])
def test_without_a_usable_model_trees_rank_and_the_round_says_so(
    kernels: Kernels, target_spec: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    shutil.copytree(model_folder(), tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    monkeypatch.setattr(ranker, "model_folder", lambda: tmp_path / "model")
    found = propose(a_request(kernels["matmul"](16, 16, 16), target_spec))
    assert len(found.candidates) == 8
    assert "cannot be used" in found.note and "xgboost" in found.note


def test_a_model_of_an_older_layout_is_not_used(
    kernels: Kernels, target_spec: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_folder(), tmp_path / "model")
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    card["layout"]["batch_layout"] -= 1
    (tmp_path / "model" / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(ranker, "model_folder", lambda: tmp_path / "model")
    found = propose(a_request(kernels["matmul"](16, 16, 16), target_spec))
    assert len(found.candidates) == 8 and "train it again" in found.note


def test_the_same_request_gives_the_same_proposals(kernels: Kernels, target_spec: TargetSpec) -> None:
    request = a_request(kernels["softmax"](8, 32), target_spec)
    one, other = propose(request), propose(request)
    assert [each.schedule_sha256 for each in one.candidates] == [each.schedule_sha256 for each in other.candidates]


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    folder: Path = tmp_path_factory.mktemp("children")
    with Template.start(folder=folder) as template:
        found = Searcher(template)
        yield found
        found.close()


def test_a_child_serves_several_rounds_and_several_workloads(
    searcher: Searcher, kernels: Kernels, target_spec: TargetSpec
) -> None:
    request = a_request(kernels["matmul"](16, 16, 16), target_spec)
    first = searcher.propose(request)
    known = tuple(measured(candidate, innermost(candidate)) for candidate in first.candidates)
    second = searcher.propose(replace(request, known=known, seed=2))
    assert not {each.schedule_sha256 for each in known} & {each.schedule_sha256 for each in second.candidates}
    other = a_request(kernels["softmax"](8, 16), target_spec)
    other = replace(other, workload=replace(other.workload, sha256="3" * 64))
    assert searcher.propose(other).candidates[0].source == "default"


def test_the_children_of_the_last_workloads_are_kept(
    searcher: Searcher, kernels: Kernels, target_spec: TargetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "MOST_CHILDREN", 2)
    searcher.close()
    plain = a_request(kernels["matmul"](16, 16, 16), target_spec)
    one, two, three = (replace(plain, workload=replace(plain.workload, sha256=digit * 64)) for digit in "456")

    def began_anew(request: RoundRequest) -> bool:
        return searcher.propose(request).timings_s["context"] > 0.005

    assert [began_anew(request) for request in (one, two, one)] == [True, True, False]
    assert began_anew(three), "and the child of the second, which was used longest ago, makes room"
    assert [began_anew(request) for request in (one, two)] == [False, True]


def test_the_operation_answers_in_json(kernels: Kernels, target_spec: TargetSpec) -> None:
    request = a_request(kernels["matmul"](8, 8, 8), target_spec, trials=2)
    answer = operation.propose({**request_to_json(request), "default_only": ""})
    assert json.loads(json.dumps(answer)) == answer
