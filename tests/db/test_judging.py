"""What is believed of a schedule, from its measurements alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crosstune.db.judging import MAX_TRANSIENT_RETRIES, Evidence, judge


def timed(latency_s: float, quality: str = "full", status: str = "valid") -> Evidence:
    return Evidence(latency_s, quality, status, None)


def failed(invalidity: str, status: str = "valid") -> Evidence:
    return Evidence(None, "quick", status, invalidity)


def test_the_median_of_the_full_ones_outweighs_a_lucky_one_and_any_quick_one() -> None:
    verdict = judge([timed(0.1, "quick"), timed(0.5), timed(0.2), timed(0.4)])
    assert (verdict.latency_s, verdict.quality, verdict.status) == (0.4, "full", "valid")


def test_quick_ones_are_believed_while_there_is_no_full_one() -> None:
    verdict = judge([timed(0.25, "quick"), timed(0.75, "quick")])
    assert (verdict.latency_s, verdict.quality) == (0.5, "quick")


def test_a_disturbed_measurement_is_believed_only_provisionally_and_only_alone() -> None:
    assert judge([timed(0.2, status="disturbed")]).status == "provisional"
    verdict = judge([timed(0.2, status="disturbed"), timed(0.3, "quick")])
    assert (verdict.latency_s, verdict.status) == (0.3, "valid")


def test_an_imported_latency_stays_marked_until_it_is_measured_here() -> None:
    assert judge([timed(0.2, status="imported")]).status == "imported"
    assert judge([timed(0.2, status="imported"), timed(0.3)]).latency_s == 0.3


def test_a_measurement_that_was_stopped_early_gives_its_highest_lower_bound() -> None:
    verdict = judge([timed(0.5, "censored"), timed(0.7, "censored")])
    assert (verdict.latency_s, verdict.quality, verdict.permanent) == (0.7, "censored", False)
    assert judge([timed(0.5, "censored"), timed(0.9, "quick")]).quality == "quick"


def test_a_permanent_failure_outweighs_every_latency() -> None:
    verdict = judge([timed(0.1), failed("correctness")])
    assert (verdict.latency_s, verdict.invalidity, verdict.permanent) == (None, "correctness", True)


def test_a_transient_failure_is_tried_again_twice_and_then_no_more() -> None:
    for failures in range(1, 5):
        verdict = judge([failed("timeout")] * failures)
        assert verdict.permanent == (failures > MAX_TRANSIENT_RETRIES)
        assert (verdict.invalidity, verdict.transient_failures) == ("timeout", failures)


def test_a_latency_after_a_transient_failure_is_believed() -> None:
    verdict = judge([failed("device_lost"), timed(0.2)])
    assert (verdict.latency_s, verdict.invalidity, verdict.permanent) == (0.2, None, False)


def test_a_record_without_anything_that_counts_is_withdrawn() -> None:
    assert judge([timed(0.2, status="withdrawn")]).status == "withdrawn"
    assert judge([timed(0.2, status="withdrawn"), timed(0.3)]).latency_s == 0.3


EVIDENCE = st.builds(
    lambda latency_s, quality, status, invalidity: Evidence(
        None if invalidity else latency_s, quality, status, invalidity
    ),
    st.floats(1e-6, 10.0),
    st.sampled_from(["quick", "full", "censored"]),
    st.sampled_from(["valid", "disturbed", "provisional", "withdrawn", "imported"]),
    st.none() | st.sampled_from(["compile", "runtime", "timeout", "out_of_memory"]),
)


@given(st.lists(EVIDENCE, max_size=8))
def test_a_verdict_has_either_a_reason_or_a_latency_within_the_measured_ones(evidence: list[Evidence]) -> None:
    verdict = judge(evidence)
    assert verdict.latency_s is None or verdict.invalidity is None
    measured_s = [one.latency_s for one in evidence if one.latency_s is not None]
    assert verdict.latency_s is None or min(measured_s) <= verdict.latency_s <= max(measured_s)
    assert (verdict.latency_s is None) == (verdict.quality is None)
    assert not (verdict.permanent and verdict.latency_s is not None)
    assert judge([*evidence, Evidence(1.0, "full", "withdrawn", None)]) == verdict
