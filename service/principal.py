"""Who calls: one dependency on every route gives the project and the scopes of the request.

There are no API keys yet. Whoever reaches the service over loopback acts for the project `default` with every scope;
nobody else is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import SecurityScopes

from crosstune.service.errors import NotLoopback, ScopeMissing
from crosstune.service.settings import is_loopback


class Scope(StrEnum):
    READ = "read"
    SUBMIT = "submit"
    WORKER = "worker"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """`project_id` is the project that everything the request makes or sees belongs to; `project_key` its integer."""

    project_id: str
    project_key: int
    project: str
    scopes: frozenset[Scope]


def principal(request: Request, needed: SecurityScopes) -> Principal:
    """The caller of `request`, who must hold every scope that the route needs."""
    if request.client is not None and not is_loopback(request.client.host):
        raise NotLoopback(request.client.host)
    caller: Principal = request.app.state.services.default_principal
    missing = [scope for scope in needed.scopes if Scope(scope) not in caller.scopes]
    if missing:
        raise ScopeMissing(missing)
    return caller


Reader = Annotated[Principal, Security(principal, scopes=[Scope.READ.value])]
Submitter = Annotated[Principal, Security(principal, scopes=[Scope.SUBMIT.value])]
Administrator = Annotated[Principal, Security(principal, scopes=[Scope.ADMIN.value])]
