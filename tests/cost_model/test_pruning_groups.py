"""Pruning groups in memory: the same choice as of a data set, and nothing that was measured is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosstune.cost_model.groups import Group
from crosstune.cost_model.pruning.groups import pruned
from crosstune.cost_model.pruning.methods import METHODS
from crosstune.cost_model.tokens.schedule import summaries, summary, tokens
from crosstune.cost_model.tokens.vocabulary import Kind, Step


@pytest.mark.parametrize("name", METHODS)
def test_a_quarter_is_kept_and_failures_go_first(groups: list[Group], name: str) -> None:
    failed = replace(groups[0].programs[0], latency_s=None)
    given = [replace(groups[0], programs=[failed, *groups[0].programs[1:]]), *groups[1:]]
    kept = pruned(given, METHODS[name](0.25), seed=0)
    count, valid = sum(len(one.programs) for one in kept), sum(one.valid for one in given)
    assert 0 < count <= 0.25 * valid + len(given)
    assert count >= 0.25 * valid - len(given)
    by_key = {(one.workload, one.target): one for one in given}
    for one in kept:
        assert all(any(each is other for other in by_key[one.workload, one.target].programs) for each in one.programs)
        assert not any(each is failed for each in one.programs)
    assert sum(len(one.programs) for one in given) == 24 * len(given)


def test_padding_does_not_change_the_summary_of_a_schedule() -> None:
    short = tokens([Step(Kind.SPLIT, 1, (6.0, 1.0)), Step(Kind.UNROLL, 1, (4.0,))])
    long = tokens([Step(Kind.SPLIT, 2, (5.0, 2.0)), Step(Kind.SPLIT, 1, (6.0, 1.0)), Step(Kind.UNROLL, 1, (4.0,))])
    kinds = np.stack([np.append(short.kinds, Kind.SPLIT), long.kinds])
    values = np.stack([np.concatenate([short.values, long.values[:1]]), long.values])
    mask = np.array([[True, True, False], [True, True, True]])
    np.testing.assert_array_equal(summaries(kinds, values, mask), [summary(short), summary(long)])
