"""Ansor's logs, v0.2 to v0.6, which TenSet's are too: one JSON object a line.

`{"i": [[workload_key, target, hardware, target_host, layout_rewrite, names], [[], steps]],
"r": [costs_s, error, all_cost_s, timestamp_s], "v": "v0.6"}`, where v0.2 and v0.3 stop after the hardware and v0.5
after the layout option (apache/tvm 0.8, src/auto_scheduler/measure_record.cc).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from crosstune.cost_model.formats.record import UNKNOWN, Malformed, Record, canonical, canonical_text, latencies
from crosstune.cost_model.formats.target_text import parse_target

FORMAT = "ansor"
INVALIDITIES: Mapping[int, str] = {
    1: "replay",
    2: "compile",
    3: "compile",
    4: "runtime",
    5: "correctness",
    6: "timeout",
    7: "timeout",
    8: UNKNOWN,
}
"""By the error number of a result (apache/tvm 0.8, include/tvm/auto_scheduler/measure.h)."""


def is_record(value: Any) -> bool:
    return isinstance(value, dict) and "i" in value and "r" in value


def parse(value: Mapping[str, Any], line: int) -> Record:
    """The record of one decoded line; Malformed says what is missing."""
    task, state = _pair(value["i"], "`i` is not [task, state]")
    if not isinstance(task, list) or len(task) < 2 or not all(isinstance(part, str) for part in task[:2]):
        raise Malformed("its task does not begin with a workload key and a target")
    steps = _steps(state)
    result = value["r"]
    if not isinstance(result, list) or len(result) < 2:
        raise Malformed("`r` is not [costs, error, ...]")
    times, invalidity = _result(result)
    cores = task[2][0] if len(task) > 2 and isinstance(task[2], list) and task[2] else None
    return Record(
        format=FORMAT,
        version=str(value.get("v", "")),
        workload=canonical_text(task[0]),
        target=_target(task[1], cores if isinstance(cores, int) and cores > 0 else None),
        trace=canonical(steps),
        latencies_s=times,
        invalidity=invalidity,
        measured_at=float(result[3]) if len(result) > 3 and isinstance(result[3], int | float) else None,
        line=line,
    )


@lru_cache(maxsize=4096)
def _target(text: str, cores: int | None) -> str:
    """The rest of `hardware` says nothing: an A100, an RTX 3080 and a T4 have the same eight numbers."""
    attributes = dict(parse_target(text.strip()))
    if cores is not None:
        attributes.setdefault("num-cores", cores)
    return canonical(attributes)


def _steps(state: Any) -> list[Any]:
    _, steps = _pair(state, "its state is not [stages, steps]")
    if not isinstance(steps, list):
        raise Malformed("its steps are not a list")
    for step in steps:
        if not isinstance(step, list) or not step or not isinstance(step[0], str):
            raise Malformed(f"a step is {str(step)[:60]}, not [name, ...]")
    return steps


def _result(result: list[Any]) -> tuple[tuple[float, ...], str | None]:
    error = result[1]
    if isinstance(error, bool) or not isinstance(error, int):
        raise Malformed(f"its error number is {error!r}")
    if error:
        return (), INVALIDITIES.get(error, UNKNOWN)
    times = latencies(result[0])
    return ((), UNKNOWN) if times is None else (times, None)


def _pair(value: Any, problem: str) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed(problem)
    return value[0], value[1]
