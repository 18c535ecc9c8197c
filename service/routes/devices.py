"""Devices and workers: look, pause, resume, drain."""

from __future__ import annotations

from fastapi import APIRouter

from crosstune.service import devices, errors
from crosstune.service.deps import ServicesDep
from crosstune.service.principal import Administrator, Reader
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, DevicePath, Limit, WorkerPath
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.devices import DeviceOut, DeviceState, WorkerOut

router = APIRouter(prefix="/v1", tags=["devices"])


@router.get(
    "/devices",
    operation_id="list_devices",
    summary="List devices",
    response_model=Page[DeviceOut],
    responses=problems(errors.CursorRefused),
)
def list_devices(
    caller: Reader, services: ServicesDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[DeviceOut]:
    return devices.page(services, limit, cursor)


@router.get(
    "/devices/{device}",
    operation_id="get_device",
    summary="Show a device",
    response_model=DeviceOut,
    responses=problems(errors.DeviceUnknown),
)
def get_device(caller: Reader, services: ServicesDep, device: DevicePath) -> DeviceOut:
    return devices.show(services, device)


@router.post(
    "/devices/{device}/pause",
    operation_id="pause_device",
    summary="Measure nothing new on a device",
    response_model=DeviceOut,
    responses=problems(errors.DeviceUnknown),
)
def pause_device(caller: Administrator, services: ServicesDep, device: DevicePath) -> DeviceOut:
    """What is being measured ends; nothing new begins until the device is resumed."""
    return devices.set_state(services, caller, device, DeviceState.PAUSED)


@router.post(
    "/devices/{device}/resume",
    operation_id="resume_device",
    summary="Measure on a device again",
    response_model=DeviceOut,
    responses=problems(errors.DeviceUnknown),
)
def resume_device(caller: Administrator, services: ServicesDep, device: DevicePath) -> DeviceOut:
    return devices.set_state(services, caller, device, DeviceState.ACTIVE)


@router.post(
    "/devices/{device}/drain",
    operation_id="drain_device",
    summary="Take a device out of service",
    response_model=DeviceOut,
    responses=problems(errors.DeviceUnknown),
)
def drain_device(caller: Administrator, services: ServicesDep, device: DevicePath) -> DeviceOut:
    """Like a pause, of a device that is going away."""
    return devices.set_state(services, caller, device, DeviceState.DRAINING)


@router.get(
    "/workers",
    operation_id="list_workers",
    summary="List workers",
    response_model=Page[WorkerOut],
    responses=problems(errors.CursorRefused),
)
def list_workers(
    caller: Reader, services: ServicesDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[WorkerOut]:
    return devices.workers_page(services, limit, cursor)


@router.post(
    "/workers/{worker}/drain",
    operation_id="drain_worker",
    summary="Let a worker take nothing new",
    response_model=WorkerOut,
    responses=problems(errors.WorkerUnknown),
)
def drain_worker(caller: Administrator, services: ServicesDep, worker: WorkerPath) -> WorkerOut:
    """It finishes what it has in hand. A `crosstune worker` then ends; one inside a service waits."""
    return devices.set_draining(services, caller, worker, True)


@router.post(
    "/workers/{worker}/resume",
    operation_id="resume_worker",
    summary="Let a drained worker take work again",
    response_model=WorkerOut,
    responses=problems(errors.WorkerUnknown),
)
def resume_worker(caller: Administrator, services: ServicesDep, worker: WorkerPath) -> WorkerOut:
    return devices.set_draining(services, caller, worker, False)
