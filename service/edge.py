"""What every request passes before a route sees it, and every answer on its way out.

A loopback port can be reached by any web page in a browser on the same machine: by its own script (Origin,
Sec-Fetch-Site), by a form without script (content type), and by a name that resolves to 127.0.0.1 (Host). Each is
refused here. Defects end here too: the log gets the traceback, the caller a trace id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosstune.service import tracing
from crosstune.service.errors import (
    BodyTooLarge,
    ContentTypeRefused,
    HostRefused,
    OriginRefused,
    ServiceError,
    TooBusy,
)
from crosstune.service.problems import INTERNAL, MEDIA_TYPE, encoded, problem_body, problem_of
from crosstune.service.settings import Settings

logger = logging.getLogger(__name__)

UPLOAD_PATHS: Final = ("/v1/networks", "/v1/records/import")
UPLOAD_TYPES: Final = ("application/octet-stream",)
JSON_TYPES: Final = ("application/json",)
TRACE_HEADER: Final = "x-trace-id"
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
TOO_MANY: Final = 429
RETRY_S: Final = 1

SAFE_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.hosts = frozenset(settings.allowed_hosts)
        self.allowed_hosts = settings.allowed_hosts
        self.origins = frozenset(settings.allowed_origins)
        self.max_upload_bytes = settings.max_upload_bytes
        self.max_json_bytes = settings.max_json_bytes
        self.max_writes = settings.max_writes
        self._writes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace_id = uuid4().hex
        scope["crosstune.trace_id"] = trace_id
        body = _Body(receive, self.max_upload_bytes if _is_upload(scope) else self.max_json_bytes)
        answer = _Answer(send, trace_id, body)
        try:
            self._check(scope, body.limit_bytes)
            with self._admitted(scope), _traced(scope):
                await self.app(scope, body.receive, answer.send)
        except ServiceError as error:
            status, facts = problem_of(error, trace_id)
            await answer.problem(status, encoded(facts))
        except Exception:
            logger.exception("request failed, trace %s: %s %s", trace_id, scope["method"], scope["path"])
            if answer.started:
                raise  # the server cuts the connection, so that half an answer is not taken for a whole one
            detail = f"the request could not be completed; the service's log has the cause under trace {trace_id}"
            await answer.problem(500, encoded(problem_body(INTERNAL, detail, trace_id)))

    @contextmanager
    def _admitted(self, scope: Scope) -> Iterator[None]:
        """What is not answered at once only waits for the database, and would time out there."""
        if scope["method"] in READS:
            yield
            return
        if self._writes >= self.max_writes:
            raise TooBusy(self.max_writes)
        self._writes += 1
        try:
            yield
        finally:
            self._writes -= 1

    def _check(self, scope: Scope, limit_bytes: int) -> None:
        headers = Headers(scope=scope)
        host = self._check_host(headers)
        self._check_origin(headers, scope, host)
        _check_body(headers, scope, limit_bytes)

    def _check_host(self, headers: Headers) -> str:
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if _without_port(host) not in self.hosts:
            raise HostRefused(", ".join(hosts), self.allowed_hosts)
        return host

    def _check_origin(self, headers: Headers, scope: Scope, host: str) -> None:
        trusted = {f"{scope['scheme']}://{host}", *self.origins}
        origins = [origin.lower() for origin in headers.getlist("origin")]
        if any(origin not in trusted for origin in origins):
            raise OriginRefused(f"the request comes from {', '.join(origins)[:100]}")
        site = headers.get("sec-fetch-site", "none")
        if site not in {"none", "same-origin"} and not origins:
            raise OriginRefused(f"the browser says the request is {site[:20]}")


def _traced(scope: Scope) -> AbstractContextManager[None]:
    """Requests that change something; a caller that is traced itself says so."""
    if scope["method"] in READS:
        return nullcontext()
    return tracing.span(f"{scope['method']} {scope['path']}", Headers(scope=scope).get(tracing.TRACEPARENT))


def _check_body(headers: Headers, scope: Scope, limit_bytes: int) -> None:
    if scope["method"] in {"GET", "HEAD", "OPTIONS", "DELETE"}:
        return
    length = headers.get("content-length", "")
    has_body = "transfer-encoding" in headers or length not in {"", "0"}
    wanted = UPLOAD_TYPES if _is_upload(scope) else JSON_TYPES
    got = headers.get("content-type", "")
    if (has_body or got) and got.split(";")[0].strip().lower() not in wanted:
        raise ContentTypeRefused(got, wanted)
    if length.isascii() and length.isdigit() and int(length[:20]) > limit_bytes:
        raise BodyTooLarge(limit_bytes)


def _is_upload(scope: Scope) -> bool:
    return scope["path"] in UPLOAD_PATHS


class _Body:
    """The way in: counts the bytes, whatever length was announced, and stops at the limit."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive = receive
        self.limit_bytes = limit_bytes
        self.too_large = False
        self._received_bytes = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received_bytes += len(message.get("body", b""))
            if self._received_bytes > self.limit_bytes:
                self.too_large = True
                raise BodyTooLarge(self.limit_bytes)
        return message


class _Answer:
    """The way out: adds the headers that every answer has and remembers whether one has begun.

    Whatever a framework made of the error that ended too large a body, the caller is told of the body.
    """

    def __init__(self, send: Send, trace_id: str, body: _Body) -> None:
        self._send = send
        self._body = body
        self.trace_id = trace_id
        self.started = False

    async def send(self, message: Message) -> None:
        if self._body.too_large:
            if not self.started:
                status, body = problem_of(BodyTooLarge(self._body.limit_bytes), self.trace_id)
                await self._problem(status, encoded(body))
            return
        await self._pass_on(message)

    async def problem(self, status: int, body: bytes) -> None:
        if not self.started:
            await self._problem(status, body)

    async def _problem(self, status: int, body: bytes) -> None:
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        if status == TOO_MANY:
            headers.append((b"retry-after", str(RETRY_S).encode()))
        await self._pass_on({"type": "http.response.start", "status": status, "headers": headers})
        await self._pass_on({"type": "http.response.body", "body": body})

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in SAFE_HEADERS.items():
                headers.setdefault(name, value)
            headers[TRACE_HEADER] = self.trace_id
        await self._send(message)


def _without_port(host: str) -> str:
    """`localhost:80` -> `localhost`, `[::1]:80` -> `[::1]`; anything else unchanged."""
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() and not (name.startswith("[") and not name.endswith("]")) else host
