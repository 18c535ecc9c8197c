"""Generated requests against the application in process: no defect, and every answer as described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from crosstune.service.openapi import committed_path

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

EXAMPLES = 15
"""Requests per operation, some 450 in all: half a minute."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EVENTS_PATH = "/v1/jobs/{job}/events"
"""The stream of a live job has no end; test_events covers it."""


def _operations() -> list[Any]:
    schema = schemathesis.openapi.from_path(str(committed_path()))
    found = [result.ok() for result in schema.get_all_operations()]
    return [operation for operation in found if operation.path != EVENTS_PATH]


@pytest.mark.parametrize("operation", _operations(), ids=lambda operation: operation.label)
def test_no_request_finds_a_defect_or_an_answer_that_is_not_described(api: Api, operation: Any) -> None:
    api.network("a")
    target = api.target(name="b")
    api.worker(target["id"])
    api.record(target["id"], 0, 0.001)
    job = api.made(api.post("/v1/jobs", {"network": "a", "target": "b", "budget": {"trials": 1}}))
    build = api.made(api.post("/v1/builds", {"network": "a", "target": "b"}))
    names = {"network": "a", "target": "b", "device": "machine-1", "job": job["id"], "build": build["id"]}
    cases = operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE)

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases, known=st.booleans())  # `known`: what the request is about exists
    def run(case: Any, known: bool) -> None:
        if known:
            _name_what_exists(case, names)
        response = api.client.request(**_request(case))
        case.validate_response(response, checks=CHECKS)

    run()


def _name_what_exists(case: Any, names: dict[str, str]) -> None:
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            part.update({name: value for name, value in names.items() if name in part})


def _request(case: Any) -> dict[str, Any]:
    """The case in the words of httpx; a header that HTTP cannot carry is left out."""
    given_ = case.as_transport_kwargs(base_url="http://localhost")
    headers = {
        name: value
        for name, value in dict(given_.get("headers") or {}).items()
        if isinstance(value, str) and value.isascii() and value.isprintable()
    }
    return {
        "method": given_["method"],
        "url": given_["url"],
        "params": given_.get("params"),
        "headers": headers,
        **({"json": given_["json"]} if "json" in given_ else {"content": given_.get("data")}),
    }
