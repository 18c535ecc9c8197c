"""Builds over HTTP: schedules pinned when asked for, an artifact when verified, a reason when not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crosstune.db.engine import transaction
from crosstune.db.repositories import artifacts, builds, projects

if TYPE_CHECKING:
    from tests.service.api.conftest import Api


@pytest.fixture
def target_id(api: Api) -> str:
    api.network()
    return str(api.target()["id"])


def _workload(number: int) -> str:
    return hashlib.sha256(f"workload {number}".encode()).hexdigest()


def _finish(api: Api, build_id: str, tmp_path: Path, refused: str | None = None) -> bytes:
    """What the worker does at the end of a build step."""
    content = b"an artifact"
    (tmp_path / "made.tar").write_bytes(content)
    stored = api.app.state.services.store.put_file("default", "build", tmp_path / "made.tar")
    with transaction(api.engine) as connection:
        artifact = artifacts.add(
            connection,
            project_id=projects.get(connection).id,
            sha256=stored.sha256,
            kind="build",
            size_bytes=stored.size_bytes,
            uri=stored.uri,
            owner=build_id,
        )
        builds.finish(
            connection,
            build_id,
            manifest={"workloads_applied": 2, "workloads_total": 2},
            tvm_version="0.27.0",
            artifact_id=artifact.id if refused is None else None,
            tuned_latency_s=0.01,
            untuned_latency_s=0.03,
            reference_latency_s=0.02,
            largest_error=1e-6,
            refused=refused,
        )
    return content


def _build(api: Api, target_id: str, **changes: Any) -> dict[str, Any]:
    return api.made(api.post("/v1/builds", {"network": "net", "target": target_id, **changes}))


def test_a_build_pins_the_best_schedules_known_now_and_is_made_by_a_step(api: Api, target_id: str) -> None:
    best = api.record(target_id, 0, 0.001, "fast")
    api.record(target_id, 0, 0.002, "slow")
    build = _build(api, target_id, labels={"for": "release"})
    assert build["state"] == "building" and build["labels"] == {"for": "release"}
    (pin,) = build["schedules"]
    assert (pin["workload"], pin["schedule"], pin["label"], pin["latency_s"]) == (_workload(0), best, "measured", 0.001)
    assert pin["expected_latency_s"] is None and build["defaults"] == []
    assert ("build_network", f"hw.{target_id}", {"build_id": build["id"]}) in api.steps()
    api.record(target_id, 0, 0.0005, "faster")
    assert api.get(f"/v1/builds/{build['id']}").json() == build


def test_a_build_takes_what_was_measured_elsewhere_where_nothing_was_measured_here(api: Api, target_id: str) -> None:
    there = api.target(cores=1, name="there")["id"]
    api.record(there, 0, 0.001, "known there")
    moved = api.record(there, 1, 0.004, "known there")
    here = api.record(target_id, 0, 0.003, "known here")
    found = [(pin["schedule"], pin["label"], pin["latency_s"]) for pin in _build(api, target_id)["schedules"]]
    assert found == [(here, "measured", 0.003), (moved, "transferred", 0.004)]


def test_a_build_of_named_schedules_uses_exactly_those(api: Api, target_id: str) -> None:
    api.record(target_id, 0, 0.001, "fast")
    slow = api.record(target_id, 0, 0.002, "slow")
    build = _build(api, target_id, records="pinned", schedules={_workload(0): slow})
    assert [pin["schedule"] for pin in build["schedules"]] == [slow]


def test_pins_that_cannot_be_used_are_refused_and_nothing_is_made(api: Api, target_id: str) -> None:
    failed = api.record(target_id, 0, None, "broken")
    body = {"network": "net", "target": target_id, "records": "pinned"}
    unknown = "0" * 64
    for schedules, text in [
        ({_workload(0): failed}, "failed there (compile)"),
        ({_workload(0): unknown}, "not known"),
        ({unknown: failed}, "no workload"),
    ]:
        problem = api.problem(api.post("/v1/builds", {**body, "schedules": schedules}), 422, "pins-refused")
        assert text in problem["detail"]
    api.problem(api.post("/v1/builds", body), 422, "invalid-request")
    api.problem(
        api.post("/v1/builds", {**body, "records": "best", "schedules": {unknown: failed}}), 422, "invalid-request"
    )
    assert api.get("/v1/builds").json()["items"] == []


def test_a_finished_build_shows_its_figures_and_gives_its_artifact(api: Api, target_id: str, tmp_path: Path) -> None:
    build = _build(api, target_id)
    path = f"/v1/builds/{build['id']}/artifact"
    api.problem(api.get(path), 409, "build-not-ready")
    content = _finish(api, build["id"], tmp_path)
    shown = api.get(f"/v1/builds/{build['id']}").json()
    assert (shown["state"], shown["tuned_latency_s"], shown["workloads_applied"]) == ("succeeded", 0.01, 2)
    response = api.get(path)
    assert response.content == content
    assert response.headers["content-type"] == "application/x-tar"
    assert response.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"' == f'"{shown["artifact"]["sha256"]}"'
    assert build["id"] in response.headers["content-disposition"]


def test_a_build_that_verification_refused_has_no_artifact_and_says_why(
    api: Api, target_id: str, tmp_path: Path
) -> None:
    build = _build(api, target_id)
    _finish(api, build["id"], tmp_path, refused="output 0 differs by 0.3")
    shown = api.get(f"/v1/builds/{build['id']}").json()
    assert (shown["state"], shown["failure"]["code"]) == ("failed", "verification")
    assert "differs by 0.3" in api.problem(api.get(f"/v1/builds/{build['id']}/artifact"), 409, "build-failed")["detail"]


def test_an_artifact_whose_bytes_are_gone_is_gone(api: Api, target_id: str, tmp_path: Path) -> None:
    build = _build(api, target_id)
    _finish(api, build["id"], tmp_path)
    for file in (api.settings.data_dir / "artifacts" / "default" / "build").rglob("*"):
        if file.is_file():
            file.unlink()
    api.problem(api.get(f"/v1/builds/{build['id']}/artifact"), 410, "artifact-gone")


def test_a_build_needs_a_ready_network_and_a_known_target(api: Api, target_id: str) -> None:
    api.upload(b"new", name="new")
    api.problem(api.post("/v1/builds", {"network": "new", "target": target_id}), 409, "network-not-ready")
    api.problem(api.post("/v1/builds", {"network": "net", "target": "other"}), 404, "target-unknown")
    api.problem(api.get("/v1/builds/bld_unknown"), 404, "build-unknown")
    api.problem(api.get("/v1/builds/bld_unknown/artifact"), 404, "build-unknown")


def test_builds_are_listed_and_repeated_with_their_key(api: Api, target_id: str) -> None:
    body = {"network": "net", "target": target_id}
    first = api.post("/v1/builds", body, key="a")
    assert api.post("/v1/builds", body, key="a").json() == first.json()
    other = _build(api, target_id)
    listed = [item["id"] for item in api.get(f"/v1/builds?network=net&target={target_id}").json()["items"]]
    assert listed == [other["id"], first.json()["id"]]
