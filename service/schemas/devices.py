"""Devices, which measure, and workers, which drive them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from crosstune.service.schemas.common import Out, Time


class DeviceState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"


class DeviceOut(Out):
    id: str
    name: str
    host: str = Field(description="The machine whose workers reach the device.")
    kind: str = Field(description="local or rpc")
    state: DeviceState = Field(
        description="paused measures nothing new until it is resumed; draining measures nothing new and is going away."
    )
    targets: list[str]
    measuring: bool = Field(description="True while somebody holds the device's lease.")
    live: bool = Field(description="True when a live worker serves the device.")
    calibration: dict[str, Any] | None = Field(None, description="What the last calibration found.")
    created_at: Time


class WorkerOut(Out):
    id: str
    host: str
    process: int
    version: str
    live: bool = Field(description="True while its heartbeat is recent.")
    draining: bool
    last_seen_at: Time
    started_at: Time
    stopped_at: Time | None = None
