"""The best known schedules, each with its label, and the records behind them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from crosstune.service.schemas.records import ExportedRecord

if TYPE_CHECKING:
    from tests.service.api.conftest import Api


def test_every_workload_is_answered_with_how_its_schedule_is_known(api: Api) -> None:
    api.network(tasks=3)
    here, there = api.target()["id"], api.target(cores=1, name="one-core")["id"]
    best = api.record(here, 0, 0.001, "fast")
    api.record(here, 0, 0.003, "slow")
    moved = api.record(there, 1, 0.004)
    api.record(here, 2, None, "broken")
    answer = api.get(f"/v1/schedules/best?target={here}&network=net").json()
    found = [
        (item["label"], item["schedule"], item["latency_s"], item["from_target"], item["weight"])
        for item in answer["schedules"]
    ]
    assert found == [
        ("measured", best, 0.001, here, 1),
        ("transferred", moved, 0.004, there, 2),
        ("none", None, None, None, 3),
    ]
    assert answer["latency_s"] is None
    assert all(item["trace"] is None for item in answer["schedules"])


def test_the_network_has_a_latency_once_every_workload_is_measured_here(api: Api) -> None:
    api.network()
    target = api.target()["id"]
    api.record(target, 0, 0.001)
    api.record(target, 1, 0.002)
    answer = api.get("/v1/schedules/best", params={"target": "two-cores", "network": "net", "traces": True}).json()
    assert answer["latency_s"] == pytest.approx(0.001 + 2 * 0.002)
    assert answer["schedules"][0]["trace"][0][0][0] == "SampleCategorical"


def test_a_single_workload_can_be_asked_for(api: Api) -> None:
    workload = api.network()["id"] and api.get("/v1/networks/net/tasks").json()["tasks"][1]["workload"]
    target = api.target()["id"]
    api.record(target, 1, 0.002)
    (item,) = api.get(f"/v1/schedules/best?target={target}&workload={workload}").json()["schedules"]
    assert (item["label"], item["weight"], item["latency_s"]) == ("measured", 1, 0.002)


def test_a_question_that_names_too_much_or_nothing_is_refused(api: Api) -> None:
    api.network()
    target = api.target()["id"]
    for query in (f"target={target}", f"target={target}&network=net&workload={'0' * 64}"):
        api.problem(api.get(f"/v1/schedules/best?{query}"), 422, "selection-refused")
    api.problem(api.get("/v1/schedules/best?network=net"), 422, "invalid-request")
    api.problem(api.get(f"/v1/schedules/best?target={target}&workload={'0' * 64}"), 404, "workload-unknown")
    api.problem(api.get("/v1/schedules/best?target=other&network=net"), 404, "target-unknown")
    api.upload(b"new", name="new")
    api.problem(api.get(f"/v1/schedules/best?target={target}&network=new"), 409, "network-not-ready")


KNOWN = {"model": "epyc-7452", "mcpu": "znver2"}
"""A processor in the table of known hardware."""


def test_what_was_measured_nowhere_is_predicted_where_the_hardware_is_known(api: Api) -> None:
    api.network(tasks=2)
    known, unknown = api.target(**KNOWN, name="known")["id"], api.target()["id"]
    answer = api.get(f"/v1/schedules/best?target={known}&network=net").json()
    for item in answer["schedules"]:
        assert (item["label"], item["latency_s"], item["schedule"]) == ("predicted", None, None)
        assert 0 < item["expected_low_s"] < item["expected_latency_s"] < item["expected_high_s"] < 0.1
    least, most = (
        sum(it["weight"] * it[end] for it in answer["schedules"]) for end in ("expected_low_s", "expected_high_s")
    )
    assert least < answer["expected_low_s"] < answer["expected_latency_s"] < answer["expected_high_s"] < most
    assert answer["latency_s"] is None
    blind = api.get(f"/v1/schedules/best?target={unknown}&network=net").json()
    assert [(item["label"], item["expected_latency_s"]) for item in blind["schedules"]] == [("none", None)] * 2
    assert blind["expected_latency_s"] is None


def test_a_transferred_schedule_has_the_latency_there_and_the_one_expected_here(api: Api) -> None:
    api.network(tasks=1)
    here, there = api.target(**KNOWN, name="here")["id"], api.target(**KNOWN, cores=1, name="there")["id"]
    plain = api.get(f"/v1/schedules/best?target={here}&network=net").json()["schedules"][0]
    slow_s = 20 * plain["expected_latency_s"]
    api.record(there, 0, slow_s)
    (item,) = api.get(f"/v1/schedules/best?target={here}&network=net").json()["schedules"]
    assert (item["label"], item["from_target"], item["latency_s"]) == ("transferred", there, slow_s)
    assert item["expected_latency_s"] > 3 * plain["expected_latency_s"]
    assert item["expected_high_s"] / item["expected_low_s"] < plain["expected_high_s"] / plain["expected_low_s"]
    assert item["expected_low_s"] < item["expected_latency_s"] < item["expected_high_s"]


def test_what_is_measured_is_not_expected_and_counts_exactly_in_the_sum(api: Api) -> None:
    api.network(tasks=2)
    target = api.target(**KNOWN, name="known")["id"]
    api.record(target, 1, 5.0)
    answer = api.get(f"/v1/schedules/best?target={target}&network=net").json()
    assert [item["label"] for item in answer["schedules"]] == ["predicted", "measured"]
    assert answer["schedules"][1]["expected_latency_s"] is None
    assert 10.0 < answer["expected_low_s"] < answer["expected_latency_s"] < answer["expected_high_s"] < 10.1
    api.record(target, 0, 1.0)
    answer = api.get(f"/v1/schedules/best?target={target}&network=net").json()
    assert (answer["latency_s"], answer["expected_latency_s"]) == (11.0, None)


def test_records_are_paged_and_filtered(api: Api) -> None:
    api.network()
    here, there = api.target()["id"], api.target(cores=1, name="one-core")["id"]
    for number in range(5):
        api.record(here, 0, 0.001 + number, f"s{number}")
    broken = api.record(here, 1, None, "broken")
    api.record(there, 1, 0.5)
    seen, cursor = [], None
    while True:
        page = api.get("/v1/records", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    (failed,) = api.get("/v1/records?failed=true").json()["items"]
    assert (failed["schedule"], failed["invalidity"], failed["latency_s"]) == (broken, "compile", None)
    workload = api.get("/v1/networks/net/tasks").json()["tasks"][0]["workload"]
    chosen = api.get("/v1/records", params={"target": here, "workload": workload, "failed": False}).json()["items"]
    assert len(chosen) == 5 and {item["workload"] for item in chosen} == {workload}
    assert len(api.get(f"/v1/records?network=net&target={there}").json()["items"]) == 1
    api.problem(api.get("/v1/records?target=other"), 404, "target-unknown")
    api.problem(api.get("/v1/records?workload=short"), 422, "invalid-request")


def test_an_export_has_one_line_per_record_with_trace_and_measurements(api: Api) -> None:
    api.network()
    target = api.target()["id"]
    for number in range(4):
        api.record(target, 0, 0.001 + number, f"s{number}")
    api.record(target, 1, None, "broken")
    response = api.get("/v1/records/export?format=ndjson")
    assert response.headers["content-type"].startswith("application/x-ndjson")
    lines = [ExportedRecord.model_validate(json.loads(line)) for line in response.text.splitlines()]
    assert [line.latency_s for line in lines] == [0.001, 1.001, 2.001, 3.001, None]
    assert all(line.trace and line.measurements for line in lines)
    assert lines[-1].measurements[0].invalidity == "compile"
    assert len(api.get("/v1/records/export?failed=true").text.splitlines()) == 1
    api.problem(api.get("/v1/records/export?target=other"), 404, "target-unknown")
    api.problem(api.get("/v1/records/export?format=pickle"), 422, "invalid-request")
