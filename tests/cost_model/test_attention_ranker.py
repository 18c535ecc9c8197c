"""The trained model as the search's ranker: informed from the start, better with evidence and with records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosstune.cost_model.attention.candidates import Candidates
from crosstune.cost_model.attention.ranker import AttentionRanker
from crosstune.cost_model.attention.scoring import load_scorer
from crosstune.cost_model.features import STATEMENT_COLUMNS
from crosstune.cost_model.metrics import pairwise_accuracy_without_ties
from crosstune.cost_model.pretrained import model_folder
from crosstune.cost_model.ranker import Context, Elsewhere, Example

COUNT = 60
NEAR, FAR = {"kind": "llvm", "mcpu": "znver4", "cores": 2}, {"kind": "llvm", "mcpu": "znver3", "cores": 2}


def trace(inner: int, unroll: int) -> list[Any]:
    """A split and an unrolling, as TVM writes them."""
    instructions = [
        ["GetSBlock", [], ["C", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1"]],
        ["SamplePerfectTile", ["l1"], [2, 64], ["v2", "v3"]],
        ["Split", ["l1", "v2", "v3"], [1, 0], ["l4", "l5"]],
        ["Annotate", ["b0", unroll], ["meta_schedule.unroll_explicit"], []],
    ]
    return [instructions, [[2, [64 // inner, inner]]]]


@pytest.fixture(scope="module")
def made() -> tuple[list[Any], list[np.ndarray], np.ndarray]:
    """Traces, features that say nothing, and latencies in seconds."""
    chance = np.random.default_rng(0)
    drawn = [(2 ** int(chance.integers(0, 7)), int(chance.integers(0, 512))) for _ in range(COUNT)]
    features = [np.abs(chance.normal(size=(2, STATEMENT_COLUMNS))).astype(np.float32) for _ in drawn]
    latencies_s = np.array([1e-3 * (1 + abs(np.log2(inner) - 4) + unroll / 1024) for inner, unroll in drawn])
    return [trace(*each) for each in drawn], features, latencies_s


def agreement(scores: np.ndarray, latencies_s: np.ndarray) -> float:
    found = pairwise_accuracy_without_ties(scores, latencies_s.min() / latencies_s)
    assert found is not None
    return found


def test_what_another_target_measured_puts_candidates_in_order(made: Any) -> None:
    traces, features, latencies_s = made
    elsewhere = [Elsewhere(FAR, traces, list(2 * latencies_s))]
    contexts = [Context(None, NEAR, each, elsewhere) for each in traces]
    ranker = AttentionRanker()
    assert ranker.informed
    ranker.fit([])
    told = agreement(ranker.score(features, contexts), latencies_s)
    blind = AttentionRanker().score(features, [Context(None, NEAR, each) for each in traces])
    assert told > 0.7 and told > agreement(blind, latencies_s) + 0.1


def test_own_records_correct_the_model(made: Any) -> None:
    """Their features tell the speed here, in a way that no other workload's do."""
    traces, features, latencies_s = made
    telling = [each.copy() for each in features]
    for each, latency_s in zip(telling, latencies_s, strict=True):
        each[:, 100] = 5e3 * latency_s
    contexts = [Context(None, NEAR, each) for each in traces]
    half = COUNT // 2
    ranker = AttentionRanker()
    ranker.fit([Example("own", telling[at], float(latencies_s[at]), contexts[at]) for at in range(half)])
    assert agreement(ranker.score(telling[half:], contexts[half:]), latencies_s[half:]) > 0.8


def test_examples_of_other_workloads_without_a_trace_are_passed_over(made: Any) -> None:
    traces, features, _ = made
    contexts = [Context(None, NEAR, each) for each in traces]
    ranker, untouched = AttentionRanker(), AttentionRanker()
    ranker.fit([Example("other", each, 1e-3 * (1 + at)) for at, each in enumerate(features)])
    np.testing.assert_array_equal(ranker.score(features, contexts), untouched.score(features, contexts))


def test_a_batch_holds_evidence_of_each_other_target(made: Any) -> None:
    traces, _features, latencies_s = made
    elsewhere = [
        Elsewhere(FAR, traces[:5], list(latencies_s[:5])),
        Elsewhere({**FAR, "cores": 1}, traces[:2], [None, 1.0]),
    ]
    batch = Candidates("", NEAR, elsewhere).batch(traces[:7], [None] * 7)
    assert batch.evidence_mask.sum(axis=1).tolist() == [2] * 7
    assert not batch.statement_mask.any()


def test_the_model_of_the_package_says_what_it_was_trained_on() -> None:
    scorer = load_scorer(model_folder())
    assert scorer.card["parameters"] < 2_000_000
    assert scorer.card["data"]["programs"] > 1000
    assert {"feature_layout", "vocabulary_version"} <= scorer.card["layout"].keys()
    assert sum(path.stat().st_size for path in Path(model_folder()).iterdir()) < 10 * 2**20
    json.dumps(scorer.card)
