"""Whether the process lives and whether it can work."""

from __future__ import annotations

from pydantic import Field

from crosstune.service.schemas.common import Out


class Liveness(Out):
    status: str = "ok"
    version: str


class Readiness(Out):
    ready: bool
    database: str = Field(description="ok, or what is wrong.")
    storage: str = Field(description="ok, or which folder has too little room.")
    schema_version: str | None = Field(None, description="Migration that the database is at.")
    expected_schema_version: str
    live_workers: int
    queued_steps: int
    warnings: list[str]
