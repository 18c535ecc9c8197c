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
from crosstune.cost_model.attention.losses import LOSSES
from crosstune.cost_model.attention.model import GROUPS, AttentionModel, tensors_of
from crosstune.cost_model.attention.training import NothingToLearn, Settings, prepare, score, train
from crosstune.cost_model.attention.weights import CARD, WEIGHTS, UnusableModel, load, save
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
from crosstune.cost_model.features import STATEMENT_COLUMNS
from crosstune.cost_model.groups import Group, Program
from crosstune.cost_model.metrics import pairwise_accuracy_without_ties, top_k
from crosstune.cost_model.tokens.hardware import hardware_token
from crosstune.cost_model.tokens.schedule import ScheduleTokens, tokens
from crosstune.cost_model.tokens.vocabulary import Kind, Step
from crosstune.cost_model.tokens.workload import workload_token

TARGETS = [
    json.dumps({"cores": cores, "kind": "llvm", "mcpu": mcpu}) for mcpu in ("znver3", "x86-64-v2") for cores in (2, 1)
]


def schedule(chance: np.random.Generator) -> ScheduleTokens:
    """Two splits and a vectorised loop; every number is a decision."""
    drawn = chance.integers(0, 7, size=5).astype(float)
    steps = [
        Step(Kind.SPLIT, 1, (6.0, *drawn[:2])),
        Step(Kind.SPLIT, 1, (6.0, *drawn[2:4])),
        Step(Kind.VECTORIZE, 1, (drawn[4],)),
    ]
    return tokens(steps)


def make_groups(workloads: int, programs: int, seed: int = 0, targets: int = 3) -> list[Group]:
    """Programs whose speed depends on their decisions, and a little on the target."""
    chance = np.random.default_rng(seed)
    groups = []
    for workload in range(workloads):
        made = [schedule(chance) for _ in range(programs)]
        for number, target in enumerate(TARGETS[:targets]):
            found = []
            for index, one in enumerate(made):
                statements = np.abs(chance.normal(size=(2, STATEMENT_COLUMNS))).astype(np.float32)
                speed = one.values[0, 1] - 0.5 * one.values[1, 2] + 0.3 * number * one.values[2, 0]
                statements[:, 3] = 6.0 + speed
                latency_s = 1e-3 * float(2.0 ** (-0.3 * speed) * (1 + workload))
                found.append(Program(f"{workload}.{index}", one, statements, latency_s))
            shape = workload_token("", json.dumps(["conv", [1, 8 * (1 + workload), 16]]))
            groups.append(Group("made", "", target, f"w{workload}", hardware_token(target), shape, False, found))
    return groups


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return make_groups(8, 24)


def others(groups: list[Group], group: Group) -> list[Group]:
    return [one for one in groups if one.workload == group.workload and one.target != group.target]


def test_an_untrained_model_copies_the_order_of_the_nearest_target(groups: list[Group]) -> None:
    torch.manual_seed(0)
    model = AttentionModel()
    torch.nn.init.zeros_(model.head[-1].weight)
    for group in groups[:3]:
        batch = group_batch(group, others(groups, group))
        agreement = pairwise_accuracy_without_ties(score(model, batch), copied_scores(batch))
        assert agreement is not None and agreement > 0.85  # the evidence of farther targets counts a little too


def test_a_trained_model_ranks_programs_of_workloads_that_it_has_never_seen(groups: list[Group]) -> None:
    fitted = [one for one in groups if one.workload not in ("w6", "w7")]
    unseen = [one for one in groups if one.workload in ("w6", "w7")]
    trained = train(prepare(fitted, ()), (), Settings(epochs=12, loss="pairwise"))
    for one in prepare(unseen, ()):
        agreement = pairwise_accuracy_without_ties(score(trained.model, one.batch), one.labels)
        assert agreement is not None and agreement > 0.75
        assert top_k(score(trained.model, one.batch), one.labels, 5) > 0.9


def test_shuffling_the_decisions_of_schedules_lowers_accuracy(groups: list[Group]) -> None:
    """With the schedule tokens alone: the model reads decisions, not only which primitives there are."""
    without = ("statements", "evidence")
    trained = train(prepare(groups, ()), (), Settings(epochs=15, always_masked=without))
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
    model = AttentionModel()
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
    model = AttentionModel()
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
    save(tmp_path, model, {"note": "a test"})
    again, card = load(tmp_path)
    np.testing.assert_array_equal(score(model, batch), score(again, batch))
    assert card["note"] == "a test"


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
    save(tmp_path, AttentionModel(), {})
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
    both = unseen_target(groups, TARGETS[0], 0, seen_workloads=False)
    assert {one.target for one in both.test} == {TARGETS[0]}
    assert TARGETS[0] not in {one.target for one in [*both.train, *both.known]}
    assert not {one.workload for one in both.train} & {one.workload for one in both.test}


def test_every_method_ranks_the_same_test_groups(groups: list[Group]) -> None:
    task = unseen_target(groups, TARGETS[0], 0, seen_workloads=True)
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
    model = AttentionModel()
    np.testing.assert_allclose(score(model, chosen), score(model, batch)[[3, 1]], atol=1e-5)
    assert isinstance(chosen, Batch) and tensors_of(chosen)["hardware"].shape[0] == 2
