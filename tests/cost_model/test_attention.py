"""The attention model: what it can express, what it learns, and that its files are checked before they are used."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

if not os.environ.get("CI"):
    pytest.importorskip("torch", reason="training needs torch: make training")
import torch

from crosstune.cost_model.attention.batches import Batch, group_batch
from crosstune.cost_model.attention.card import CARD, GRAPH, TREES, WEIGHTS, UnusableModel
from crosstune.cost_model.attention.losses import LOSSES
from crosstune.cost_model.attention.model import GROUPS, AttentionModel, tensors_of
from crosstune.cost_model.attention.prepared import prepare
from crosstune.cost_model.attention.scoring import Scorer
from crosstune.cost_model.attention.training import NothingToLearn, Settings, score, train
from crosstune.cost_model.attention.trees import Trees, out_of_fold, standardised
from crosstune.cost_model.attention.weights import load, save
from crosstune.cost_model.baselines.copying import copied_scores
from crosstune.cost_model.evaluation import (
    ceiling_score,
    difference,
    group_score,
    interval,
    random_score,
    summarise,
)
from crosstune.cost_model.experiments import METHODS, run, unseen_target, unseen_workloads
from crosstune.cost_model.groups import Group
from crosstune.cost_model.metrics import pairwise_accuracy_without_ties, top_k

NO_TREES = Trees(())

QUICKLY = 1e-3
"""A learning rate for few steps on few programs."""


def others(groups: list[Group], group: Group) -> list[Group]:
    return [one for one in groups if one.workload == group.workload and one.target != group.target]


def stirred() -> AttentionModel:
    """A model whose heads have an opinion, unlike those of an untrained one."""
    model = AttentionModel()
    for weight in (model.head[-1].weight, model.trust.weight, model.belief.weight):
        torch.nn.init.normal_(weight, std=0.3)
    return model


def test_an_untrained_model_copies_the_order_of_the_nearest_target(groups: list[Group]) -> None:
    model = AttentionModel()
    for group in groups[:3]:
        batch = group_batch(group, others(groups, group))
        agreement = pairwise_accuracy_without_ties(score(model, batch), copied_scores(batch))
        assert agreement is not None and agreement > 0.85  # the evidence of farther targets counts a little too


def test_a_trained_model_ranks_programs_of_workloads_that_it_has_never_seen(groups: list[Group]) -> None:
    fitted = [one for one in groups if one.workload not in ("w6", "w7")]
    unseen = [one for one in groups if one.workload in ("w6", "w7")]
    trained = train(prepare(fitted, ()), (), Settings(epochs=12, loss="pairwise", learning_rate=QUICKLY))
    for one in prepare(unseen, ()):
        agreement = pairwise_accuracy_without_ties(score(trained.model, one.batch), one.labels)
        assert agreement is not None and agreement > 0.75
        assert top_k(score(trained.model, one.batch), one.labels, 5) > 0.9


def test_shuffling_the_decisions_of_schedules_lowers_accuracy(groups: list[Group]) -> None:
    """With the schedule tokens alone: the model reads decisions, not only which primitives there are."""
    without = ("statements", "evidence")
    trained = train(prepare(groups, ()), (), Settings(epochs=15, always_masked=without, learning_rate=QUICKLY))
    chance = np.random.default_rng(1)
    right, shuffled = [], []
    for one in prepare(groups, ()):
        order = chance.permutation(len(one.labels))
        broken = replace(one.batch, values=one.batch.values[order])
        masked = frozenset(without)
        right.append(pairwise_accuracy_without_ties(score(trained.model, one.batch, masked), one.labels))
        shuffled.append(pairwise_accuracy_without_ties(score(trained.model, broken, masked), one.labels))
    assert np.mean(right) > 0.75  # type: ignore[arg-type]
    assert np.mean(shuffled) < np.mean(right) - 0.15  # type: ignore[arg-type]


def test_training_twice_with_one_seed_gives_the_same_model(groups: list[Group]) -> None:
    made = [train(prepare(groups[:6], groups[:6]), (), Settings(epochs=2, seed=3)).model for _ in range(2)]
    first, second = (model.state_dict() for model in made)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("group", GROUPS)
def test_any_group_of_tokens_may_be_left_out(groups: list[Group], group: str) -> None:
    batch = group_batch(groups[0], others(groups, groups[0]))
    model = stirred()
    whole, without = score(model, batch), score(model, batch, frozenset({group}))
    assert np.isfinite(without).all() and not np.allclose(whole, without)


def test_padding_changes_nothing(groups: list[Group]) -> None:
    batch = group_batch(groups[0], others(groups, groups[0]))
    padded = replace(
        batch,
        kinds=np.pad(batch.kinds, ((0, 0), (0, 5))),
        blocks=np.pad(batch.blocks, ((0, 0), (0, 5))),
        values=np.pad(batch.values, ((0, 0), (0, 5), (0, 0))),
        step_mask=np.pad(batch.step_mask, ((0, 0), (0, 5))),
        statements=np.pad(batch.statements, ((0, 0), (0, 3), (0, 0))),
        statement_mask=np.pad(batch.statement_mask, ((0, 0), (0, 3))),
    )
    model = stirred()
    np.testing.assert_allclose(score(model, batch), score(model, padded), atol=1e-5)


def test_a_model_has_fewer_than_two_million_parameters() -> None:
    assert AttentionModel().parameter_count < 2_000_000


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_lower_for_the_right_order(name: str) -> None:
    labels = torch.tensor([1.0, 0.7, 0.4, 0.0])
    right, wrong = LOSSES[name](3 * labels, labels), LOSSES[name](-3 * labels, labels)
    assert float(right) < float(wrong)
    assert float(LOSSES[name](labels, torch.zeros(4))) == 0.0  # nothing to be learnt from equal programs


def test_groups_without_differences_are_refused(groups: list[Group]) -> None:
    same = replace(groups[0], programs=[replace(one, latency_s=1.0) for one in groups[0].programs])
    with pytest.raises(NothingToLearn, match="none of 1 groups"):
        train(prepare([same], ()), (), Settings(epochs=1))


def test_a_saved_model_scores_as_before(groups: list[Group], tmp_path: Path) -> None:
    batch = group_batch(groups[0], others(groups, groups[0]))
    model = train(prepare(groups[:3], ()), (), Settings(epochs=1)).model
    save(tmp_path, model, NO_TREES, {"note": "a test"})
    again, card = load(tmp_path)
    np.testing.assert_array_equal(score(model, batch), score(again, batch))
    assert card["note"] == "a test"


def test_a_worker_scores_as_training_did_whatever_is_known_of_a_program(groups: list[Group], tmp_path: Path) -> None:
    """Through onnxruntime, without torch: lowered programs, drafts, programs without evidence, and one at a time."""
    prepared = prepare(groups[:6], groups[:6])
    trees = Trees.trained(prepared, 0)
    model = train(prepared, (), Settings(epochs=1)).model
    save(tmp_path, model, trees, {})
    scorer = Scorer(tmp_path)
    whole = trees.expect(prepared[0].batch)
    assert whole.trees.std() > 0.05
    drafts = replace(whole, statement_mask=np.zeros_like(whole.statement_mask))
    for given in (whole, drafts, whole.without_evidence(), whole.chosen(np.array([5]))):
        batch = trees.expect(given)
        np.testing.assert_allclose(scorer.score(batch), score(model, batch), rtol=1e-4, atol=1e-4)
    assert scorer.score(whole.chosen(np.zeros(0, dtype=np.int64))).shape == (0,)


def test_trees_expect_nothing_of_a_workload_that_they_have_seen(groups: list[Group]) -> None:
    """What the network is trained with must be as wrong as what it will meet."""
    prepared = prepare(groups, ())
    seen = Trees.trained(prepared, 0)
    errors = {"seen": [], "unseen": []}
    for one, unseen in zip(prepared, out_of_fold(prepared, 0), strict=True):
        assert unseen.group is one.group
        errors["seen"].append(np.abs(seen.expect(one.batch).trees - standardised(one.labels)).mean())
        errors["unseen"].append(np.abs(unseen.batch.trees - standardised(one.labels)).mean())
    assert np.mean(errors["seen"]) < 0.7 * np.mean(errors["unseen"])


@pytest.mark.parametrize(("file", "damaged"), [(TREES.format(0), b"{"), (GRAPH, b"no graph")])
def test_a_worker_is_told_which_file_of_a_model_is_damaged(
    groups: list[Group], tmp_path: Path, file: str, damaged: bytes
) -> None:
    save(tmp_path, AttentionModel(), Trees.trained(prepare(groups[:2], ()), 0), {})
    (tmp_path / file).write_bytes(damaged)
    with pytest.raises(UnusableModel, match=file):
        Scorer(tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("no card", "holds no card.json"),
        ("card is no JSON", "is not a model's card"),
        ("another layout", "was trained for feature_layout 99, this version has"),
        ("truncated weights", "does not hold the weights"),
        ("weights of another shape", "does not hold the weights"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, damage: str, told: str) -> None:
    save(tmp_path, AttentionModel(), NO_TREES, {})
    card, weights = tmp_path / CARD, tmp_path / WEIGHTS
    facts = json.loads(card.read_text())
    if damage == "no card":
        card.unlink()
    elif damage == "card is no JSON":
        card.write_text("{")
    elif damage == "another layout":
        card.write_text(json.dumps({**facts, "layout": {**facts["layout"], "feature_layout": 99}}))
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        card.write_text(json.dumps({**facts, "shape": {**facts["shape"], "width": 32}}))
    with pytest.raises(UnusableModel, match=told):
        load(tmp_path)


def test_splits_keep_tested_workloads_and_targets_out_of_training(groups: list[Group]) -> None:
    for task in unseen_workloads(groups, 3, 0):
        assert not {one.workload for one in task.train} & {one.workload for one in task.test}
        assert not task.known
    tested = sorted(one.workload for task in unseen_workloads(groups, 3, 0) for one in task.test)
    assert tested == sorted(one.workload for one in groups)
    target = groups[0].target
    both = unseen_target(groups, target, 0, seen_workloads=False)
    assert {one.target for one in both.test} == {target}
    assert target not in {one.target for one in [*both.train, *both.known]}
    assert not {one.workload for one in both.train} & {one.workload for one in both.test}


def test_every_method_ranks_the_same_test_groups(groups: list[Group]) -> None:
    task = unseen_target(groups, groups[0].target, 0, seen_workloads=True)
    found = run(task, METHODS, Settings(epochs=1))
    assert found.keys() == set(METHODS)
    wanted = {(one.workload, one.target) for one in task.test}
    assert all({(one.workload, one.target) for one in scores} == wanted for scores in found.values())


def test_records_of_held_out_networks_are_not_trained_on(groups: list[Group]) -> None:
    """Held-out groups whose labels would mislead change nothing."""
    task = unseen_workloads(groups, 2, 0)[0]
    reversed_speeds = [
        replace(
            one,
            held_out=True,
            workload=f"held {one.workload}",
            programs=[replace(each, latency_s=1e-6 / each.latency_s) for each in one.programs if each.latency_s],
        )
        for one in task.train
    ]
    settings = Settings(epochs=1)
    methods = ("attention", "xgboost")
    alone = run(task, methods, settings)
    assert run(replace(task, train=[*task.train, *reversed_speeds]), methods, settings) == alone


def test_a_repeat_that_agrees_is_a_ceiling_of_one_and_blind_choice_is_random(groups: list[Group]) -> None:
    group = groups[0]
    group = replace(group, repeated_s={one.identity: one.latency_s for one in group.programs if one.latency_s})
    ceiling = ceiling_score(group)
    assert ceiling is not None and ceiling.values["top1"] == pytest.approx(1.0)
    assert ceiling.values["pairwise"] == 1.0
    blind = group_score(group, np.zeros(len(group.programs)))
    assert blind.values["top1"] == pytest.approx(random_score(group).values["top1"])
    assert blind.values["pairwise"] == 0.5


def test_an_interval_holds_its_mean_and_a_paired_difference_of_equals_is_zero(groups: list[Group]) -> None:
    scores = [group_score(one, np.arange(len(one.programs), dtype=float)) for one in groups]
    found = interval(scores, "pairwise")
    assert found.low <= found.mean <= found.high
    assert difference(scores, scores, "top1").high == 0.0
    assert summarise("a", scores, groups).groups == len(groups)


def test_a_batch_of_chosen_programs_has_their_rows(groups: list[Group]) -> None:
    batch = group_batch(groups[0], others(groups, groups[0]))
    chosen = batch.chosen(np.array([3, 1]))
    assert len(chosen) == 2
    model = stirred()
    np.testing.assert_allclose(score(model, chosen), score(model, batch)[[3, 1]], atol=1e-5)
    assert isinstance(chosen, Batch) and tensors_of(chosen)["hardware"].shape[0] == 2
