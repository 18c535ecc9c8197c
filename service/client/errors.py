"""What can go wrong between a client and the service, each with a text that names the next step."""

from __future__ import annotations

from typing import Any

import httpx

from crosstune.tuner.contracts import CrosstuneError


class ClientError(CrosstuneError):
    """Base of every error that the client raises on purpose."""


class ApiError(ClientError):
    """The service answered with an error: `problem` is its problem+json (RFC 9457).

    `kind` is the stable last part of the problem's type (`network-unknown`), `status` the HTTP status.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        self.status = int(problem.get("status", 500))
        self.kind = str(problem.get("type", "about:blank")).rsplit(":", 1)[-1]
        self.title = str(problem.get("title", f"HTTP {self.status}"))
        self.detail = str(problem.get("detail") or "")
        super().__init__(self.detail or self.title)

    @classmethod
    def of(cls, response: httpx.Response) -> ApiError:
        """The problem in a response; one is made up from the status line where the body has none (a proxy's page)."""
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or "status" not in body:
            detail = f"{response.request.method} {response.request.url.path} was answered {response.status_code}"
            body = {"status": response.status_code, "title": response.reason_phrase, "detail": detail}
        return cls(body)


class ServiceUnreachable(ClientError):
    """Nothing answers at the service's address, or the connection broke more often than the client retries."""

    def __init__(self, base_url: str, cause: str) -> None:
        super().__init__(f"no service answers at {base_url} ({cause}); start one with `crosstune serve`, or give --url")
        self.base_url = base_url


class WaitedTooLong(ClientError):
    """`wait` or `wait_network` reached its time-out; the work itself goes on."""
