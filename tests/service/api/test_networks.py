"""Networks over HTTP: uploaded once, imported by a step, shown and deleted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crosstune.service.networks import parse_shapes

if TYPE_CHECKING:
    from tests.service.api.conftest import Api


def _artifact_files(api: Api) -> list[Path]:
    return [path for path in (api.settings.data_dir / "artifacts").rglob("*") if path.is_file()]


def test_a_new_upload_is_stored_and_waits_for_its_import(api: Api) -> None:
    response = api.upload(b"onnx bytes", name="resnet", shape=["x:1,3,224,224", "mask:1"])
    assert response.status_code == 202
    network = response.json()
    assert network["state"] == "importing"
    assert network["content_sha256"] == hashlib.sha256(b"onnx bytes").hexdigest()
    assert network["size_bytes"] == 10
    assert network["shapes"] == {"x": [1, 3, 224, 224], "mask": [1]}
    assert api.steps() == [("import", "crosstune", {"network_id": network["id"]})]
    assert [path.read_bytes() for path in _artifact_files(api)] == [b"onnx bytes"]
    assert api.get("/v1/networks/resnet").json() == network
    assert api.get(f"/v1/networks/{network['id']}/tasks").json()["tasks"] == []


def test_the_same_content_again_is_the_same_network_and_no_second_import(api: Api) -> None:
    first = api.upload().json()
    again = api.upload()
    assert (again.status_code, again.json()) == (200, first)
    assert len(api.steps()) == len(_artifact_files(api)) == 1


def test_the_same_bytes_with_other_shapes_are_another_network(api: Api) -> None:
    first, second = api.upload(shape="x:1,8"), api.upload(shape="x:2,8")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["name"] != second.json()["name"]
    assert len(_artifact_files(api)) == 1


def test_a_name_that_belongs_to_other_content_is_refused_and_nothing_is_stored(api: Api) -> None:
    first = api.upload(b"one", name="net").json()
    problem = api.problem(api.upload(b"two", name="net"), 409, "name-taken")
    assert problem["holder"] == first["id"]
    assert [path.read_bytes() for path in _artifact_files(api)] == [b"one"]
    assert len(api.steps()) == 1


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("x", "cannot be read"),
        ("x:", "cannot be read"),
        ("x:1,-1", "cannot be read"),
        ("x:1,N", "cannot be read"),
        ("x:0,3", "between 1 and"),
        ("x:1048577", "between 1 and"),
        ("x:1048576,1048576", "elements"),
        ("x:" + ",".join("1" * 9), "dimensions"),
    ],
)
def test_a_shape_that_cannot_be_used_is_named_with_the_right_form(api: Api, shape: str, reason: str) -> None:
    problem = api.problem(api.upload(shape=shape), 422, "shape-refused")
    assert reason in problem["detail"] and "input:1,3,224,224" in problem["detail"]
    assert api.get("/v1/networks").json()["items"] == []


def test_an_input_name_may_hold_a_colon_but_comes_once() -> None:
    assert parse_shapes(["serving:x:0:1,2"]) == {"serving:x:0": [1, 2]}
    with pytest.raises(Exception, match="second time"):
        parse_shapes(["x:1", "x:2"])


def test_an_empty_upload_and_a_wrong_name_are_refused(api: Api) -> None:
    api.problem(api.upload(b""), 422, "upload-empty")
    api.problem(api.upload(name="../etc"), 422, "invalid-request")
    assert _artifact_files(api) == []


def test_a_refused_network_says_why(api: Api) -> None:
    network = api.upload().json()
    api.refuse(network["id"])
    shown = api.get(f"/v1/networks/{network['id']}").json()
    assert shown["state"] == "refused"
    assert shown["failure"] == {"code": "unsupported-operator", "detail": "operator Foo is not supported"}
    assert api.upload().json() == shown


def test_a_ready_network_shows_its_tasks_in_order_with_weights(api: Api) -> None:
    network = api.network(tasks=3)
    assert (network["state"], network["task_count"], network["layout"]) == ("ready", 3, "NHWC")
    assert network["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 8]}]
    tasks = api.get("/v1/networks/net/tasks").json()["tasks"]
    assert [task["weight"] for task in tasks] == [1, 2, 3]
    assert tasks[0]["arguments"] == [{"dtype": "float32", "shape": [1, 8]}] * 2


def test_a_deleted_network_loses_its_bytes_and_frees_its_name(api: Api) -> None:
    network = api.network()
    assert api.client.delete("/v1/networks/net").status_code == 204
    assert _artifact_files(api) == []
    api.problem(api.get(f"/v1/networks/{network['id']}"), 404, "network-unknown")
    api.problem(api.client.delete("/v1/networks/net"), 404, "network-unknown")
    assert api.upload(b"another", name="net").status_code == 202


def test_bytes_that_another_network_needs_stay(api: Api) -> None:
    for name, shape in [("one", "x:1"), ("two", "x:2")]:
        api.refuse(api.upload(name=name, shape=shape).json()["id"])
    api.client.delete("/v1/networks/one")
    assert len(_artifact_files(api)) == 1
    api.client.delete("/v1/networks/two")
    assert _artifact_files(api) == []


def test_a_network_cannot_be_deleted_from_under_its_import(api: Api) -> None:
    api.upload(name="net")
    assert api.problem(api.client.delete("/v1/networks/net"), 409, "network-in-use")["used_by"] == ["its import"]


def test_a_network_that_an_unfinished_job_needs_cannot_be_deleted(api: Api) -> None:
    api.network()
    job = api.made(api.post("/v1/jobs", {"network": "net", "target": api.target()["id"], "budget": {"trials": 1}}))
    assert api.problem(api.client.delete("/v1/networks/net"), 409, "network-in-use")["used_by"] == [job["id"]]
    api.post(f"/v1/jobs/{job['id']}/cancel")
    assert api.client.delete("/v1/networks/net").status_code == 204


def test_pages_go_newest_first_and_end(api: Api) -> None:
    names = [f"n{number}" for number in range(5)]
    for name in names:
        api.upload(name.encode(), name=name)
    seen, cursor = [], None
    while True:
        page = api.get("/v1/networks", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == names[::-1]
    api.problem(
        api.get("/v1/jobs", params={"cursor": api.get("/v1/networks?limit=1").json()["next"]}), 422, "cursor-refused"
    )


def test_networks_can_be_listed_by_state(api: Api) -> None:
    api.network("done")
    api.upload(b"new", name="new")
    assert [item["name"] for item in api.get("/v1/networks?state=ready").json()["items"]] == ["done"]
    assert [item["name"] for item in api.get("/v1/networks?state=importing").json()["items"]] == ["new"]


def test_an_unknown_network_is_told_with_those_that_are_known(api: Api) -> None:
    api.upload(name="resnet")
    problem = api.problem(api.get("/v1/networks/resnot"), 404, "network-unknown")
    assert problem["known"] == ["resnet"] and "resnet" in problem["detail"]
