"""What a workload is expected to take where it was never measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from crosstune.cost_model.bests import place_of, shipped
from crosstune.cost_model.expectation import Best, Computation, Expectations, Expected, Place, log_roofline, total


def place(name: str, silicon: str = "made-up", **attributes: float) -> Place:
    rates = {"peak_flops_per_s": 1e11, "memory_bytes_per_s": 1e10, "cores": 2.0} | attributes
    return place_of(name, {"kind": "llvm", "mcpu": name, "model": silicon, "attributes": rates})


def matmul(rows: int, key: str | None = None) -> Computation:
    shape = ("float32", (rows, rows))
    return Computation(key or f"matmul {rows}", "matmul", 2.0 * rows**3, (shape, shape, shape))


def measured(computation: Computation, where: Place, slowness: float) -> Best:
    return Best(computation, where, slowness * float(np.exp(log_roofline(computation, where))))


HERE, THERE = place("here"), place("there", peak_flops_per_s=3e11)
SIZES = range(100, 2100, 50)


def two_targets(slowness_there: float) -> list[Best]:
    """Forty products on both targets, with some noise."""
    noise = np.random.default_rng(3).normal(1.0, 0.03, (len(SIZES), 2))
    computations = [matmul(size) for size in SIZES]
    here = [measured(each, HERE, 2.0 * off) for each, (off, _) in zip(computations, noise, strict=True)]
    return here + [
        measured(each, THERE, slowness_there * off) for each, (_, off) in zip(computations, noise, strict=True)
    ]


def expected(known: Sequence[Best], computation: Computation, where: Place) -> Expected:
    (found,) = Expectations(known).of([computation], where)
    assert found is not None
    return found


def width(found: Expected) -> float:
    return found.high_s / found.low_s


def test_a_latency_that_is_known_elsewhere_moves_by_what_both_targets_showed_on_other_workloads() -> None:
    for slowness_there in (2.0, 6.0):
        known = two_targets(slowness_there)
        asked = matmul(700)
        without = [best for best in known if (best.computation.key, best.place) != (asked.key, THERE)]
        truth_s = measured(asked, THERE, slowness_there).latency_s
        found = expected(without, asked, THERE)
        assert found.latency_s == pytest.approx(truth_s, rel=0.1)
        assert found.low_s < found.latency_s < found.high_s


def test_what_is_peculiar_to_a_workload_goes_with_it_to_another_target() -> None:
    known, odd = two_targets(2.0), matmul(725, "an awkward layout")
    found = expected([*known, measured(odd, HERE, 20.0)], odd, THERE)
    plain = expected(known, odd, THERE)
    assert found.latency_s > 1.3 * plain.latency_s


def test_eighty_percent_intervals_hold_what_the_shipped_table_leaves_out() -> None:
    known = np.array(shipped(), dtype=object)
    keys = sorted({best.computation.key for best in known})
    fold = {key: number % 5 for number, key in enumerate(keys)}
    folds = np.array([fold[best.computation.key] for best in known])
    inside = []
    for number in range(5):
        expectations = Expectations(list(known[folds != number]))
        for best in known[folds == number]:
            (found,) = expectations.of([best.computation], best.place)
            assert found is not None
            inside.append(found.low_s <= best.latency_s <= found.high_s)
    assert 0.7 <= np.mean(inside) <= 0.92


def test_less_knowledge_makes_wider_intervals() -> None:
    known = list(shipped())
    asked = known[0]
    alone = [best for best in known if best.computation.key != asked.computation.key]
    transferred = [best for best in known if best is not asked]
    strange = Computation("strange", "einsum_sort", 1e6, (("float32", (10**5,)), ("float32", (10,))))
    assert width(expected(transferred, asked.computation, asked.place)) < width(
        expected(alone, asked.computation, asked.place)
    )
    assert width(expected(alone, asked.computation, asked.place)) < width(expected(alone, strange, asked.place))
    foreign = place("foreign", "of another maker", peak_flops_per_s=2e11)
    assert width(expected(known, asked.computation, asked.place)) < width(expected(known, asked.computation, foreign))


def test_nothing_is_said_of_a_target_without_rates_nor_of_another_kind_of_hardware_nor_from_little() -> None:
    known, asked = two_targets(2.0), matmul(640)
    unknown = place_of("unknown", {"kind": "llvm", "mcpu": "made-up", "model": "made-up"})
    gpu = place_of("gpu", {"kind": "cuda", "attributes": {"peak_flops_per_s": 1e13, "memory_bytes_per_s": 1e12}})
    assert Expectations(known).of([asked], unknown) == [None]
    assert Expectations(known).of([asked], gpu) == [None]
    assert Expectations(known[:10]).of([asked], HERE) == [None]
    assert Expectations([]).of([asked], HERE) == [None]
    assert Expectations(known).of([], HERE) == []


def test_answers_do_not_depend_on_chance() -> None:
    known = two_targets(3.0)
    one, other = (expected(known, matmul(333), place("new")) for _ in range(2))
    assert (one.low_s, one.latency_s, one.high_s) == (other.low_s, other.latency_s, other.high_s)
    assert np.array_equal(one.draws, other.draws)


def test_a_sum_holds_what_was_measured_exactly_and_spreads_as_what_is_expected() -> None:
    exact = total([(2.0, 0.5), (1.0, 0.25)])
    assert (exact.low_s, exact.latency_s, exact.high_s) == pytest.approx((1.25, 1.25, 1.25))
    first, second = Expectations(shipped()).of([matmul(300), matmul(500)], shipped()[0].place)
    assert first is not None and second is not None
    both = total([(1.0, first), (1.0, second), (1.0, 1.0)])
    assert both.low_s < both.latency_s < both.high_s
    assert 1.0 + first.low_s + second.low_s < both.latency_s < 1.0 + first.high_s + second.high_s
    largest = max(first.high_s - first.low_s, second.high_s - second.low_s)
    assert both.high_s - both.low_s > 0.8 * largest


def test_the_most_telling_workload_is_one_that_many_are_like_and_once_it_is_known_another() -> None:
    known = two_targets(2.0)
    new = place("new", "other silicon")
    many = [matmul(size, f"new {size}") for size in range(900, 1200, 20)]
    alone = Computation("pool", "max_pool", 1e6, (("float32", (1000, 1000)), ("float32", (500, 500))))
    asked = [alone, *many]
    first = Expectations(known).most_telling(asked, new)
    assert first is not None and asked[first] is not alone
    told = [*known, *(measured(each, new, 3.0) for each in many[:3])]
    assert Expectations(told).most_telling([alone, *many[3:]], new) == 0
    assert Expectations(known[:3]).most_telling(asked, new) is None
