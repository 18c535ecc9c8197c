"""HTTP with the retries that are safe: a request is sent again only when a second arrival changes nothing."""

from __future__ import annotations

import ipaddress
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from crosstune.service.client.errors import ApiError, ClientError, ServiceUnreachable

SAFE_METHODS = frozenset({"GET", "HEAD", "DELETE"})
BUSY_STATUSES = frozenset({429, 502, 503, 504})
HEARTBEAT_TIMEOUT_S = 45.0
"""Three of the service's 15 s heartbeats: a stream silent for so long is dead and is opened again."""


class Transport:
    """One connection pool to one service. Not for sharing between threads that close it."""

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float, attempts: int = 4, pause_s: float = 0.2
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.attempts = attempts
        self.pause_s = pause_s
        self._answered = False
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(self.base_url),
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accepted: Sequence[int] = (),
    ) -> httpx.Response:
        """The successful answer, or one with a status in `accepted`.

        A POST carries an Idempotency-Key made here unless `headers` bring one.

        :raises ApiError: the service refused; nothing was retried that it had decided.
        :raises ServiceUnreachable: every attempt ended without an answer.
        """
        sent = dict(headers or {})
        if method not in SAFE_METHODS:
            sent.setdefault("Idempotency-Key", str(uuid.uuid4()))
        query = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(1, self.attempts + 1):
            last = attempt == self.attempts
            asked_s = 0.0
            try:
                response = self._http.request(method, path, params=query, json=json, content=content, headers=sent)
            except httpx.TransportError as error:
                # A service that was there a moment ago is being restarted; where there never was one, none comes.
                absent = isinstance(error, httpx.ConnectError) and not self._answered
                if last or absent:
                    raise ServiceUnreachable(self.base_url, _cause(error)) from error
            else:
                self._answered = True
                if response.is_success or response.status_code in accepted or _deleted_before(response, attempt):
                    return response
                if last or not _worth_another_try(response, attempt):
                    raise ApiError.of(response)
                asked_s = _asked_pause_s(response)
            time.sleep(max(asked_s, self.pause_s * 2 ** (attempt - 1)))
        raise ServiceUnreachable(self.base_url, "no attempts were allowed")

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float = HEARTBEAT_TIMEOUT_S,
    ) -> Iterator[httpx.Response]:
        """One GET whose body is read as it comes; httpx.TransportError is the caller's to resume after.

        :raises ApiError: the service refused.
        """
        query = {name: value for name, value in (params or {}).items() if value is not None}
        timeout = httpx.Timeout(read_timeout_s, connect=5.0)
        with self._http.stream("GET", path, params=query, headers=dict(headers or {}), timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise ApiError.of(response)
            yield response

    def close(self) -> None:
        self._http.close()


def _worth_another_try(response: httpx.Response, attempt: int) -> bool:
    """Busy answers, and `still running` for a key that an earlier attempt of this very request took."""
    if response.status_code in BUSY_STATUSES:
        return True
    return attempt > 1 and ApiError.of(response).kind == "idempotency-key-running"


def _asked_pause_s(response: httpx.Response) -> float:
    """What a busy service asks for, ten seconds at most."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), 10.0) if text.isdigit() else 0.0


def _deleted_before(response: httpx.Response, attempt: int) -> bool:
    """A repeated DELETE that finds nothing: an earlier attempt did it, and only its answer was lost."""
    return response.request.method == "DELETE" and response.status_code == 404 and attempt > 1


def _checked_url(text: str) -> str:
    try:
        address = urlsplit(text)
        usable = address.scheme in {"http", "https"} and bool(address.hostname) and (address.port or 80) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ClientError(f"{text!r} is not the address of a service; write it as http://127.0.0.1:8642")
    return text.rstrip("/")


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cause(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return "connection refused" if "refused" in str(error).lower() else str(error) or "cannot connect"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
