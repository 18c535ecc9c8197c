"""The committed description is what the service says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crosstune.service.openapi import committed_path, render

if TYPE_CHECKING:
    from tests.service.api.conftest import Api


def _operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in schema["paths"].values() for operation in path.values()]


def test_the_committed_description_is_current() -> None:
    assert committed_path().read_text() == render(), "run: python -m crosstune.service.openapi"


def test_the_service_answers_the_committed_description(api: Api) -> None:
    assert api.get("/openapi.json").json() == json.loads(committed_path().read_text())


def test_every_operation_has_a_method_name_a_summary_and_problems() -> None:
    operations = _operations(json.loads(committed_path().read_text()))
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) and all(name.isidentifier() for name in names)
    for operation in operations:
        assert operation["summary"]
        for status, response in operation["responses"].items():
            if status == "default" or (status.startswith("4") and status != "404"):
                assert list(response["content"]) == ["application/problem+json"]


def test_every_reference_resolves() -> None:
    text = committed_path().read_text()
    schemas = json.loads(text)["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)
    assert "HTTPValidationError" not in schemas
