"""Drafts: always complete, always within their space, and different when they should be."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from crosstune.tuner.contracts import Invalidity, KnownSchedule, MeasuredElsewhere, Quality, TargetSpec, TraceJson
from crosstune.tuner.drafting import Drafter, by_speed, fastest, has_verdict, unwanted_hashes
from crosstune.tuner.drafts import Choice, Draft, Space, Tile, divisors, factorizations, prime_powers

TRACE: TraceJson = [
    [
        ["GetSBlock", [], ["b", "main"], ["b0"]],
        ["SamplePerfectTile", ["l1"], [4, 64], ["v1", "v2", "v3", "v4"]],
        ["SampleCategorical", [], [[0, 16, 64, 512], [0.25, 0.25, 0.25, 0.25]], ["v5"]],
        ["SampleComputeLocation", ["b0"], [], ["l6"]],
    ],
    [[1, [1, 2, 3, 8]], [2, 3], [3, -1]],
]


@given(st.integers(1, 5000), st.integers(2, 5), st.integers(0, 2**30))
def test_a_drawn_or_changed_tile_keeps_its_product(extent: int, parts: int, seed: int) -> None:
    tile, random = Tile(extent, parts, 64), Random(seed)
    decision = tile.draw(random)
    for _ in range(5):
        assert isinstance(decision, tuple)
        assert math.prod(decision) == extent
        assert len(decision) == parts
        assert decision[-1] <= 64
        decision = tile.change(decision, random)


@given(st.integers(1, 3000))
def test_numbers_are_the_product_of_their_primes(number: int) -> None:
    assert math.prod(prime**power for prime, power in prime_powers(number)) == number
    assert divisors(number) == [size for size in range(1, number + 1) if number % size == 0]


def test_all_ways_to_tile_are_counted_and_listed() -> None:
    assert len(set(factorizations(48, 3))) == Tile(48, 3, 48).options == len(list(Tile(48, 3, 48).all()))


def test_a_changed_choice_is_another_choice() -> None:
    assert {Choice(4).change(2, Random(seed)) for seed in range(40)} == {0, 1, 3}


def test_a_space_gives_its_own_trace_back() -> None:
    space = Space(TRACE)
    assert space.trace(space.decisions_of(TRACE)) == TRACE
    assert space.key == Space([TRACE[0], []]).key


def test_an_open_place_has_no_decision_in_the_trace() -> None:
    space = Space(TRACE)
    drawn = space.draw(Random(0))
    assert not Draft(0, drawn).settled
    assert [index for index, _ in space.trace(drawn)[1]] == [1, 2]


def known(trace: TraceJson, latency_s: float) -> KnownSchedule:
    return KnownSchedule(trace, f"{latency_s}", latency_s, Quality.QUICK, None)


def test_a_drafter_never_repeats_a_settled_draft() -> None:
    space = Space([TRACE[0][:3], [[1, [1, 1, 3, 5]], [2, 3]]])
    tried: set[Draft] = set()
    found: list[Draft] = []
    for seed in range(5):
        drafter = Drafter([space], [], tried, Random(seed))
        found += drafter.more(60, set())
    assert len(found) == len(set(found))
    assert len(found) == sum(1 for _ in space.all())


def test_a_drafter_with_records_prefers_what_was_fast() -> None:
    space = Space([TRACE[0][:3], [[1, [1, 2, 3, 8 * 64]], [2, 0]]])
    random = Random(5)
    records = []
    for _ in range(64):
        decisions = space.draw(random)
        inner = decisions[0][-1] if isinstance(decisions[0], tuple) else 1
        records.append(known(space.trace(decisions), 1.0 / inner))
    drafts = Drafter([space], records, set(), Random(1)).more(40, set())
    inner = sorted(draft.decisions[0][-1] for draft in drafts if isinstance(draft.decisions[0], tuple))
    assert inner[len(inner) // 2] >= 16


def test_what_was_fast_on_another_target_leads_until_something_is_measured_here(target_spec: TargetSpec) -> None:
    space = Space([TRACE[0][:3], [[1, [1, 2, 3, 8 * 64]], [2, 0]]])
    random = Random(5)
    drawn = [space.draw(random) for _ in range(64)]
    latencies_s = tuple(1.0 / made[0][-1] if isinstance(made[0], tuple) else None for made in drawn)
    there = MeasuredElsewhere(target_spec, {}, tuple(map(space.trace, drawn)), latencies_s)
    drafts = Drafter([space], [], set(), Random(1), [there]).more(40, set())
    inner = sorted(draft.decisions[0][-1] for draft in drafts if isinstance(draft.decisions[0], tuple))
    assert inner[len(inner) // 2] >= 16


def test_targets_are_compared_by_their_own_fastest() -> None:
    """A thousand times slower there is no worse."""
    here, there = [(Draft(0, (1,)), 1e-3), (Draft(0, (2,)), 2e-3)], [(Draft(0, (3,)), 1.0), (Draft(0, (4,)), None)]
    assert by_speed(here) == [(Draft(0, (1,)), 1.0), (Draft(0, (2,)), 0.5)]
    assert by_speed(there) == [(Draft(0, (3,)), 1.0), (Draft(0, (4,)), 0.0)]
    assert fastest([by_speed(here), by_speed(there)]) == [Draft(0, (1,)), Draft(0, (2,)), Draft(0, (3,))]


def test_a_drafter_breeds_on_what_it_is_told_before_anything_was_measured() -> None:
    space = Space([TRACE[0][:3], [[1, [1, 2, 3, 8 * 64]], [2, 0]]])
    random = Random(5)
    drafter = Drafter([space], [], set(), Random(1))
    drawn = [space.draw(random) for _ in range(64)]
    scores = [float(made[0][-1]) if isinstance(made[0], tuple) else 0.0 for made in drawn]
    drafter.learn([space.trace(made) for made in drawn], scores)
    inner = sorted(draft.decisions[0][-1] for draft in drafter.more(40, set()) if isinstance(draft.decisions[0], tuple))
    assert inner[len(inner) // 2] >= 16


def test_schedules_from_elsewhere_open_spaces_of_their_own() -> None:
    foreign = [[["GetSBlock", [], ["c", "main"], ["b0"]], *TRACE[0][1:]], TRACE[1]]
    drafter = Drafter([Space(TRACE)], [known(foreign, 1e-3)], set(), Random(0))
    assert len(drafter.spaces) == 2


def test_a_time_out_tells_something_of_the_schedule_and_a_lost_device_does_not() -> None:
    slow, lost = (
        KnownSchedule(TRACE, "1", None, None, invalidity) for invalidity in (Invalidity.TIMEOUT, Invalidity.DEVICE_LOST)
    )
    assert has_verdict(slow) and not has_verdict(lost)


def test_seeds_and_lost_devices_do_not_block_a_schedule() -> None:
    seed = KnownSchedule(TRACE, "seed", None, None, None)
    assert unwanted_hashes([seed, known(TRACE, 1.0)]) == {"1.0"}


LIKE: TraceJson = [
    [
        ["GetSBlock", [], ["b", "main"], ["b0"]],
        ["SamplePerfectTile", ["l1"], [4, 64], ["v1", "v2", "v3", "v4"]],
        ["SampleCategorical", [], [[0, 16, 64], [0.5, 0.25, 0.25]], ["v5"]],
        ["SampleComputeLocation", ["b0"], [], ["l6"]],
    ],
    [[1, [7, 1, 4, 16]], [2, 1], [3, 2]],
]
"""Of a workload like TRACE's, whose loop is 448 long where that of TRACE is 48."""


def test_a_schedule_of_a_like_workload_is_brought_to_this_ones_sizes() -> None:
    assert Space(TRACE).fitted(LIKE) == ((1, 1, 3, 16), 1, 2)
    assert Space(LIKE).fitted(TRACE) == ((7, 2, 4, 8), 0, -1)  # its fourth choice is none of these three


def test_a_schedule_fits_its_own_space_as_it_is() -> None:
    assert Space(TRACE).fitted(TRACE) == Space(TRACE).decisions_of(TRACE)


def test_a_schedule_that_is_made_differently_does_not_fit() -> None:
    assert Space(TRACE).fitted([[*TRACE[0], ["Unroll", ["l2"], [], []]], TRACE[1]]) is None
    other_block = [["GetSBlock", [], ["pad", "main"], ["b0"]], *TRACE[0][1:]]
    assert Space(TRACE).fitted([other_block, TRACE[1]]) is None


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 5), st.integers(0, 2**30))
def test_fitted_factors_are_factors_of_the_loop_they_are_fitted_to(one: int, other: int, parts: int, seed: int) -> None:
    fitted = Tile(one, parts, 64).fitted(Tile(other, parts, 64).draw(Random(seed)))
    assert isinstance(fitted, tuple) and len(fitted) == parts
    assert math.prod(fitted) == one
    assert fitted[-1] <= 64
    assert Tile(one, parts, 64).fitted(fitted) == fitted


def test_schedules_of_like_workloads_are_drafts_once() -> None:
    space = Space(TRACE)
    drafter = Drafter([space], [], set(), Random(0))
    (start,) = drafter.neighbours([LIKE, LIKE], set())
    assert start.decisions == space.fitted(LIKE)
    assert drafter.neighbours([LIKE, LIKE], set()) == []
