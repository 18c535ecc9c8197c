"""What calibration found, for those who measure and for those who learn."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine

from crosstune.db.engine import reading
from crosstune.db.repositories import targets

REFERENCE_FACT = "reference_kernels_s"


def known_references_s(engine: Engine) -> dict[str, float]:
    """Latency of the reference kernels by target identity, where the target was calibrated."""
    found = {}
    with reading(engine) as connection:
        for key in targets.all_keys(connection):
            target = targets.get_by_key(connection, key)
            for fact in targets.facts_of(connection, key):
                if fact.attribute == REFERENCE_FACT:
                    found[target.identity] = float(fact.value)
    return found


def known_attributes(connection: Connection, target_key: int) -> dict[str, Any]:
    """What is known of the hardware behind a target, by attribute."""
    return {fact.attribute: fact.value for fact in targets.facts_of(connection, target_key)}
