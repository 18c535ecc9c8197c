"""Import step: a network's bytes become tasks, or a refusal that says why."""

from __future__ import annotations

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import artifacts, jobs, networks, steps, workloads
from crosstune.db.repositories.steps import Claim
from crosstune.service import jobs as service_jobs
from crosstune.service.heart import Held
from crosstune.service.steps.context import WorkerContext
from crosstune.tuner.contracts import ImportedNetwork, NetworkRefused, Workload
from crosstune.tuner.tasks import import_network


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    network_id = claim.input["network_id"]
    with reading(context.engine) as connection:
        network = networks.get(connection, network_id)
        assert network.artifact_id is not None, "an importing network has its bytes"
        artifact = artifacts.get(connection, network.artifact_id)
    path = context.store.path(artifact.uri)
    with context.template.spawn("import") as child, held.on_stop(child.close):
        try:
            imported = import_network(child, path, network.shapes, context.settings.import_timeout_s)
        except NetworkRefused as refusal:
            refused = refusal
            retrying(context.engine, lambda connection: _refuse(connection, claim, network_id, refused))
            return
    retrying(context.engine, lambda connection: _store(connection, claim, network_id, imported))


def _refuse(connection: Connection, claim: Claim, network_id: str, refusal: NetworkRefused) -> None:
    steps.finish(connection, claim)
    networks.refuse(connection, network_id, refusal.code, refusal.detail, refusal.facts)
    _start_waiting_jobs(connection, network_id)


def _store(connection: Connection, claim: Claim, network_id: str, imported: ImportedNetwork) -> None:
    steps.finish(connection, claim)
    keys = [(store_workload(connection, task.workload), task.weight) for task in imported.tasks]
    networks.mark_ready(
        connection,
        network_id,
        graph_key=imported.graph_key,
        inputs=imported.inputs,
        outputs=imported.outputs,
        layout=imported.layout,
        layout_note=imported.layout_note,
        synthetic_weights=imported.synthetic_weights,
        pipeline_version=imported.pipeline_version,
        tasks=keys,
    )
    _start_waiting_jobs(connection, network_id)


def store_workload(connection: Connection, workload: Workload) -> int:
    """The key of the workload's row, made when it is new."""
    return workloads.get_or_create(
        connection,
        sha256=workload.sha256,
        version_free_key=workload.version_free_key,
        name=workload.name,
        module=workload.module,
        flops=workload.flops,
        args=workload.args,
        output_count=workload.output_count,
        tvm_version=workload.tvm_version,
        pipeline_version=workload.pipeline_version,
    ).key


def _start_waiting_jobs(connection: Connection, network_id: str) -> None:
    for job in jobs.live(connection):
        if job.network_id == network_id:
            service_jobs.start_job(connection, jobs.lock(connection, job.id))
