"""From measurements to a verdict: the rules by which a record is believed, without a database.

The words are those of the tables `records` and `measurements`; latencies are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Status(StrEnum):
    """Of a measurement; a record has the best status among those that decided its verdict, and is never `disturbed`."""

    VALID = "valid"
    DISTURBED = "disturbed"
    PROVISIONAL = "provisional"
    WITHDRAWN = "withdrawn"
    IMPORTED = "imported"


QUICK, FULL, CENSORED = "quick", "full", "censored"

PERMANENT_FAILURES = frozenset({"compile", "replay", "correctness", "runtime"})
"""Another attempt ends the same way."""
TRANSIENT_FAILURES = frozenset({"device_lost", "out_of_memory", "timeout"})
MAX_TRANSIENT_RETRIES = 2

_TRUST: tuple[tuple[Status, frozenset[str]], ...] = (
    (Status.VALID, frozenset({Status.VALID})),
    (Status.IMPORTED, frozenset({Status.IMPORTED})),
    (Status.PROVISIONAL, frozenset({Status.PROVISIONAL, Status.DISTURBED})),
)
"""The record's status, and the measurements that can give it; the first that has any decides."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What counts of one measurement, in the order in which they were made."""

    latency_s: float | None
    quality: str
    status: str
    invalidity: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`permanent`: never propose the schedule again, because it cannot work or has failed too often."""

    status: Status
    latency_s: float | None
    quality: str | None
    invalidity: str | None
    permanent: bool
    transient_failures: int


def judge(measurements: Sequence[Evidence]) -> Verdict:
    """The verdict on a schedule.

    A permanent failure outweighs any latency. Else the median over the full, undisturbed measurements, not the lowest,
    which is a lucky one; without any the median over the quick ones; without any undisturbed one the same over
    imported, then over disturbed ones; at last the highest lower bound of those that were stopped early. A transient
    failure counts only where there is no latency.
    """
    counted = [one for one in measurements if one.status != Status.WITHDRAWN]
    if not counted:
        return Verdict(Status.WITHDRAWN, None, None, None, False, 0)
    transient = [one for one in counted if one.invalidity in TRANSIENT_FAILURES]
    broken = [one for one in counted if one.invalidity in PERMANENT_FAILURES]
    if broken:
        return Verdict(_status(broken), None, None, broken[-1].invalidity, True, len(transient))
    timed = [one for one in counted if one.invalidity is None and one.latency_s is not None]
    for status, statuses in _TRUST:
        for quality in (FULL, QUICK):
            latencies = _latencies(timed, quality, statuses)
            if latencies:
                return Verdict(status, median(latencies), quality, None, False, len(transient))
    bounds = [one for one in timed if one.quality == CENSORED]
    if bounds:
        return Verdict(_status(bounds), max(_latencies(bounds, CENSORED)), CENSORED, None, False, len(transient))
    last = transient[-1].invalidity if transient else None
    return Verdict(_status(counted), None, None, last, len(transient) > MAX_TRANSIENT_RETRIES, len(transient))


def _latencies(timed: Sequence[Evidence], quality: str, statuses: frozenset[str] | None = None) -> list[float]:
    return [
        one.latency_s
        for one in timed
        if one.latency_s is not None and one.quality == quality and (statuses is None or one.status in statuses)
    ]


def _status(deciding: Sequence[Evidence]) -> Status:
    """The most trusted status among the measurements that decided."""
    found = {one.status for one in deciding}
    return next(status for status, statuses in _TRUST if found & statuses)
