"""OpenTelemetry traces from a request through the queue to the worker: `CROSSTUNE_OTLP_ENDPOINT` names the collector.

A step remembers the request, or the step, that added it (W3C traceparent), so that a job is one trace on however many
machines. Without the setting nothing of OpenTelemetry is imported: `pip install 'crosstune[traces]'` brings it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from crosstune.db.repositories.step_values import CAUSE
from crosstune.service.settings import Settings
from crosstune.tuner.contracts import CrosstuneError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

NAME = "crosstune"
TRACEPARENT = "traceparent"

_provider: TracerProvider | None = None


class TracingRefused(CrosstuneError):
    """Traces are wanted and what sends them is not installed."""


def configure(settings: Settings) -> None:
    """Once for each process, before it works. Raises TracingRefused."""
    if settings.otlp_endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as missing:
        raise TracingRefused(f"sending traces needs {missing.name}: pip install 'crosstune[traces]'") from missing
    provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{settings.otlp_endpoint}/v1/traces")))
    use(provider)


def use(provider: TracerProvider | None) -> None:
    """Where spans go from now on; None: nowhere."""
    global _provider
    _provider = provider


def flush() -> None:
    """Send what is left, before the process ends."""
    if _provider is not None:
        _provider.shutdown()


@contextmanager
def span(name: str, parent: str | None, **attributes: str | int | None) -> Iterator[None]:
    """A span around the block, under `parent` (a traceparent) or at the root; steps that the block adds point to it.

    An error that leaves the block is told by the span.
    """
    if _provider is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    above = propagator.extract({} if parent is None else {TRACEPARENT: parent})
    given = {f"{NAME}.{key}": value for key, value in attributes.items() if value is not None}
    tracer = _provider.get_tracer(NAME)
    with tracer.start_as_current_span(name, context=above, attributes=given):
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        token = CAUSE.set(carrier.get(TRACEPARENT))
        try:
            yield
        finally:
            CAUSE.reset(token)
