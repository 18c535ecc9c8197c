"""Workloads: found by the sha256 of their canonical module, stored once for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from crosstune.db.codec import digest, pack_text, unpack_text
from crosstune.db.engine import stamp
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.inserting import insert_new
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import Workload


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """`args` is `[[dtype, [sizes]], …]`, outputs last. The module itself is read with `module_of`."""

    key: int
    id: str
    sha256: str
    version_free_key: str
    name: str
    flops: float
    args: Any
    output_count: int
    tvm_version: str
    pipeline_version: int


def get_or_create(
    connection: Connection,
    *,
    sha256: str,
    version_free_key: str,
    name: str,
    module: str,
    flops: float,
    args: Sequence[Any],
    output_count: int,
    tvm_version: str,
    pipeline_version: int,
    now: float | None = None,
) -> WorkloadRow:
    """The workload with this identity; its other columns are those of whoever stored it first."""
    existing = find(connection, [sha256])
    if not existing:
        insert_new(
            connection,
            Workload,
            id=new_id(Prefix.WORKLOAD),
            sha256=digest(sha256),
            version_free_key=digest(version_free_key),
            name=name,
            module=pack_text(module),
            flops=flops,
            args=list(args),
            output_count=output_count,
            tvm_version=tvm_version,
            pipeline_version=pipeline_version,
            created_at=stamp(now),
        )
        existing = find(connection, [sha256])
    return existing[0]


def find(connection: Connection, sha256s: Sequence[str]) -> list[WorkloadRow]:
    """Those of the named workloads that are known, in no order."""
    rows = connection.execute(workload_rows().where(Workload.sha256.in_([digest(value) for value in sha256s])))
    return [workload_of(row) for row in rows]


def get(connection: Connection, workload_id: str) -> WorkloadRow:
    """By public id or by sha256."""
    if len(workload_id) == 64:
        found = find(connection, [workload_id])
        if found:
            return found[0]
        raise NotFound("workload", workload_id)
    row = connection.execute(workload_rows().where(Workload.id == workload_id)).one_or_none()
    if row is None:
        raise NotFound("workload", workload_id)
    return workload_of(row)


def get_by_key(connection: Connection, workload_key: int) -> WorkloadRow:
    row = connection.execute(workload_rows().where(Workload.key == workload_key)).one_or_none()
    if row is None:
        raise NotFound("workload", str(workload_key))
    return workload_of(row)


def get_by_keys(connection: Connection, workload_keys: Sequence[int]) -> list[WorkloadRow]:
    """In no order; keys that are not known are left out."""
    rows = connection.execute(workload_rows().where(Workload.key.in_(workload_keys)))
    return [workload_of(row) for row in rows]


def module_of(connection: Connection, workload_key: int) -> str:
    """TVM's JSON of the canonical module."""
    packed = connection.execute(select(Workload.module).where(Workload.key == workload_key)).scalar_one_or_none()
    if packed is None:
        raise NotFound("workload", str(workload_key))
    return unpack_text(packed)


def workload_of(row: Any) -> WorkloadRow:
    return WorkloadRow(
        row.key,
        row.id,
        row.sha256.hex(),
        row.version_free_key.hex(),
        row.name,
        row.flops,
        row.args,
        row.output_count,
        row.tvm_version,
        row.pipeline_version,
    )


def workload_rows() -> AnySelect:
    """The columns of a WorkloadRow."""
    return select(
        Workload.key,
        Workload.id,
        Workload.sha256,
        Workload.version_free_key,
        Workload.name,
        Workload.flops,
        Workload.args,
        Workload.output_count,
        Workload.tvm_version,
        Workload.pipeline_version,
    )
