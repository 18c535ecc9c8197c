"""Answers of requests that make something: as they are sent and, with an Idempotency-Key, remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: dict[str, Any]
    repeated: bool = False
    """True when it is the remembered answer of the first request with the same key."""

    def response(self) -> JSONResponse:
        headers = {"idempotency-replayed": "true"} if self.repeated else {}
        return JSONResponse(self.body, self.status, headers=headers)


def reply(status: int, body: BaseModel) -> Reply:
    return Reply(status, body.model_dump(mode="json"))
