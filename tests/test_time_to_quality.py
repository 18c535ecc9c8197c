"""How the time that a search needs is set against that of its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.ansor import curves
from benchmarks.ansor.curves import Curve
from benchmarks.operators import OPERATORS, OTHERS
from benchmarks.time_to_quality import judged, ratio_claim, reached_claim
from benchmarks.tuning_runs import Program, Run


def row(peer_s: float, **reached_s: list[float | None]) -> dict[str, Any]:
    """An operator on which Ansor needed `peer_s`, and seconds of ours by start, one for each seed."""
    runs = [
        {"start": start, "reached": {"ansor": None if one is None else {"seconds": one, "trials": 8}}}
        for start, found in reached_s.items()
        for one in found
    ]
    return {"peers": {"ansor": {"seconds": peer_s}}, "runs": runs}


def test_a_peer_has_arrived_when_it_first_is_within_two_percent_of_its_own_best() -> None:
    curve = Curve("core-avx2", 2, [[10, 32, None], [20, 64, 2.0], [30, 96, 1.01], [40, 128, 1.0]], [])
    assert (curve.seconds, curve.trials) == (30, 96)


def test_a_peer_that_measured_nothing_is_not_a_goal() -> None:
    with pytest.raises(SystemExit, match="measured nothing"):
        _ = Curve("core-avx2", 2, [[10, 32, None]], []).seconds


def test_a_curve_comes_back_as_it_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "KEPT", tmp_path)
    curve = Curve("core-avx2", 2, [[10.5, 32, 1e-3]], ['{"i": []}'])
    assert curves.kept(OPERATORS[0]) is None
    curves.keep(OPERATORS[0], curve)
    assert curves.kept(OPERATORS[0]) == curve
    assert curves.kept(OPERATORS[1]) is None


def test_the_middle_seed_counts_and_a_run_that_never_gets_there_takes_for_ever() -> None:
    rows = [row(100, cold=[10, 20, 50]), row(100, cold=[5, None, 10]), row(100, cold=[None, None, 1])]
    claim = ratio_claim(rows, "speedup", "ansor", "cold", "seconds", 25)
    assert (claim.value, claim.spread, claim.n) == (5, (0, 10), 3)


def test_an_operator_counts_as_reached_only_when_both_starts_get_there() -> None:
    rows = [row(100, cold=[10], neighbours=[10]), row(100, cold=[None], neighbours=[10])]
    assert reached_claim(rows).value == 1


def test_without_the_peer_nothing_is_claimed() -> None:
    assert ratio_claim([{"peers": {}, "runs": []}], "speedup", "ansor", "cold", "seconds", 25).value is None
    assert reached_claim([{"peers": {}, "runs": []}]).value is None


def test_a_run_is_judged_by_the_final_timing_and_by_the_first_program_that_is_good_enough() -> None:
    programs = [Program(place, f"s{place}", None, 1.0 / place, "search", 10.0 * place) for place in (1, 2, 3)]
    found = judged("cold", 0, Run(programs=programs), {"s1": 3.0, "s2": 1.01, "s3": 1.0, "ansor": 1.0})
    assert found["best_s"] == 1.0
    assert found["reached"] == {"ansor": {"seconds": 20.0, "trials": 2}, "repaired": None}


def test_each_operator_has_another_of_its_kind_to_learn_from() -> None:
    for one in OPERATORS:
        assert any(other.kind == one.kind and other != one for other in (*OPERATORS, *OTHERS))
    assert len({one.name for one in (*OPERATORS, *OTHERS)}) == len(OPERATORS) + len(OTHERS)
