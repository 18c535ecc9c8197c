"""Targets over HTTP: described, detected, stored once by identity; devices and workers beside them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

TARGET = {"mcpu": "znver4", "cores": 2, "model": "Test Silicon 1"}


def test_a_described_target_is_new_once_and_known_afterwards(api: Api) -> None:
    first = api.post("/v1/targets", {**TARGET, "name": "mine", "labels": {"rack": "7"}})
    again = api.post("/v1/targets", TARGET)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == api.get("/v1/targets/mine").json()
    assert first.json()["labels"] == {"rack": "7"}
    assert api.get("/v1/targets").json()["items"] == [first.json()]


@pytest.mark.parametrize(
    "change", [{"cores": 1}, {"model": "Test Silicon 2"}, {"mattr": ["-avx512f"]}, {"mcpu": "znver3"}]
)
def test_whatever_a_compiler_must_know_makes_another_target(api: Api, change: dict[str, Any]) -> None:
    first = api.made(api.post("/v1/targets", TARGET))
    other = api.post("/v1/targets", TARGET | change)
    assert other.status_code == 201
    assert other.json()["identity"] != first["identity"] and other.json()["name"] != first["name"]


def test_a_name_of_another_target_is_refused(api: Api) -> None:
    first = api.target(name="mine")
    assert (
        api.problem(api.post("/v1/targets", TARGET | {"cores": 1, "name": "mine"}), 409, "name-taken")["holder"]
        == first["id"]
    )
    assert len(api.get("/v1/targets").json()["items"]) == 1


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"cores": None}, "body.cores"),
        ({"cores": 0}, "body.cores"),
        ({"cores": -2}, "body.cores"),
        ({"model": ""}, "body.model"),
        ({"mattr": ["avx2"]}, "body.mattr.0"),
        ({"kind": "cuda"}, "body.kind"),
        ({"speed": 1}, "body.speed"),
    ],
)
def test_a_target_without_cores_or_with_wrong_members_is_refused(api: Api, change: dict[str, Any], where: str) -> None:
    problem = api.problem(api.post("/v1/targets", TARGET | change), 422, "invalid-request")
    assert where in [item["where"] for item in problem["errors"]]


def test_a_target_that_leaves_its_cores_out_is_refused(api: Api) -> None:
    problem = api.problem(api.post("/v1/targets", {"mcpu": "znver4", "model": "m"}), 422, "invalid-request")
    assert problem["errors"] == [{"where": "body.cores", "problem": "Field required"}]


def test_a_processor_that_the_compiler_does_not_know_is_refused_with_what_is_near(api: Api) -> None:
    assert (
        "znver" in api.problem(api.post("/v1/targets", TARGET | {"mcpu": "znver99"}), 422, "target-refused")["detail"]
    )


def test_this_machine_is_detected_with_attributes_and_its_device(api: Api) -> None:
    found = api.post("/v1/targets/detect")
    assert found.status_code == 201
    target = found.json()
    assert target["attributes"]["model"] == {"value": target["model"], "origin": "detected"}
    assert target["cores"] <= (os.cpu_count() or 1)
    assert len(target["devices"]) == 1
    device = api.get(f"/v1/devices/{target['devices'][0]}").json()
    assert (device["kind"], device["state"], device["targets"]) == ("local", "active", [target["id"]])
    assert not device["live"] and not device["measuring"]
    assert [kind for kind, _, _ in api.steps()] == ["calibrate"]
    assert api.post("/v1/targets/detect").status_code == 200
    assert len(api.steps()) == 1, "a known target is not calibrated again"


def test_one_machine_stands_for_several_targets_through_one_device(api: Api) -> None:
    whole = api.made(api.post("/v1/targets/detect"))
    generic = api.made(api.post("/v1/targets/detect", {"mcpu": "x86-64-v2", "cores": 1, "name": "old"}))
    by_hand = api.made(
        api.post("/v1/targets", {"mcpu": "x86-64-v2", "cores": 1, "model": whole["model"], "mattr": ["-sse4.2"]})
    )
    assert whole["devices"] == generic["devices"] == by_hand["devices"]
    assert len(api.get("/v1/devices").json()["items"]) == 1


def test_what_this_machine_cannot_stand_for_is_refused(api: Api) -> None:
    assert "cores" in api.problem(api.post("/v1/targets/detect", {"cores": 1000}), 422, "target-refused")["detail"]


def test_a_device_is_paused_resumed_and_drained(api: Api) -> None:
    target = api.target()
    device = api.worker(target["id"])
    assert api.get(f"/v1/targets/{target['id']}").json()["devices"] == [device]
    for verb, state in [("pause", "paused"), ("pause", "paused"), ("resume", "active"), ("drain", "draining")]:
        assert api.made(api.post(f"/v1/devices/{device}/{verb}"))["state"] == state
    assert api.get("/v1/devices/machine-1").json()["live"]
    api.problem(api.post("/v1/devices/machine-2/pause"), 404, "device-unknown")


def test_workers_are_listed_with_their_liveness(api: Api) -> None:
    api.worker()
    (worker,) = api.get("/v1/workers").json()["items"]
    assert (worker["host"], worker["live"], worker["draining"]) == ("machine-1", True, False)


def test_calibration_is_a_step_for_the_device_of_the_target(api: Api) -> None:
    target = api.target()
    path = f"/v1/targets/{target['id']}/calibrate"
    api.problem(api.post(path), 409, "no-device")
    device = api.worker(target["id"])
    api.problem(api.post(path, {"device": "nowhere"}), 404, "device-unknown")
    response = api.post(path, key="once")
    assert response.status_code == 202
    assert api.post(path, key="once").json() == response.json()
    assert api.steps() == [
        ("calibrate", f"hw.{target['id']}", {"target_id": target["id"], "device_id": device}),
    ]


def test_a_target_named_with_a_device_can_be_measured_by_it(api: Api) -> None:
    device = api.worker()
    assert api.target(device="machine-1")["devices"] == [device]
    api.problem(api.post("/v1/targets", TARGET | {"cores": 1, "device": "nowhere"}), 404, "device-unknown")
    assert len(api.get("/v1/targets").json()["items"]) == 1


def test_an_unknown_target_is_told_with_those_that_are_known(api: Api) -> None:
    api.target(name="mine")
    assert api.problem(api.get("/v1/targets/yours"), 404, "target-unknown")["known"] == ["mine"]
