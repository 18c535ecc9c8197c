"""Splits: TenSet's by its rules, and what must never be on both sides."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.cost_model import splits
from crosstune.cost_model.splits import Split

TASKS = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def sides(split: Split) -> tuple[list[int], list[int]]:
    return split.train.tolist(), split.test.tolist()


def complete(split: Split, count: int) -> bool:
    return sorted([*split.train, *split.test]) == list(range(count))


def test_within_a_task_the_last_records_are_trained_on_in_reversed_order() -> None:
    train, test = sides(splits.within_task(["a"] * 10 + ["b"] * 5, ratio=0.8))
    assert train == [9, 8, 7, 6, 5, 4, 3, 2, 14, 13, 12, 11]
    assert test == [1, 0, 10]


@given(TASKS, st.integers(0, 3))
def test_a_task_is_never_on_both_sides_of_a_split_by_task(tasks: list[int], seed: int) -> None:
    split = splits.by_task(tasks, 0.7, seed)
    assert complete(split, len(tasks))
    assert len(split.train) <= int(0.7 * len(tasks))
    assert not {tasks[i] for i in split.train} & {tasks[i] for i in split.test}


def test_the_task_that_would_be_too_much_ends_the_training_side() -> None:
    tasks = ["large"] * 8 + ["small"] * 2
    seeds = {bool(splits.by_task(tasks, 0.5, seed).train.size) for seed in range(20)}
    assert seeds == {True, False}  # `small` first: it is trained on; `large` first: nothing is, whatever follows


def test_a_split_by_task_is_the_same_for_the_same_seed() -> None:
    tasks = [f"t{i % 40}" for i in range(400)]
    same = [splits.by_task(tasks, seed=3).train.tolist() for _ in range(2)]
    assert same[0] == same[1] != splits.by_task(tasks, seed=4).train.tolist()


def test_by_target_the_last_targets_are_trained_on_and_the_one_that_passes_the_limit_too() -> None:
    targets = ["x"] * 4 + ["y"] * 4 + ["z"] * 4
    train, test = sides(splits.by_target(range(12), targets, ratio=0.5))
    assert {targets[i] for i in train} == {"z", "y"}
    assert {targets[i] for i in test} == {"x"}


def test_held_out_workloads_are_tested_on_every_target() -> None:
    workloads: list[Hashable] = ["a", "b", "a", "c"]
    train, test = sides(splits.hold_out(workloads, frozenset({"a"})))
    assert (train, test) == ([1, 3], [0, 2])


@pytest.mark.parametrize(("share", "labels"), [(0.0, 0), (0.07, 7), (1.0, 100)])
def test_a_target_that_is_left_out_gives_only_its_share_of_labels(share: float, labels: int) -> None:
    targets = ["old"] * 200 + ["new"] * 200
    workloads = (["seen"] * 100 + ["unseen"] * 100) * 2
    split = splits.leave_target_out(targets, workloads, "new", frozenset({"seen"}), share)
    assert sum(targets[i] == "new" for i in split.train) == labels
    assert {workloads[i] for i in split.train} == {"seen"}
    assert {(targets[i], workloads[i]) for i in split.test} == {("new", "unseen")}
    assert len(np.unique(split.train)) == len(split.train)
