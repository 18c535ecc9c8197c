"""Steps: pieces of durable work."""

from __future__ import annotations

from pydantic import Field

from crosstune.service.schemas.common import Out, Time


class StepDetail(Out):
    step: str
    kind: str = Field(
        description="import, calibrate, round, build_network, explore, retrain, judge, load_records, notify or recheck."
    )
    state: str = Field(description="queued, running, done, failed or cancelled.")
    job: str | None = Field(default=None, description="The job that it belongs to.")
    attempts: int = Field(description="How often it was begun.")
    message: str | None = Field(default=None, description="What came of it, or why its last attempt ended.")
    created_at: Time
    started_at: Time | None = None
    ended_at: Time | None = None
