"""What every log comes down to, and how its lines are told to be wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

FAILED_S = 1e9
"""Ansor and MetaSchedule write 1e10 s for a failure, AutoTVM 1e9 s: nothing real takes thirty years."""
RANDOM, SEARCH, REPLAY, REPEAT = "random", "search", "replay", "repeat"
"""Origins of a record; see `Record.origin`."""
UNKNOWN = "unknown"
"""The invalidity of a failure whose reason the format does not keep."""


class Record(NamedTuple):
    """One measured program. A named tuple, because millions of them are made."""

    format: str
    """ansor | metaschedule"""
    version: str
    """As the file says it (`v0.6`), or ''."""
    workload: str
    """Identity of the workload in its source: Ansor's key, MetaSchedule's structural hash, our sha256."""
    target: str
    """Attributes of the target, as canonical JSON; `kind` is always there."""
    trace: str
    """Canonical JSON: Ansor's list of steps, or MetaSchedule's [instructions, decisions]."""
    latencies_s: tuple[float, ...]
    """One value per run; empty when it failed."""
    invalidity: str | None
    """compile, replay, correctness, runtime, timeout, device_lost, out_of_memory or unknown; None: it has latencies."""
    measured_at: float | None
    """UTC, seconds since the epoch."""
    line: int
    """In its file, from 1."""
    features: bytes | None = None
    """Statement features as cost_model.features packs them."""
    quality: str = ""
    """quick | full | censored (the latency is a lower bound); '' where the format does not tell."""
    origin: str = ""
    """How the program was chosen: random | search | replay (of another target's) | repeat (measured before)."""
    held_out: bool = False
    """Of a network that nothing may be trained on."""


class WorkloadRow(NamedTuple):
    """A workload whose program the source holds; Ansor's logs hold none."""

    workload: str
    name: str
    module: str
    """TVM's JSON of the IRModule, of whatever version wrote it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that was skipped, or, from `ends_file` on, the rest of a file."""

    line: int
    problem: str
    ends_file: bool = False


Item = Record | WorkloadRow | Fault
"""What a source of measured programs yields; workloads come before the records that name them."""


class Malformed(ValueError):
    """A line that is not what its format asks for; the text says what is wrong."""


_ENCODER = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False)
"""Made once: json.dumps makes one for each call, which millions of lines notice."""


def canonical(value: Any) -> str:
    """JSON without spaces, keys in order."""
    return _ENCODER.encode(value)


@lru_cache(maxsize=4096)
def canonical_text(text: str) -> str:
    """JSON text in canonical form; Malformed when it is none. Neighbouring lines share most of it, so it is kept."""
    try:
        return canonical(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{text[:60]!r} is not JSON: {error}") from None


def latencies(values: Any) -> tuple[float, ...] | None:
    """Seconds per run, or None when they stand for a failure; Malformed unless they are positive numbers."""
    if not isinstance(values, list) or not values:
        raise Malformed("it has no measured times")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Malformed(f"a measured time is {value!r}, not a number of seconds")
        if not 0.0 < value < float("inf"):
            raise Malformed(f"a measured time is {value} s: it was not measured yet, or is damaged")
    if max(values) >= FAILED_S:
        return None
    return tuple(float(value) for value in values)
