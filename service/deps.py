"""What routes are given: the services of the application and the request's idempotency key."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from crosstune.service.services import Services


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,200}$",
        description="Names this piece of work (a UUID is a good choice): the same request again, with the same key, "
        "gets the same answer and makes nothing new.",
    ),
]
