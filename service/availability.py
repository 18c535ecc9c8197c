"""Can anybody measure for a target right now?"""

from __future__ import annotations

import time

from sqlalchemy import Connection

from crosstune.db.repositories import devices
from crosstune.service.services import Services


def is_live(services: Services, connection: Connection, target_key: int) -> bool:
    """True when a live worker serves an active device of the target."""
    return devices.serving(connection, target_key, seen_after(services)) > 0


def seen_after(services: Services) -> float:
    """Workers heard of since then (UTC seconds) are live."""
    return time.time() - services.settings.worker_live_s


def no_device_text(target_id: str) -> str:
    return (
        f"no live worker serves a device of target {target_id}; start one on such a machine, "
        "or resume its device if it is paused"
    )
