"""One method per operation of the API, under its operation id; arguments and answers are the API's own schemas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from crosstune.service.client.errors import ClientError
from crosstune.service.client.event_stream import EventStream
from crosstune.service.client.transport import Transport
from crosstune.service.schemas.builds import BuildIn, BuildOut
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.cost_models import (
    ComparisonOut,
    CostModelDetail,
    CostModelOut,
    DriftOut,
    JudgeIn,
    JudgeOut,
    PredictIn,
    PredictOut,
    RetrainIn,
)
from crosstune.service.schemas.devices import DeviceOut, WorkerOut
from crosstune.service.schemas.health import Liveness, Readiness
from crosstune.service.schemas.jobs import JobDetail, JobEvent, JobIn, JobOut, JobPlan, JobResume, JobState
from crosstune.service.schemas.networks import NetworkOut, NetworkState, NetworkTasks
from crosstune.service.schemas.records import ExportedRecord, ExportFormat, LoadOut, RecordOut, WithdrawIn, WithdrawOut
from crosstune.service.schemas.schedules import BestSchedules
from crosstune.service.schemas.steps import StepDetail
from crosstune.service.schemas.targets import CalibrateIn, DetectIn, ExploreIn, StepOut, TargetIn, TargetOut

ModelT = TypeVar("ModelT", bound=BaseModel)
DEFAULT_LIMIT = 50


class Operations:
    """The API as methods. Every one raises ApiError when the service refuses and ServiceUnreachable when it is away.

    `key` is an Idempotency-Key: the same key and body give the same answer, whoever sends them; without one each call
    makes its own, which only protects that call's retries.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # Health

    def get_liveness(self) -> Liveness:
        return self._get(Liveness, "/livez")

    def get_readiness(self) -> Readiness:
        """Whether the service can work; one that cannot is an answer here, not an error."""
        response = self._transport.request("GET", "/readyz", accepted=(503,))
        return _read(Readiness, response.content)

    def get_metrics(self) -> str:
        return self._transport.request("GET", "/metrics").text

    # Networks

    def create_network(
        self,
        content: bytes,
        *,
        name: str | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        key: str | None = None,
    ) -> NetworkOut:
        """Upload ONNX bytes; the network is `importing` at first, or what it became when the content is known."""
        shape = [f"{tensor}:{','.join(str(size) for size in sizes)}" for tensor, sizes in (shapes or {}).items()]
        response = self._transport.request(
            "POST",
            "/v1/networks",
            params={"name": name, "shape": shape},
            content=content,
            headers={"Content-Type": "application/octet-stream", **_key(key)},
        )
        return _read(NetworkOut, response.content)

    def list_networks(
        self, *, state: NetworkState | None = None, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[NetworkOut]:
        return self._get(Page[NetworkOut], "/v1/networks", state=state, limit=limit, cursor=cursor)

    def get_network(self, network: str) -> NetworkOut:
        return self._get(NetworkOut, f"/v1/networks/{_part(network)}")

    def get_network_tasks(self, network: str) -> NetworkTasks:
        return self._get(NetworkTasks, f"/v1/networks/{_part(network)}/tasks")

    def delete_network(self, network: str) -> None:
        """Delete the network's bytes and free its name."""
        self._transport.request("DELETE", f"/v1/networks/{_part(network)}")

    # Targets

    def create_target(self, body: TargetIn) -> TargetOut:
        return self._post(TargetOut, "/v1/targets", body)

    def detect_target(self, body: DetectIn | None = None) -> TargetOut:
        """Register the machine that the service runs on."""
        return self._post(TargetOut, "/v1/targets/detect", body or DetectIn())

    def list_targets(self, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[TargetOut]:
        return self._get(Page[TargetOut], "/v1/targets", limit=limit, cursor=cursor)

    def get_target(self, target: str) -> TargetOut:
        return self._get(TargetOut, f"/v1/targets/{_part(target)}")

    def calibrate_target(self, target: str, body: CalibrateIn | None = None, *, key: str | None = None) -> StepOut:
        return self._post(StepOut, f"/v1/targets/{_part(target)}/calibrate", body or CalibrateIn(device=None), key=key)

    def explore_target(self, target: str, body: ExploreIn | None = None, *, key: str | None = None) -> StepOut:
        return self._post(StepOut, f"/v1/targets/{_part(target)}/explore", body or ExploreIn(), key=key)

    # Devices and workers

    def list_devices(self, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[DeviceOut]:
        return self._get(Page[DeviceOut], "/v1/devices", limit=limit, cursor=cursor)

    def get_device(self, device: str) -> DeviceOut:
        return self._get(DeviceOut, f"/v1/devices/{_part(device)}")

    def pause_device(self, device: str) -> DeviceOut:
        return self._post(DeviceOut, f"/v1/devices/{_part(device)}/pause")

    def resume_device(self, device: str) -> DeviceOut:
        return self._post(DeviceOut, f"/v1/devices/{_part(device)}/resume")

    def drain_device(self, device: str) -> DeviceOut:
        return self._post(DeviceOut, f"/v1/devices/{_part(device)}/drain")

    def list_workers(self, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[WorkerOut]:
        return self._get(Page[WorkerOut], "/v1/workers", limit=limit, cursor=cursor)

    def drain_worker(self, worker: str) -> WorkerOut:
        return self._post(WorkerOut, f"/v1/workers/{_part(worker)}/drain")

    def resume_worker(self, worker: str) -> WorkerOut:
        return self._post(WorkerOut, f"/v1/workers/{_part(worker)}/resume")

    # Jobs

    def create_job(self, body: JobIn, *, key: str | None = None) -> JobDetail:
        return self._post(JobDetail, "/v1/jobs", body, key=key)

    def plan_job(self, body: JobIn) -> JobPlan:
        """`create_job` with `dry_run=true`: what the job would do; nothing is created."""
        return self._post(JobPlan, "/v1/jobs", body, params={"dry_run": "true"})

    def list_jobs(
        self,
        *,
        state: JobState | None = None,
        network: str | None = None,
        target: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[JobOut]:
        label = [f"{name}={value}" for name, value in (labels or {}).items()]
        query = {"state": state, "network": network, "target": target, "label": label}
        return self._get(Page[JobOut], "/v1/jobs", **query, limit=limit, cursor=cursor)

    def get_job(self, job: str) -> JobDetail:
        return self._get(JobDetail, job_path(job))

    def job_events(self, job: str, *, after: int = 0) -> Iterator[JobEvent]:
        """The job's events with a sequence above `after`, as they happen, until the job has ended.

        Broken connections are opened again where they broke: no event is missed or comes twice.
        """
        return iter(EventStream(self._transport, job_path(job), after))

    def cancel_job(self, job: str) -> JobDetail:
        return self._post(JobDetail, f"{job_path(job)}/cancel")

    def resume_job(self, job: str, body: JobResume, *, key: str | None = None) -> JobDetail:
        return self._post(JobDetail, f"{job_path(job)}/resume", body, key=key)

    # Builds

    def create_build(self, body: BuildIn, *, key: str | None = None) -> BuildOut:
        return self._post(BuildOut, "/v1/builds", body, key=key)

    def list_builds(
        self,
        *,
        network: str | None = None,
        target: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[BuildOut]:
        return self._get(Page[BuildOut], "/v1/builds", network=network, target=target, limit=limit, cursor=cursor)

    def get_build(self, build: str) -> BuildOut:
        return self._get(BuildOut, f"/v1/builds/{_part(build)}")

    def get_artifact(self, build: str, file: str | Path) -> str:
        """Write the build's archive to `file` and return the sha256 (hex) that the service gives for it."""
        return self._download(f"/v1/builds/{_part(build)}/artifact", file)

    # Schedules and records

    def best_schedules(
        self, target: str, *, network: str | None = None, workload: str | None = None, traces: bool = False
    ) -> BestSchedules:
        query = {"target": target, "network": network, "workload": workload, "traces": str(traces).lower()}
        return self._get(BestSchedules, "/v1/schedules/best", **query)

    def list_records(
        self,
        *,
        target: str | None = None,
        workload: str | None = None,
        failed: bool | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[RecordOut]:
        query = _record_query(target, workload, failed)
        return self._get(Page[RecordOut], "/v1/records", **query, limit=limit, cursor=cursor)

    def export_records(
        self, *, target: str | None = None, workload: str | None = None, failed: bool | None = None
    ) -> Iterator[ExportedRecord]:
        """Every record that the filter selects, oldest first, streamed one at a time."""
        return (_read(ExportedRecord, line.encode()) for line in self.export_lines(target, workload, failed))

    def export_lines(
        self, target: str | None = None, workload: str | None = None, failed: bool | None = None
    ) -> Iterator[str]:
        """`export_records` as the lines of NDJSON that the service sends."""
        query = {**_record_query(target, workload, failed), "format": ExportFormat.NDJSON.value}
        with self._transport.stream("/v1/records/export", params=query) as response:
            yield from _filled(response.iter_lines())

    def import_records(self, content: bytes, *, key: str | None = None) -> LoadOut:
        """Upload the training set of another service's cost model, as `get_training_set` writes it."""
        headers = {"Content-Type": "application/octet-stream", **_key(key)}
        response = self._transport.request("POST", "/v1/records/import", content=content, headers=headers)
        return _read(LoadOut, response.content)

    def get_step(self, step: str) -> StepDetail:
        return self._get(StepDetail, f"/v1/steps/{_part(step)}")

    def withdraw_records(self, body: WithdrawIn) -> WithdrawOut:
        return self._post(WithdrawOut, "/v1/records/withdraw", body)

    # Cost models

    def list_cost_models(self, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[CostModelOut]:
        return self._get(Page[CostModelOut], "/v1/cost-models", limit=limit, cursor=cursor)

    def get_cost_model(self, version: str) -> CostModelDetail:
        return self._get(CostModelDetail, f"/v1/cost-models/{_part(version)}")

    def retrain_cost_model(self, body: RetrainIn | None = None, *, key: str | None = None) -> CostModelOut:
        return self._post(CostModelOut, "/v1/cost-models/retrain", body or RetrainIn(), key=key)

    def judge_cost_models(self, body: JudgeIn, *, key: str | None = None) -> JudgeOut:
        return self._post(JudgeOut, "/v1/cost-models/judge", body, key=key)

    def cancel_retraining(self, version: str) -> CostModelOut:
        return self._post(CostModelOut, f"/v1/cost-models/{_part(version)}/cancel")

    def compare_cost_models(self, first: str, second: str) -> ComparisonOut:
        return self._get(ComparisonOut, "/v1/cost-models/compare", first=first, second=second)

    def get_drift(self, *, target: str | None = None) -> DriftOut:
        return self._get(DriftOut, "/v1/cost-models/drift", target=target)

    def promote_cost_model(self, version: str) -> CostModelOut:
        return self._post(CostModelOut, f"/v1/cost-models/{_part(version)}/promote")

    def roll_back_cost_model(self) -> CostModelOut:
        return self._post(CostModelOut, "/v1/cost-models/roll-back")

    def get_cost_model_files(self, version: str, file: str | Path) -> str:
        """Write the version's archive to `file` and return the sha256 (hex) that the service gives for it."""
        return self._download(f"/v1/cost-models/{_part(version)}/files", file)

    def predict(self, version: str, body: PredictIn) -> PredictOut:
        return self._post(PredictOut, f"/v1/cost-models/{_part(version)}/predict", body)

    def get_training_set(self, version: str, file: str | Path) -> str:
        """The same of the data set (Parquet) that the version learnt from."""
        return self._download(f"/v1/cost-models/{_part(version)}/training-set", file)

    def _download(self, path: str, file: str | Path) -> str:
        with self._transport.stream(path) as response, Path(file).open("wb") as out:
            for chunk in response.iter_bytes():
                out.write(chunk)
            return str(response.headers.get("etag", "")).strip('"')

    def _get(self, model: type[ModelT], path: str, **query: Any) -> ModelT:
        return _read(model, self._transport.request("GET", path, params=query).content)

    def _post(
        self,
        model: type[ModelT],
        path: str,
        body: BaseModel | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> ModelT:
        sent = None if body is None else body.model_dump(mode="json", exclude_none=True)
        response = self._transport.request("POST", path, params=params, json=sent, headers=_key(key))
        return _read(model, response.content)


def _read(model: type[ModelT], content: bytes) -> ModelT:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise ClientError(
            f"the service's answer is not what this client understands ({error.error_count()} members of "
            f"{model.__name__} differ); is it a crosstune service of the same version?"
        ) from error


def job_path(job: str) -> str:
    return f"/v1/jobs/{_part(job)}"


def _part(name: str) -> str:
    """A path segment: nothing in a name can lead to another path."""
    return quote(name, safe="")


def _key(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _record_query(target: str | None, workload: str | None, failed: bool | None) -> dict[str, Any]:
    return {"target": target, "workload": workload, "failed": None if failed is None else str(failed).lower()}


def _filled(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line)
