"""The OpenAPI description: every operation answers problems in one form.

`python -m crosstune.service.openapi` rewrites docs/openapi.json, which a test compares with what the service says.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from crosstune.service.problems import Problem, answer
from crosstune.service.schemas.jobs import JobEvent
from crosstune.service.schemas.records import ExportedRecord

REFERENCE = "#/components/schemas/{model}"
UNROUTED: tuple[type[BaseModel], ...] = (Problem, JobEvent, ExportedRecord)
"""Models of answers that FastAPI does not find by itself: problems, and lines of streams."""


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer the description below, computed once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def describe(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    _, definitions = models_json_schema([(model, "serialization") for model in UNROUTED], ref_template=REFERENCE)
    components.update(definitions["$defs"])
    schema["components"]["schemas"] = dict(sorted(components.items()))
    for path in schema["paths"].values():
        for operation in path.values():
            _complete(operation)
    return schema


def _complete(operation: dict[str, Any]) -> None:
    """Every operation can find its request not valid, and can end in a problem that is not its own."""
    responses = operation["responses"]
    own = responses.get("422", {}).get("description", "")
    titles = ["Request is not valid"] + ([own] if own not in {"", "Validation Error"} else [])
    responses["422"] = answer(titles)
    responses["default"] = answer(["Any other problem"])


def committed_path() -> Path:
    """docs/openapi.json of the source tree."""
    return Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def render() -> str:
    """The description of this version as it is committed."""
    from crosstune.service.app import create_app
    from crosstune.service.settings import read_settings

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(read_settings(data_dir=Path(folder), embedded_worker=False))
        return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    committed_path().write_text(render())
    sys.stdout.write(f"{committed_path()}\n")
