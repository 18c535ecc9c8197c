"""Networks: store the bytes, import them by a step, show what came of it."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import Connection

from crosstune.db.codec import json_sha256
from crosstune.db.engine import reading, retrying
from crosstune.db.ids import Prefix
from crosstune.db.repositories import artifacts, builds, jobs, networks
from crosstune.db.repositories.builds import BuildState
from crosstune.db.repositories.networks import NetworkRow, NetworkTaskRow
from crosstune.service import idempotency, journal, lookups, work
from crosstune.service.artifact_rows import add_artifact
from crosstune.service.errors import LimitReached, NetworkInUse, ShapeRefused, UploadEmpty
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply, reply
from crosstune.service.schemas.common import Failure, Page, Tensor
from crosstune.service.schemas.networks import NetworkOut, NetworkState, NetworkTasks, TaskOut, WorkloadArgument
from crosstune.service.services import Services
from crosstune.service.store import Incoming, Stored

LIST = "networks"
ARTIFACT_KIND = "network"
MOST_DIMENSIONS = 8
LARGEST_SIZE = 2**20
MOST_ELEMENTS = 2**31 - 1
_SHAPE = re.compile(r"(?P<name>[^\x00-\x1f\x7f]{1,200}):(?P<sizes>[0-9]{1,10}(,[0-9]{1,10})*)")

Shapes = dict[str, list[int]]


def parse_shapes(texts: Sequence[str]) -> Shapes:
    """`["input:1,3,224,224"]` -> `{"input": [1, 3, 224, 224]}`; raises ShapeRefused."""
    shapes: Shapes = {}
    for text in texts:
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ShapeRefused(text, "cannot be read")
        name, sizes = found["name"], [int(size) for size in found["sizes"].split(",")]
        if name in shapes:
            raise ShapeRefused(text, f"gives input {name!r} a second time")
        if len(sizes) > MOST_DIMENSIONS:
            raise ShapeRefused(text, f"has {len(sizes)} dimensions, of which at most {MOST_DIMENSIONS} are taken")
        if not all(0 < size <= LARGEST_SIZE for size in sizes):
            raise ShapeRefused(text, f"has a size that is not between 1 and {LARGEST_SIZE}")
        elements = 1
        for size in sizes:
            elements *= size
        if elements > MOST_ELEMENTS:
            raise ShapeRefused(text, f"has {elements} elements, of which at most {MOST_ELEMENTS} are taken")
        shapes[name] = sizes
    return shapes


async def receive(services: Services, chunks: AsyncIterator[bytes]) -> Incoming:
    """Take in an upload as it arrives; nothing of it is left when it breaks off or does not fit."""
    try:
        return await services.store.receive(chunks)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise LimitReached("there is no room left to store the upload; nothing of it was kept") from error
        raise


def create(
    services: Services, caller: Principal, key: str | None, incoming: Incoming, name: str | None, shapes: Shapes
) -> Reply:
    """The network with these bytes and shapes: a new one is imported by a step, a known one is answered as it is."""
    request = ["create_network", name, shapes, incoming.sha256]
    try:
        if incoming.size_bytes == 0:
            raise UploadEmpty
        with services.store.locked():
            stored = services.store.keep(caller.project, ARTIFACT_KIND, incoming)
            try:
                return idempotency.once(
                    services, caller, key, request, lambda connection: _submit(connection, caller, stored, name, shapes)
                )
            finally:
                _drop_unused(services, caller, stored)
    finally:
        services.store.drop(incoming)


def _submit(connection: Connection, caller: Principal, stored: Stored, name: str | None, shapes: Shapes) -> Reply:
    artifact_id = add_artifact(connection, caller.project_id, ARTIFACT_KIND, stored)
    row, new = networks.submit(
        connection,
        project_id=caller.project_id,
        name=name or default_name(stored.sha256, shapes),
        content_sha256=stored.sha256,
        shapes=shapes,
        size_bytes=stored.size_bytes,
        artifact_id=artifact_id,
    )
    if new:
        artifacts.set_owner(connection, artifact_id, row.id)
        work.enqueue_import(connection, caller.project_id, row.id)
        journal.note(connection, caller, "create", row.id)
    else:
        artifacts.remove(connection, artifact_id)
    return reply(202 if new else 200, _shown(connection, [row])[0])


def default_name(sha256: str, shapes: Shapes) -> str:
    """A name out of the content, so that the same upload without a name is the same network."""
    return f"network-{sha256[:12]}" + (f"-{json_sha256(shapes).hex()[:6]}" if shapes else "")


def page(
    services: Services, caller: Principal, state: NetworkState | None, limit: int, cursor: str | None
) -> Page[NetworkOut]:
    before = lookups.page_start(LIST, cursor, Prefix.NETWORK)
    with reading(services.engine) as connection:
        rows = networks.list_page(connection, caller.project_id, limit + 1, before, state)
        return lookups.page_of(LIST, rows, limit, lambda shown: _shown(connection, shown), lambda row: row.id)


def show(services: Services, caller: Principal, reference: str) -> NetworkOut:
    with reading(services.engine) as connection:
        return _shown(connection, [lookups.network(connection, caller, reference)])[0]


def tasks(services: Services, caller: Principal, reference: str) -> NetworkTasks:
    with reading(services.engine) as connection:
        row = lookups.network(connection, caller, reference)
        found = [_task(task) for task in networks.tasks_of(connection, row.id)]
    return NetworkTasks(network=row.id, state=NetworkState(row.state), tasks=found)


def delete(services: Services, caller: Principal, reference: str) -> None:
    """Forget the bytes and free the name; refused while the import, unfinished jobs or builds need them."""

    def work_in(connection: Connection) -> str | None:
        row = lookups.network(connection, caller, reference)
        used_by = _used_by(connection, caller, row)
        if used_by:
            raise NetworkInUse(row.id, used_by)
        artifact_id = networks.delete(connection, row.id, caller.project_id)
        journal.note(connection, caller, "delete", row.id)
        if artifact_id is None:
            return None
        uri = artifacts.get(connection, artifact_id).uri
        return uri if artifacts.remove(connection, artifact_id) else None

    with services.store.locked():
        uri = retrying(services.engine, work_in)
        if uri is not None:
            services.store.delete(uri)


def _drop_unused(services: Services, caller: Principal, stored: Stored) -> None:
    with reading(services.engine) as connection:
        used = artifacts.find(connection, caller.project_id, stored.sha256, ARTIFACT_KIND)
    if used is None:
        services.store.delete(stored.uri)


def _used_by(connection: Connection, caller: Principal, row: NetworkRow) -> list[str]:
    using_jobs = jobs.list_page(connection, caller.project_id, 1000, network_id=row.id)
    using_builds = builds.list_page(connection, caller.project_id, 1000, network_id=row.id)
    importing = ["its import"] if row.state.value == NetworkState.IMPORTING else []
    unfinished_jobs = [job.id for job in using_jobs if not job.ended]
    unfinished_builds = [build.id for build in using_builds if build.state == BuildState.BUILDING]
    return importing + unfinished_jobs + unfinished_builds


def _shown(connection: Connection, rows: Sequence[NetworkRow]) -> list[NetworkOut]:
    counts = networks.task_counts(connection, [row.id for row in rows])
    return [_out(row, counts.get(row.id, 0)) for row in rows]


def _out(row: NetworkRow, task_count: int) -> NetworkOut:
    state = NetworkState(row.state.value)
    refusal = row.refusal or None
    return NetworkOut(
        id=row.id,
        name=row.name,
        state=state,
        content_sha256=row.content_sha256,
        size_bytes=row.size_bytes,
        shapes=row.shapes,
        graph_key=row.graph_key,
        inputs=_tensors(row.inputs),
        outputs=_tensors(row.outputs),
        task_count=task_count,
        layout=row.layout,
        layout_note=row.layout_note,
        synthetic_weights=row.synthetic_weights if state is NetworkState.READY else None,
        pipeline_version=row.pipeline_version,
        failure=None if refusal is None else Failure(code=refusal["code"], detail=refusal["detail"]),
        created_at=lookups.utc(row.created_at),
    )


def _tensors(stored: Sequence[Sequence[object]] | None) -> list[Tensor]:
    return [Tensor.model_validate(dict(zip(("name", "dtype", "shape"), item, strict=True))) for item in stored or ()]


def _task(row: NetworkTaskRow) -> TaskOut:
    return TaskOut(
        workload=row.workload.sha256,
        name=row.workload.name,
        weight=row.weight,
        flops=row.workload.flops,
        arguments=[WorkloadArgument(dtype=dtype, shape=list(shape)) for dtype, shape in row.workload.args],
        output_count=row.workload.output_count,
    )
