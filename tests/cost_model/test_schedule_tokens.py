"""Schedules as tokens: one vocabulary for Ansor's steps and MetaSchedule's instructions."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.cost_model.formats.reading import read_file
from crosstune.cost_model.formats.record import Record
from crosstune.cost_model.formats.sources import record_files
from crosstune.cost_model.tokens.ansor_steps import MAKERS, ansor_steps
from crosstune.cost_model.tokens.schedule import steps_of, tokens
from crosstune.cost_model.tokens.trace_steps import MAKERS as TRACE_MAKERS
from crosstune.cost_model.tokens.trace_steps import trace_steps
from crosstune.cost_model.tokens.vocabulary import WIDTH, Kind, Step

DATA = Path(__file__).parent / "data"
RECORDS = [item for file in record_files([DATA]) for item in read_file(file) if isinstance(item, Record)]


def logs(*values: float) -> tuple[float, ...]:
    return tuple(log2(1 + value) for value in values)


@pytest.mark.parametrize("kind", ["ansor", "metaschedule"])
def test_every_step_of_the_public_logs_is_known(kind: str) -> None:
    found = [step for record in RECORDS if record.format == kind for step in steps_of(kind, record.trace)]
    assert len(found) > 50
    assert not [step for step in found if step.kind is Kind.OTHER]


def test_a_split_holds_all_its_factors_from_outer_to_inner() -> None:
    outer_missing = ["SP", 2, 0, 1000, [1, 100, 10], 1]
    inner_missing = ["SP", 2, 0, 1000, [1, 100], 0]
    assert ansor_steps([outer_missing]) == [Step(Kind.SPLIT, 2, logs(1000, 1, 1, 100, 10))]
    assert ansor_steps([inner_missing]) == [Step(Kind.SPLIT, 2, logs(1000, 1, 100, 10))]


def test_a_split_that_follows_another_has_its_factors() -> None:
    split, follow = ["SP", 2, 0, 1000, [1, 100, 10], 1], ["FSP", 3, 0, 0, 2]
    assert ansor_steps([split, follow])[1] == Step(Kind.SPLIT, 3, logs(1000, 1, 1, 1000))
    fused = ["FFSP", 4, 0, [0], 1, 1]
    assert ansor_steps([split, fused])[1] == Step(Kind.SPLIT, 4, logs(0, 100))


def test_ansor_annotations_say_what_they_bind() -> None:
    kinds = [ansor_steps([["AN", 1, 4, number]])[0] for number in range(12)]
    assert [step.kind for step in kinds] == [
        Kind.PRAGMA,
        Kind.UNROLL,
        Kind.VECTORIZE,
        Kind.PARALLEL,
        Kind.BIND_VTHREAD,
        *[Kind.BIND_BLOCK, Kind.BIND_THREAD] * 3,
        Kind.TENSORIZE,
    ]
    assert kinds[9].values == (2.0, 4.0)
    assert ansor_steps([["PR", 2, 0, "auto_unroll_max_step$512"]]) == [Step(Kind.UNROLL, 2, (log2(513), 0.0))]


TRACE: list[Any] = [
    [
        ["GetSBlock", [], ["conv2d", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1", "l2"]],
        ["SamplePerfectTile", ["l1"], [2, 64], ["v3", "v4"]],
        ["Split", ["l1", "v3", "v4"], [1], ["l5", "l6"]],
        ["Split", ["l2", "None", 16], [1], ["l7", "l8"]],
        ["Reorder", ["l5", "l7", "l6", "l8"], [], []],
        ["Vectorize", ["l8"], [], []],
        ["SampleCategorical", [], [[0, 16, 64, 512], [0.25, 0.25, 0.25, 0.25]], ["v9"]],
        ["Annotate", ["b0", "v9"], ["meta_schedule.unroll_explicit"], []],
        ["SampleComputeLocation", ["b0"], [], ["l10"]],
        ["ComputeAt", ["b0", "l10"], [True, -1], []],
        ["CacheWrite", ["b0"], [0, "shared.dyn"], ["b11"]],
        ["Bind", ["l5"], ["blockIdx.y"], []],
        ["EnterPostproc", [], [], []],
        ["Unroll", ["l6"], [], []],
    ],
    [[2, [32, 8]], [7, 3], [9, -1]],
]


def test_a_trace_becomes_primitives_with_the_drawn_values_in_them() -> None:
    assert trace_steps(TRACE) == [
        Step(Kind.SPLIT, 0, logs(256, 32, 8)),
        Step(Kind.SPLIT, 0, logs(0, 0, 16)),
        Step(Kind.REORDER, 0, (*logs(4), 0.0, 0.5, 0.25, 0.75)),
        Step(Kind.VECTORIZE, 0, (0.0,)),
        Step(Kind.UNROLL, 0, logs(512)),
        Step(Kind.COMPUTE_ROOT, 0, ()),
        Step(Kind.CACHE_WRITE, 0, (0.0, 1.0, 0.0)),
        Step(Kind.BIND_BLOCK, 0, (1.0,)),
    ]


def test_older_names_of_instructions_give_the_same_tokens() -> None:
    text = json.dumps(TRACE)
    assert trace_steps(json.loads(text.replace("GetSBlock", "GetBlock"))) == trace_steps(TRACE)


def test_other_decisions_give_other_tokens() -> None:
    moved = [TRACE[0], [[2, [8, 32]], *TRACE[1][1:]]]
    assert trace_steps(moved) != trace_steps(TRACE)


@pytest.mark.parametrize(
    "steps", [[["XX", 1]], [["SP", 1]], [["FSP", 1, 0, 7, 2]], [["PR", 1, 0, "auto_unroll_max_step$many"]]]
)
def test_what_is_not_known_is_other_and_never_an_error(steps: list[Any]) -> None:
    assert [step.kind for step in ansor_steps(steps)] == [Kind.OTHER]


FIELDS = st.recursive(
    st.integers(-3, 2000) | st.text(max_size=4) | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=8
)


@given(st.lists(st.tuples(st.sampled_from(sorted(MAKERS)), st.lists(FIELDS, max_size=6)), max_size=6))
def test_no_ansor_steps_break_it(steps: list[tuple[str, list[Any]]]) -> None:
    given_steps = [[name, *fields] for name, fields in steps]
    found = ansor_steps(given_steps)
    assert len(found) == len(given_steps)
    assert len(tokens(found)) == len(found)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*sorted(TRACE_MAKERS), "SampleCategorical", "SamplePerfectTile", "SampleComputeLocation"]),
            st.lists(FIELDS, max_size=4),
            st.lists(FIELDS, max_size=3),
            st.lists(st.sampled_from(["b1", "l2", "v3", "b", "x"]), max_size=3),
        ),
        max_size=6,
    ),
    FIELDS,
)
def test_no_trace_breaks_it(instructions: list[tuple[Any, ...]], value: Any) -> None:
    found = trace_steps([instructions, [[index, value] for index in range(len(instructions))]])
    assert len(tokens(found)) == len(found)


def test_arrays_hold_the_values_and_zeros_behind_them() -> None:
    found = tokens(trace_steps(TRACE))
    assert found.kinds.tolist()[0] == Kind.SPLIT
    assert found.values.shape == (len(found), WIDTH)
    np.testing.assert_allclose(found.values[0, :4], [*logs(256, 32, 8), 0.0], rtol=1e-6)
    assert len(tokens([])) == 0


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="ansor, metaschedule"):
        steps_of("autotvm", "[]")
