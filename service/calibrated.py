"""What calibration found, for those who measure."""

from __future__ import annotations

from sqlalchemy import Engine

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
