"""What is refused before a route sees it, and the one form in which everything is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute

from crosstune.service.app import create_app
from crosstune.service.principal import Principal, Reader, principal
from crosstune.service.settings import Settings

if TYPE_CHECKING:
    from tests.service.api.conftest import Api


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8642", "127.0.0.1:80", "[::1]", "[::1]:8642"])
def test_the_usual_names_of_this_machine_are_served(api: Api, host: str) -> None:
    assert api.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io:8642", "localhost:80:80", "[::1", "::1"]
)
def test_a_name_that_somebody_pointed_at_this_machine_is_not(api: Api, host: str) -> None:
    problem = api.problem(api.get("/livez", headers={"Host": host}), 400, "host-refused")
    assert "CROSSTUNE_ALLOWED_HOSTS" in problem["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_web_page_of_another_origin_cannot_call(api: Api, method: str, headers: dict[str, str]) -> None:
    api.problem(api.client.request(method, "/v1/jobs", headers=headers), 403, "origin-refused")


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_its_own_pages_and_the_address_bar_can(api: Api, headers: dict[str, str]) -> None:
    assert api.get("/v1/jobs", headers=headers).status_code == 200


def test_a_trusted_origin_can_be_added(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"allowed_origins": ("http://localhost:3000",)}))
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        headers = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}
        assert client.get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_a_form_without_script_cannot_post_json(api: Api, content_type: str) -> None:
    response = api.client.post("/v1/jobs", content=b"{}", headers={"Content-Type": content_type})
    assert api.problem(response, 415, "content-type-refused")["wanted"] == ["application/json"]


def test_an_upload_must_say_that_it_is_bytes(api: Api) -> None:
    response = api.client.post("/v1/networks", content=b"x", headers={"Content-Type": "text/plain"})
    assert api.problem(response, 415, "content-type-refused")["wanted"] == ["application/octet-stream"]


def test_json_with_a_character_set_is_json(api: Api) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert api.client.post("/v1/targets/detect", content=b'{"cores": 0}', headers=headers).status_code == 422


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_refused_whether_or_not_its_length_is_announced(api: Api, announced: bool) -> None:
    for path, kind, limit in [
        ("/v1/networks", "application/octet-stream", api.settings.max_upload_bytes),
        ("/v1/jobs", "application/json", api.settings.max_json_bytes),
    ]:
        body = b"1" * (limit + 1)
        content = body if announced else iter([body[:100], body[100:]])
        response = api.client.post(path, content=content, headers={"Content-Type": kind})
        assert api.problem(response, 413, "body-too-large")["limit_bytes"] == limit
    files = [path for path in (api.settings.data_dir / "artifacts").rglob("*") if path.is_file()]
    assert files == [], "nothing of a refused upload is kept"


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/jobs/", 404, "not-found"),
        ("GET", "/%00", 404, "not-found"),
        ("DELETE", "/v1/jobs", 405, "method-not-allowed"),
        ("PUT", "/livez", 405, "method-not-allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid-request"),
        ("GET", "/v1/jobs?limit=201", 422, "invalid-request"),
        ("GET", "/v1/jobs?cursor=zzz", 422, "cursor-refused"),
        ("GET", "/v1/jobs/%F0%9F%98%80", 422, "invalid-request"),
        ("GET", "/v1/jobs/job_unknown", 404, "job-unknown"),
    ],
)
def test_every_refusal_is_a_problem(api: Api, method: str, path: str, status: int, slug: str) -> None:
    api.problem(api.client.request(method, path), status, slug)


def test_broken_json_and_wrong_values_are_named(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    broken = api.client.post("/v1/jobs", content=b'{"network": ', headers=headers)
    assert "JSON" in api.problem(broken, 422, "invalid-request")["detail"]
    wrong = api.problem(api.post("/v1/jobs", {"network": "n", "target": "t", "bugdet": {}}), 422, "invalid-request")
    assert {item["where"] for item in wrong["errors"]} == {"body.budget", "body.bugdet"}


def test_a_defect_is_answered_without_its_traceback(settings: Settings) -> None:
    app = create_app(settings)
    router = APIRouter()

    @router.get("/defect")
    def defect(caller: Reader) -> None:
        raise RuntimeError("secret detail")

    app.include_router(router)
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        response = client.get("/defect")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["trace_id"] == response.headers["x-trace-id"]
    assert "secret" not in response.text


def test_every_answer_has_the_safe_headers(api: Api) -> None:
    for response in (api.get("/livez"), api.get("/nothing"), api.get("/livez", headers={"Host": "x"})):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-trace-id"]
        assert "server" not in response.headers


def test_every_route_asks_for_a_principal_with_a_scope(api: Api) -> None:
    routes = [route for route in _routes(api.app) if isinstance(route, APIRoute)]
    assert len(routes) > 30
    for route in routes:
        scopes = [
            scope
            for dependant in _flat(route.dependant)
            if dependant.call is principal
            for scope in dependant.own_oauth_scopes or ()
        ]
        assert scopes, f"{route.path} has no principal"
    assert {type(route) for route in _routes(api.app)} == {APIRoute}


def test_a_caller_of_another_machine_is_not_answered(api: Api) -> None:
    with TestClient(api.app, base_url="http://localhost", client=("192.168.1.9", 50000)) as client:
        for path in ("/livez", "/v1/jobs", "/openapi.json"):
            api.problem(client.get(path), 403, "not-loopback")


def test_a_principal_without_the_scope_is_refused(api: Api) -> None:
    services = api.app.state.services
    everything = services.default_principal
    services.default_principal = Principal(everything.project_id, everything.project_key, "p", frozenset())
    assert api.problem(api.get("/v1/jobs"), 403, "scope-missing")["scopes"] == ["read"]


def _routes(app: FastAPI) -> list[BaseRoute]:
    """Every route, also those of included routers."""
    return [route for context in iter_route_contexts(app.routes) if (route := context.original_route)]


def _flat(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _flat(inner)


def test_more_writes_at_once_than_are_admitted_are_told_to_come_back_and_reads_are_not(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_writes": 1}))
    entered, leave = threading.Event(), threading.Event()

    @app.post("/v1/slow")
    def slow() -> None:
        entered.set()
        leave.wait(10)

    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1)) as client:
        first = ThreadPoolExecutor(1).submit(client.post, "/v1/slow")
        assert entered.wait(10)
        refused = client.post("/v1/slow")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["type"].endswith("too-busy")
        assert client.get("/livez").status_code == 200
        leave.set()
        assert first.result(10).status_code == 200
        assert client.post("/v1/slow").status_code == 200
