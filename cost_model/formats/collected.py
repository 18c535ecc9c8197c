"""What `crosstune dataset collect` writes, and reads again to go on: three files of JSON lines, only ever appended to.

    workloads.jsonl   workload, name, version_free_key, module, networks ({name: calls}), held_out, ...
    targets.jsonl     target (the identity that records name), spec (a target's fields)
    records.jsonl     workload, target, trace, latencies_s or null, invalid or null, and where they are known:
                      origin (random | search | replay | repeat), schedule, program (equal for equal programs),
                      quality (quick | censored), cold_latencies_s, features (base64), measured_at, reference_ratio

All may be compressed. `latencies_s` are hot and from quick measurements, as many for every program, so that the
programs of a workload on a target compare; `cold_latencies_s` are the full measurements that contenders got as well.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from crosstune.cost_model.formats.lines import Damaged, NumberedLines, drop_cut_line
from crosstune.cost_model.formats.metaschedule import FORMAT, LENGTH_BYTES, checked_trace
from crosstune.cost_model.formats.record import (
    UNKNOWN,
    Fault,
    Malformed,
    Record,
    WorkloadRow,
    canonical,
    latencies,
)

RECORDS, WORKLOADS, TARGETS = "records.jsonl", "workloads.jsonl", "targets.jsonl"
VERSION = "collected"
REASONS = {"compile_timeout": "timeout"}
"""Reasons that an earlier collector called otherwise."""
SHORT_TARGET = re.compile(r"(?P<mcpu>.+)-(?P<cores>\d+)c")
"""How targets are named where no file of targets lies beside: `x86-64-v3-2c`."""


@dataclass(slots=True)
class Beside:
    """What the files beside a file of records tell."""

    targets: dict[str, str] = field(default_factory=dict)
    """Canonical JSON by identity."""
    held_out: set[str] = field(default_factory=set)
    """Workloads that nothing may be trained on."""


def is_record(value: Any) -> bool:
    return isinstance(value, dict) and {"workload", "target", "trace", "latencies_s"} <= value.keys()


def parse(value: Mapping[str, Any], line: int, beside: Beside) -> Record:
    """The record of one decoded line; Malformed says what is wrong."""
    for name in ("workload", "target"):
        if not isinstance(value[name], str):
            raise Malformed(f"its {name} is {str(value[name])[:40]!r}, not a name")
    times = None if value["latencies_s"] is None else latencies(value["latencies_s"])
    reason = value.get("invalid")
    if times is None and reason is None:
        reason = UNKNOWN
    measured_at = value.get("measured_at")
    return Record(
        format=FORMAT,
        version=VERSION,
        workload=value["workload"],
        target=beside.targets.get(value["target"]) or _short_target(value["target"]),
        trace=canonical(checked_trace(value["trace"])),
        latencies_s=() if reason is not None else times or (),
        invalidity=None if reason is None else REASONS.get(str(reason), str(reason)),
        measured_at=float(measured_at) if isinstance(measured_at, int | float) else None,
        line=line,
        features=_bytes(value.get("features")),
        quality=str(value.get("quality") or ""),
        origin=str(value.get("origin") or ""),
        held_out=value["workload"] in beside.held_out,
    )


def read_beside(records: Path) -> Iterator[WorkloadRow | Fault | Beside]:
    """The workloads that lie beside a file of collected records, and last what else is told there."""
    told = Beside()
    if RECORDS in records.name:
        yield from _workloads(_neighbour(records, WORKLOADS), told)
        yield from _targets(_neighbour(records, TARGETS), told)
    yield told


def _workloads(path: Path | None, told: Beside) -> Iterator[WorkloadRow | Fault]:
    for number, value in _values(path):
        if isinstance(value, Fault):
            yield value
        elif not {"workload", "module"} <= value.keys():
            yield Fault(number, f"{WORKLOADS}: a line without 'workload' and 'module'")
        else:
            if value.get("held_out"):
                told.held_out.add(str(value["workload"]))
            yield WorkloadRow(str(value["workload"]), str(value.get("name", "")), _module(value["module"]))


def _targets(path: Path | None, told: Beside) -> Iterator[Fault]:
    for _, value in _values(path):
        if isinstance(value, Fault):
            yield value
        else:
            told.targets[str(value.get("target"))] = canonical(value.get("spec"))


def _values(path: Path | None) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """The numbered objects of a file of JSON lines; what is none comes as a Fault."""
    if path is None:
        return
    try:
        with NumberedLines(path) as lines:
            for number, line in lines:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield number, Fault(number, f"{path.name}: it is not JSON: {error}")
                    continue
                is_object = isinstance(value, dict)
                yield number, value if is_object else Fault(number, f"{path.name}: it is not an object")
    except Damaged as error:
        yield error.line, Fault(error.line, f"{path.name}: {error.problem}", ends_file=True)


def _neighbour(records: Path, name: str) -> Path | None:
    prefix = records.name.split(RECORDS)[0]
    found = (records.with_name(prefix + name + suffix) for suffix in ("", ".gz"))
    return next((path for path in found if path.is_file()), None)


def _module(value: Any) -> str:
    """TVM's JSON: as it is, or as MetaSchedule's workload [hash, base64 of a length and the text]."""
    if isinstance(value, str):
        return value
    try:
        return base64.b64decode(value[1])[LENGTH_BYTES:].decode()
    except (TypeError, IndexError, KeyError, ValueError):
        return ""


@lru_cache(maxsize=1024)
def _short_target(name: str) -> str:
    found = SHORT_TARGET.fullmatch(name)
    if found is None:
        return canonical({"kind": "llvm", "tag": name})
    return canonical({"kind": "llvm", "mcpu": found["mcpu"], "cores": int(found["cores"])})


def _bytes(text: Any) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Malformed("its features are not base64") from None


class CollectionFolder:
    """The folder at `path`, for one process that appends to it; a line that a crash cut off is dropped first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        self._offsets: dict[tuple[str, str], list[int]] = {}
        for name in (RECORDS, WORKLOADS, TARGETS):
            drop_cut_line(path / name)
        self.workloads = {line["workload"] for line in self._lines(WORKLOADS)}
        self.targets = {line["target"] for line in self._lines(TARGETS)}
        with self._open(RECORDS) as file:
            offset = 0
            for text in file:
                self._note(json.loads(text), offset)
                offset += len(text)

    def add_workload(self, line: Mapping[str, Any]) -> None:
        if line["workload"] not in self.workloads:
            self._append(WORKLOADS, [line])
            self.workloads.add(line["workload"])

    def add_target(self, identity: str, spec: Mapping[str, Any]) -> None:
        if identity not in self.targets:
            self._append(TARGETS, [{"target": identity, "spec": spec}])
            self.targets.add(identity)

    def add_records(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append all; when this returns they are on disk."""
        offset = (self._path / RECORDS).stat().st_size if (self._path / RECORDS).exists() else 0
        sizes = self._append(RECORDS, lines)
        for line, size in zip(lines, sizes, strict=True):
            self._note(line, offset)
            offset += size

    def records(self, workload: str, target: str) -> list[dict[str, Any]]:
        """What was measured of a workload on a target, in order."""
        found = []
        with self._open(RECORDS) as file:
            for offset in self._offsets.get((workload, target), ()):
                file.seek(offset)
                found.append(json.loads(file.readline()))
        return found

    def count(self) -> int:
        return sum(map(len, self._offsets.values()))

    def _note(self, line: Mapping[str, Any], offset: int) -> None:
        self._offsets.setdefault((line["workload"], line["target"]), []).append(offset)

    def _append(self, name: str, lines: Sequence[Mapping[str, Any]]) -> list[int]:
        """The size of each written line."""
        texts = [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines]
        with (self._path / name).open("ab") as file:
            file.write(b"".join(texts))
            file.flush()
            os.fsync(file.fileno())
        return [len(text) for text in texts]

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        with self._open(name) as file:
            for text in file:
                yield json.loads(text)

    def _open(self, name: str) -> Any:
        path = self._path / name
        path.touch()
        return path.open("rb")
