"""MetaSchedule's JSON database of any TVM version: a file of workloads and a file of tuning records.

Workload line: `[structural hash, base64]`, the bytes being a little-endian length of 8 bytes and TVM's JSON of the
IRModule. Record line: `[index of the workload, [[instructions, decisions], run_secs, target, args_info]]`
(apache/tvm, src/meta_schedule/database). The module's text is carried on, never loaded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from crosstune.cost_model.formats.lines import NumberedLines
from crosstune.cost_model.formats.record import UNKNOWN, Fault, Malformed, Record, WorkloadRow, canonical, latencies
from crosstune.cost_model.formats.target_text import target_json

FORMAT = "metaschedule"
RECORDS, WORKLOADS = "database_tuning_record.json", "database_workload.json"
LENGTH_BYTES = 8


def is_record(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], list)


def is_workload(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def parse(value: Sequence[Any], line: int, workloads: Sequence[str] | None, source: str) -> Record:
    """The record of one decoded line; Malformed says what is missing.

    workloads: identities by index; None: there is no workload file, and they are called `<source>#<index>`.
    """
    index, record = value
    if len(record) < 3:
        raise Malformed("it is not [trace, run_secs, target, args_info]")
    trace, run_secs, target = record[:3]
    times = latencies(run_secs)
    return Record(
        format=FORMAT,
        version="",
        workload=_workload(index, workloads, source),
        target=_target(canonical(target)) if isinstance(target, dict) else target_json(target),
        trace=canonical(checked_trace(trace)),
        latencies_s=times or (),
        invalidity=UNKNOWN if times is None else None,
        measured_at=None,
        line=line,
    )


def checked_trace(trace: Any) -> list[Any]:
    """`trace` when it is [instructions, decisions]; else Malformed."""
    if not isinstance(trace, list) or len(trace) != 2 or not all(isinstance(part, list) for part in trace):
        raise Malformed("its trace is not [instructions, decisions]")
    for instruction in trace[0]:
        if not _is_instruction(instruction):
            raise Malformed(f"an instruction is {str(instruction)[:60]}, not [name, inputs, attributes, outputs]")
    for decision in trace[1]:
        if not isinstance(decision, list) or len(decision) != 2 or not isinstance(decision[0], int):
            raise Malformed(f"a decision is {str(decision)[:60]}, not [index, value]")
        if not 0 <= decision[0] < len(trace[0]):
            raise Malformed(f"a decision is for instruction {decision[0]} of {len(trace[0])}")
    return trace


def _is_instruction(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4 or not isinstance(value[0], str):
        return False
    return all(isinstance(part, list) for part in value[1:]) and all(isinstance(name, str) for name in value[3])


def workload_file(records: Path) -> Path | None:
    """The workload file that belongs to a record file: beside it, the same prefix, compressed or not."""
    if RECORDS not in records.name:
        return None
    prefix = records.name.split(RECORDS)[0]
    found = (records.with_name(prefix + WORKLOADS + suffix) for suffix in ("", ".gz"))
    return next((path for path in found if path.is_file()), None)


def read_workloads(path: Path) -> Iterator[WorkloadRow | Fault]:
    """Every workload in order; a line that is none comes as a Fault and still takes its index. Raises lines.Damaged."""
    with NumberedLines(path) as lines:
        for number, line in lines:
            try:
                yield _parse_workload(line)
            except Malformed as error:
                yield Fault(number, str(error))


def _parse_workload(line: bytes) -> WorkloadRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON: {error}") from None
    if not is_workload(value):
        raise Malformed("it is not [structural hash, base64]")
    try:
        data = base64.b64decode(value[1], validate=True)
    except binascii.Error as error:
        raise Malformed(f"its program is not base64: {error}") from None
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    text = data[LENGTH_BYTES:]
    if length != len(text):
        raise Malformed(f"its program has {len(text)} bytes where {length} are announced")
    try:
        return WorkloadRow(value[0], "", text.decode())
    except UnicodeDecodeError:
        raise Malformed("its program is not text") from None


def _workload(index: int, workloads: Sequence[str] | None, source: str) -> str:
    if workloads is None:
        return f"{source}#{index}"
    if not 0 <= index < len(workloads) or not workloads[index]:
        raise Malformed(f"it is for workload {index}, and the workload file has {len(workloads)}")
    return workloads[index]


@lru_cache(maxsize=4096)
def _target(text: str) -> str:
    return target_json(json.loads(text))
