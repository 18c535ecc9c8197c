"""A job is one trace, from the request through the queue to the worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import steps
from crosstune.service import tracing
from crosstune.service.settings import Settings, SettingsRefused, read_settings
from crosstune.service.worker import EXECUTORS, Worker


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


def enqueue(engine: Engine, name: str) -> str:
    with transaction(engine) as connection:
        return steps.enqueue(connection, kind="import", queue="crosstune", project_id="default", input={"name": name})


def test_what_a_request_adds_and_what_that_adds_are_spans_of_one_trace(
    engine: Engine, tmp_path: Path, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[str] = []

    def execute(context: Any, claim: steps.Claim, held: Any) -> None:
        if claim.input["name"] == "first":
            added.append(enqueue(engine, "second"))
        with transaction(engine) as connection:
            steps.finish(connection, claim)

    monkeypatch.setitem(EXECUTORS, "import", execute)
    url = engine.url.render_as_string(hide_password=False)
    worker = Worker(Settings(data_dir=tmp_path / "data", database_url=url), engine)
    with tracing.span("POST /v1/networks", None):
        first = enqueue(engine, "first")
    worker.run_step(first)
    worker.run_step(added[0])
    worker.context.close()
    request, one, two = spans.get_finished_spans()
    assert [one.name for one in (request, one, two)] == ["POST /v1/networks", "import", "import"]
    assert parent(one) == context(request) and parent(two) == context(one)
    assert one.attributes is not None and one.attributes["crosstune.step"] == first


def context(span: ReadableSpan) -> tuple[int, int]:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def parent(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


def test_a_caller_that_is_traced_itself_is_where_the_trace_begins(spans: InMemorySpanExporter) -> None:
    with tracing.span("POST /v1/jobs", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        pass
    (request,) = spans.get_finished_spans()
    assert parent(request) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)


def test_without_a_collector_steps_hold_nothing_of_traces(engine: Engine) -> None:
    with tracing.span("POST /v1/networks", None):
        step = enqueue(engine, "only")
    with transaction(engine) as connection:
        claim = steps.claim(connection, step, "me", 10.0)
    assert claim is not None and claim.input == {"name": "only"}


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(SettingsRefused, match="CROSSTUNE_OTLP_ENDPOINT"):
        read_settings(otlp_endpoint="collector:4318")
