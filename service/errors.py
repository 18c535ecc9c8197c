"""What can be wrong with a request: one flat family; each error's text says what was wrong and what would be right.

`facts` are extra members of the problem+json answer. The HTTP side of each is the table in `problems.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crosstune.tuner.contracts import CrosstuneError


class ServiceError(CrosstuneError):
    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.facts: dict[str, Any] = facts


def _known(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return shown or "none"


class NetworkUnknown(ServiceError):
    def __init__(self, network: str, known: Sequence[str] = ()) -> None:
        super().__init__(
            f"there is no network {network!r}; known networks: {_known(known)}. Upload one with POST /v1/networks",
            network=network,
            known=list(known[:10]),
        )


class TargetUnknown(ServiceError):
    def __init__(self, target: str, known: Sequence[str] = ()) -> None:
        super().__init__(
            f"there is no target {target!r}; known targets: {_known(known)}. "
            "Register this machine with POST /v1/targets/detect or describe another with POST /v1/targets",
            target=target,
            known=list(known[:10]),
        )


class DeviceUnknown(ServiceError):
    def __init__(self, device: str, known: Sequence[str] = ()) -> None:
        super().__init__(
            f"there is no device {device!r}; known devices: {_known(known)}", device=device, known=list(known[:10])
        )


class JobUnknown(ServiceError):
    def __init__(self, job: str) -> None:
        super().__init__(f"there is no job {job!r}; GET /v1/jobs lists those that exist", job=job)


class BuildUnknown(ServiceError):
    def __init__(self, build: str) -> None:
        super().__init__(f"there is no build {build!r}; GET /v1/builds lists those that exist", build=build)


class WorkloadUnknown(ServiceError):
    def __init__(self, workload: str) -> None:
        super().__init__(
            f"there is no workload {workload!r}; GET /v1/networks/{{network}}/tasks lists those of a network",
            workload=workload,
        )


class StepUnknown(ServiceError):
    def __init__(self, step: str) -> None:
        super().__init__(f"there is no step {step!r}; whatever begins work answers with the id of its step", step=step)


class WorkerUnknown(ServiceError):
    def __init__(self, worker: str) -> None:
        super().__init__(f"there is no worker {worker!r}; GET /v1/workers lists those that were there", worker=worker)


class CostModelUnknown(ServiceError):
    def __init__(self, version: str) -> None:
        super().__init__(f"there is no cost model {version!r}; GET /v1/cost-models lists the versions", version=version)


class CostModelHasNoFiles(ServiceError):
    def __init__(self, version: str, state: str = "shipped") -> None:
        super().__init__(
            f"cost model {version} has no files here, it is {state}; take a candidate, champion or retired version",
            version=version,
            state=state,
        )


class CostModelNotTraining(ServiceError):
    def __init__(self, version: str, state: str) -> None:
        super().__init__(f"cost model {version} is {state}, so there is no training to cancel", version=version)


class RetrainRunning(ServiceError):
    def __init__(self, version: str) -> None:
        super().__init__(
            f"{version} is in training; wait for it, or stop it with POST /v1/cost-models/{version}/cancel",
            version=version,
        )


class NotJudgedTogether(ServiceError):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"{first} and {second} were never judged on the same programs; a retraining judges its version beside the "
            "champion, the shipped one and the newest others, POST /v1/cost-models/judge any others",
            first=first,
            second=second,
        )


class PromotionRefused(ServiceError):
    def __init__(self, version: str, champion: str, reasons: Sequence[str]) -> None:
        super().__init__(
            f"{version} may not replace {champion}: {'; '.join(reasons)}. Retrain it on more, or keep {champion}",
            version=version,
            champion=champion,
            reasons=list(reasons),
        )


class ScheduleRefused(ServiceError):
    def __init__(self, problem: str) -> None:
        super().__init__(
            f"these are no schedules that a cost model can read ({problem}); give a trace's instructions, and of each "
            "schedule its decisions, as GET /v1/schedules/best?traces=true shows them"
        )


class NothingToRollBack(ServiceError):
    def __init__(self) -> None:
        super().__init__("the version that comes with the package is in use; there is none before it")


class NetworkNotReady(ServiceError):
    def __init__(self, network: str, state: str) -> None:
        super().__init__(
            f"network {network} is still {state}; its tasks are known once GET /v1/networks/{network} says ready",
            network=network,
            state=state,
        )


class NetworkUnusable(ServiceError):
    def __init__(self, network: str, code: str, reason: str) -> None:
        super().__init__(
            f"network {network} was refused when it was imported: {reason}. Upload a corrected network",
            network=network,
            code=code,
        )


class NetworkBytesDeleted(ServiceError):
    def __init__(self, network: str) -> None:
        super().__init__(
            f"the bytes of network {network} were deleted; upload it again with POST /v1/networks", network=network
        )


class NetworkInUse(ServiceError):
    def __init__(self, network: str, jobs: Sequence[str]) -> None:
        super().__init__(
            f"network {network} is used by unfinished work ({_known(jobs)}); cancel it or wait for its end",
            network=network,
            used_by=list(jobs[:10]),
        )


class ShapeRefused(ServiceError):
    def __init__(self, shape: str, reason: str) -> None:
        super().__init__(
            f"shape {shape!r} {reason}; write the input's name and its sizes as input:1,3,224,224", shape=shape
        )


class WebhookRefused(ServiceError):
    def __init__(self, host: str, reason: str) -> None:
        super().__init__(
            f"the webhook's host {host!r} {reason}; addresses of this network are called, and hosts that "
            "CROSSTUNE_WEBHOOK_HOSTS lists",
            host=host,
        )


class UploadEmpty(ServiceError):
    def __init__(self) -> None:
        super().__init__("the request has no body; send the bytes of an ONNX file")


class JobIsOver(ServiceError):
    def __init__(self, job: str, state: str, wanted: str) -> None:
        super().__init__(f"job {job} is {state} and cannot be {wanted}", job=job, state=state)


class JobNotOver(ServiceError):
    def __init__(self, job: str, state: str) -> None:
        super().__init__(
            f"job {job} is {state}; only a job that has ended can be resumed. Wait for its end or cancel it first",
            job=job,
            state=state,
        )


class BuildNotReady(ServiceError):
    def __init__(self, build: str, state: str) -> None:
        super().__init__(
            f"build {build} is {state} and has no artifact; GET /v1/builds/{build} tells when it has",
            build=build,
            state=state,
        )


class BuildFailed(ServiceError):
    def __init__(self, build: str, reason: str) -> None:
        super().__init__(f"build {build} has no artifact because it failed: {reason}", build=build)


class ArtifactGone(ServiceError):
    def __init__(self, build: str) -> None:
        super().__init__(f"the artifact of build {build} was deleted; POST /v1/builds makes a new one", build=build)


class PinsRefused(ServiceError):
    pass


class NoDeviceForTarget(ServiceError):
    def __init__(self, target: str) -> None:
        super().__init__(
            f"no device stands for target {target}; start a worker on such a machine and run "
            "POST /v1/targets/detect there, or name one with `device` when registering the target",
            target=target,
        )


class BudgetRefused(ServiceError):
    """A budget that would change nothing."""


class SelectionRefused(ServiceError):
    """Query parameters that do not go together, or a filter that selects nothing definable."""


class CursorRefused(ServiceError):
    def __init__(self) -> None:
        super().__init__("the cursor was not made by this list; start again without `cursor`")


class EventIdRefused(ServiceError):
    def __init__(self, value: str) -> None:
        super().__init__(
            f"Last-Event-ID {value[:40]!r} is not an event of a job; send the `id` of the last event seen, or none"
        )


class NotLoopback(ServiceError):
    def __init__(self, client: str) -> None:
        super().__init__(
            "only callers on this machine are answered while there are no API keys; use an SSH tunnel from elsewhere",
            client=client,
        )


class ScopeMissing(ServiceError):
    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__(f"this needs the scope {', '.join(scopes)}", scopes=list(scopes))


class HostRefused(ServiceError):
    def __init__(self, host: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"the Host header {host[:100]!r} is not served; use one of {', '.join(allowed)}, "
            "or add it to CROSSTUNE_ALLOWED_HOSTS",
            host=host[:100],
        )


class OriginRefused(ServiceError):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}: web pages of other origins may not call this service; "
            "trusted ones can be added to CROSSTUNE_ALLOWED_ORIGINS"
        )


class ContentTypeRefused(ServiceError):
    def __init__(self, got: str, wanted: Sequence[str]) -> None:
        super().__init__(
            f"Content-Type {got[:100]!r} is not taken here; send {' or '.join(wanted)}", wanted=list(wanted)
        )


class BodyTooLarge(ServiceError):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than the {limit_bytes} bytes taken here", limit_bytes=limit_bytes)


class TooBusy(ServiceError):
    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} requests that change something are being answered already; nothing was done, come back in a second"
        )


class LimitReached(ServiceError):
    """Storage is full or a like limit of the machine; nothing was stored."""
