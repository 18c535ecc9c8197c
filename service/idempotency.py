"""A repeated request with the same key gets the first one's answer.

The key's row, the work and the remembered answer are stored in one transaction, so there is never one without the
others: a request that dies leaves its key free, and one that comes while the first still runs waits for its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from crosstune.db.codec import json_sha256
from crosstune.db.engine import retrying
from crosstune.db.repositories import idempotency
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply
from crosstune.service.services import Services


def once(
    services: Services, caller: Principal, key: str | None, request: list[Any], work: Callable[[Connection], Reply]
) -> Reply:
    """Run `work` in a transaction, or answer as before when `key` is known.

    `request` is whatever makes the request another one. Raises IdempotencyConflict when the key was used for another.
    Without a key each call is new work.
    """

    def run(connection: Connection) -> Reply:
        if key is None:
            return work(connection)
        before = idempotency.begin(connection, caller.project_id, key, json_sha256(request).hex())
        if before is not None:
            return Reply(before.status_code, before.answer, repeated=True)
        answer = work(connection)
        idempotency.complete(connection, caller.project_id, key, answer.status, answer.body)
        return answer

    return retrying(services.engine, run)
