"""Train every method on the same groups and rank the same test groups: what `model evaluate` and the benchmark run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import nn

from crosstune.cost_model.attention.prepared import Prepared, prepare
from crosstune.cost_model.attention.training import Settings, score, train
from crosstune.cost_model.attention.training_set import training_set
from crosstune.cost_model.baselines.copying import copying_scores
from crosstune.cost_model.baselines.xgboost_ranker import XgboostRanker
from crosstune.cost_model.evaluation import GroupScore, group_score, random_score
from crosstune.cost_model.features import STATEMENT_COLUMNS
from crosstune.cost_model.groups import Group
from crosstune.cost_model.ranker import Example

METHODS = (
    *("attention", "shuffled-hardware", "without-evidence", "target-blind", "tokens-only"),
    *("segment-sum", "xgboost", "copying", "random"),
)
MASKS: dict[str, tuple[str, ...]] = {
    "attention": (),
    "without-evidence": ("evidence",),
    "target-blind": ("evidence", "hardware"),
    "tokens-only": ("evidence", "statements"),
}
"""Variants of the attention model: token groups that it neither learns from nor sees."""
SHUFFLED = "shuffled-hardware"
"""The attention model, told of the hardware of some other target that it was trained on."""
ALONE_RATE = 1e-3
"""Learning rate of networks that have no trees to start from."""


@dataclass(frozen=True, slots=True)
class Task:
    """One split: what may be learnt from, what is tested on, and what the database is taken to know besides.

    `known`: groups whose measurements may serve as evidence for the test groups.
    """

    name: str
    train: Sequence[Group]
    test: Sequence[Group]
    known: Sequence[Group]


def unseen_workloads(groups: Sequence[Group], folds: int, seed: int) -> list[Task]:
    """Each workload is tested once, on all its targets; nothing is known of it anywhere."""
    names = sorted({group.workload for group in groups})
    order = np.random.default_rng(seed).permutation(len(names))
    tasks = []
    for fold in range(folds):
        held = {names[position] for position in order[fold::folds]}
        train_groups = [group for group in groups if group.workload not in held]
        test_groups = [group for group in groups if group.workload in held]
        tasks.append(Task(f"unseen workloads {fold}", train_groups, test_groups, ()))
    return tasks


def unseen_target(groups: Sequence[Group], target: str, seed: int, seen_workloads: bool) -> Task:
    """Nothing of `target` is trained on; other targets' records of the tested workloads may serve as evidence.

    `seen_workloads`: whether these workloads were also trained on (on other targets); else half of the workloads are
    trained on and the other half is tested.
    """
    names = sorted({group.workload for group in groups})
    order = np.random.default_rng(seed).permutation(len(names))
    tested = set(names) if seen_workloads else {names[position] for position in order[len(names) // 2 :]}
    trained = set(names) if seen_workloads else set(names) - tested
    others = [group for group in groups if group.target != target]
    return Task(
        f"unseen target, {'seen' if seen_workloads else 'unseen'} workloads",
        [group for group in others if group.workload in trained],
        [group for group in groups if group.target == target and group.workload in tested],
        others,
    )


def run(
    task: Task,
    methods: Sequence[str],
    settings: Settings,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, list[GroupScore]]:
    """Scores of each method on the test groups. Validation groups are taken from the training groups alone."""
    learns = set(methods) & {*MASKS, SHUFFLED, "segment-sum"}
    looks = SHUFFLED in learns or any("evidence" not in MASKS[name] for name in learns & set(MASKS))
    given = training_set(task.train if learns else (), settings.seed, torch.get_num_threads(), looks)
    found: dict[str, list[GroupScore]] = {}
    test = [replace(one, batch=given.trees.expect(one.batch)) for one in prepare(task.test, task.known)]

    @cache
    def trained_without(masked: tuple[str, ...]) -> nn.Module:
        rate = ALONE_RATE if "statements" in masked else settings.learning_rate
        chosen = replace(settings, always_masked=masked, learning_rate=rate)
        trained = train(given.fitted, given.validation, chosen)
        tell(f"{task.name}: without {masked or 'nothing'} {trained.seconds:.0f} s, best epoch {trained.best_epoch}")
        return trained.model

    for method in methods:
        if method in MASKS:
            model, masked = trained_without(MASKS[method]), frozenset(MASKS[method])
            found[method] = [group_score(one.group, score(model, one.batch, masked)) for one in test]
        elif method == SHUFFLED:
            model = trained_without(())
            elsewhere = _shuffled(test, given.fitted, settings.seed)
            found[method] = [group_score(one.group, score(model, one.batch)) for one in elsewhere]
        elif method == "segment-sum":
            trained = train(
                given.fitted,
                given.validation,
                replace(settings, model="segment_sum", drop={}, learning_rate=ALONE_RATE),
            )
            found[method] = [group_score(one.group, score(trained.model, one.batch)) for one in test]
        elif method == "xgboost":
            found[method] = xgboost_scores(task.train, task.test, settings.seed)
        elif method == "copying":
            found[method] = copying_scores(test)
        elif method == "random":
            found[method] = [random_score(group) for group in task.test]
        else:
            raise ValueError(f"no method {method!r}; known: {', '.join(METHODS)}")
    return found


def _shuffled(test: Sequence[Prepared], fitted: Sequence[Prepared], seed: int) -> list[Prepared]:
    chance = np.random.default_rng(seed)
    found = []
    for one in test:
        others = [each for each in fitted if each.group.target != one.group.target]
        hardware = others[chance.integers(len(others))].group.hardware
        batch = replace(one.batch, hardware=np.repeat(hardware[None], len(one.batch), axis=0))
        found.append(replace(one, batch=batch))
    return found


def xgboost_scores(train_groups: Sequence[Group], test: Sequence[Group], seed: int) -> list[GroupScore]:
    """The baseline on the same statement features; it sees no hardware, as the service's first ranker."""
    examples = [
        Example(f"{group.workload} {group.target}", program.statements, program.latency_s)
        for group in train_groups
        if not group.held_out
        for program in group.programs
        if program.statements is not None
    ]
    # It ranks in a random order where there is nothing to learn from.
    ranker = XgboostRanker(seed, torch.get_num_threads(), large=True)
    ranker.fit(examples)
    empty = np.zeros((0, STATEMENT_COLUMNS), dtype=np.float32)
    return [
        group_score(group, ranker.score([empty if p.statements is None else p.statements for p in group.programs]))
        for group in test
    ]
