"""Targets: described by hand or detected, stored once by identity; which device can stand for them; calibration."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, Engine

from crosstune.db.engine import reading, retrying
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix
from crosstune.db.repositories import devices, labels, projects, targets
from crosstune.db.repositories.devices import DeviceRow
from crosstune.db.repositories.targets import TargetRow
from crosstune.service import idempotency, journal, lookups, work
from crosstune.service.errors import NoDeviceForTarget
from crosstune.service.principal import Principal, Scope
from crosstune.service.replies import Reply, reply
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.targets import (
    CalibrateIn,
    DetectIn,
    ExploreIn,
    HardwareFact,
    StepOut,
    TargetIn,
    TargetOut,
)
from crosstune.service.services import Services
from crosstune.tuner import targets as hardware
from crosstune.tuner.contracts import TargetRefused, TargetSpec
from crosstune.tuner.hardware import Attributes
from crosstune.tuner.targets import Machine

LIST = "targets"
LOCAL = "local"


def create(services: Services, caller: Principal, body: TargetIn) -> Reply:
    """A target described by hand. This machine's device stands for it too when it can."""
    spec = hardware.parse(body.model_dump(include={"kind", "mcpu", "cores", "model", "mattr", "triple"}))
    services.hardware.validate(spec)
    runs_here = hardware.can_measure(spec, services.hardware.machine()) is None

    def register(connection: Connection) -> Reply:
        standing = [lookups.device(connection, body.device)] if body.device else []
        standing += [device for device in _known_local_devices(connection) if runs_here]
        return _register(connection, caller, spec, body.name, body.labels, {}, standing)

    return retrying(services.engine, register)


def detect(services: Services, caller: Principal, body: DetectIn) -> Reply:
    """Register this machine as a target, and as the device that stands for it; a new target is calibrated soon."""
    machine = services.hardware.machine()
    spec = _overridden(hardware.native(machine), body)
    services.hardware.validate(spec)
    obstacle = hardware.can_measure(spec, machine)
    if obstacle is not None:
        raise TargetRefused(f"this machine cannot stand for the target: {obstacle}; leave out what is to be detected")

    def register(connection: Connection) -> Reply:
        return _register(
            connection, caller, spec, body.name, body.labels, machine.attributes, [local_device(connection)]
        )

    return retrying(services.engine, register)


def stand_for_all(engine: Engine, machine: Machine, device_id: str) -> None:
    """Let a device stand for its machine's own target, made and calibrated when it is new, and for every other one that
    it can measure."""

    def register(connection: Connection) -> None:
        project = projects.get(connection)
        caller = Principal(project.id, project.key, project.name, frozenset(Scope))
        device = devices.get(connection, device_id)
        _register(connection, caller, hardware.native(machine), None, {}, machine.attributes, [device])
        for row in targets.every(connection):
            if hardware.can_measure(TargetSpec.from_json(row.spec), machine) is None:
                devices.stand_for(connection, device.key, row.key)

    retrying(engine, register)


def local_device(connection: Connection) -> DeviceRow:
    """The device that this machine itself is, made when it is new."""
    host = socket.gethostname()
    return devices.register(connection, name=host, kind=LOCAL, host=host)


def _known_local_devices(connection: Connection) -> list[DeviceRow]:
    """This machine's own device, when a worker or a detection has registered it."""
    try:
        return [devices.get(connection, socket.gethostname())]
    except NotFound:
        return []


def _overridden(spec: TargetSpec, body: DetectIn) -> TargetSpec:
    """What was detected with what was asked for; features of a processor do not fit one that was named by hand."""
    mattr = body.mattr if body.mattr is not None else (spec.mattr if body.mcpu is None else ())
    return replace(spec, mcpu=body.mcpu or spec.mcpu, cores=body.cores or spec.cores, mattr=tuple(sorted(mattr)))


def _register(
    connection: Connection,
    caller: Principal,
    spec: TargetSpec,
    name: str | None,
    marks: Mapping[str, str],
    attributes: Attributes,
    standing: Sequence[DeviceRow],
) -> Reply:
    row, new = targets.register(
        connection, identity=spec.identity, name=name or _free_name(connection, spec), spec=spec.to_json()
    )
    for origin in sorted({attribute.origin for attribute in attributes.values()}):
        facts = {key: attribute.value for key, attribute in attributes.items() if attribute.origin == origin}
        targets.add_facts(connection, row.key, facts, origin)
    for device in standing:
        devices.stand_for(connection, device.key, row.key)
    if marks:
        labels.replace(connection, caller.project_id, row.id, marks)
    if new:
        journal.note(connection, caller, "create", row.id)
    if new and attributes:  # detected, so this machine can tell the rest by measuring
        for device in standing:
            work.enqueue_calibrate(connection, caller.project_id, row.id, device.id)
    return reply(201 if new else 200, _shown(connection, caller, [row])[0])


def _free_name(connection: Connection, spec: TargetSpec) -> str:
    """A name for people; with the start of the identity when another target has it."""
    name = hardware.default_name(spec)[:80]
    try:
        taken = targets.get(connection, name).identity != spec.identity
    except NotFound:
        taken = False
    return f"{name}-{spec.identity[:8]}" if taken else name


def page(services: Services, caller: Principal, limit: int, cursor: str | None) -> Page[TargetOut]:
    before = lookups.page_start(LIST, cursor, Prefix.TARGET)
    with reading(services.engine) as connection:
        rows = targets.list_page(connection, limit + 1, before)
        return lookups.page_of(LIST, rows, limit, lambda shown: _shown(connection, caller, shown), lambda row: row.id)


def show(services: Services, caller: Principal, reference: str) -> TargetOut:
    with reading(services.engine) as connection:
        return _shown(connection, caller, [lookups.target(connection, reference)])[0]


def calibrate(services: Services, caller: Principal, key: str | None, reference: str, body: CalibrateIn) -> Reply:
    def enqueue(connection: Connection) -> Reply:
        target = lookups.target(connection, reference)
        standing = {device.id: device for device in devices.for_target(connection, target.key)}
        if body.device is not None:
            chosen = standing.get(lookups.device(connection, body.device).id)
        else:
            chosen = next(iter(standing.values()), None)
        if chosen is None:
            raise NoDeviceForTarget(target.id)
        step_id = work.enqueue_calibrate(connection, caller.project_id, target.id, chosen.id)
        journal.note(connection, caller, "calibrate", target.id)
        return reply(202, StepOut(step=step_id, kind="calibrate", target=target.id, device=chosen.id))

    request = ["calibrate_target", reference, body.model_dump(mode="json")]
    return idempotency.once(services, caller, key, request, enqueue)


def explore(services: Services, caller: Principal, key: str | None, reference: str, body: ExploreIn) -> Reply:
    def enqueue(connection: Connection) -> Reply:
        target = lookups.target(connection, reference)
        device = next(iter(devices.for_target(connection, target.key)), None)
        if device is None:
            raise NoDeviceForTarget(target.id)
        request = {"target_id": target.id, **body.model_dump(mode="json")}
        step_id = work.enqueue_explore(connection, caller.project_id, target.key, request)
        journal.note(connection, caller, "explore", target.id)
        return reply(202, StepOut(step=step_id, kind="explore", target=target.id, device=device.id))

    request = ["explore_target", reference, body.model_dump(mode="json")]
    return idempotency.once(services, caller, key, request, enqueue)


def _shown(connection: Connection, caller: Principal, rows: Sequence[TargetRow]) -> list[TargetOut]:
    marks = labels.of_many(connection, caller.project_id, [row.id for row in rows])
    return [_out(connection, row, marks.get(row.id, {})) for row in rows]


def _out(connection: Connection, row: TargetRow, marks: dict[str, str]) -> TargetOut:
    spec = TargetSpec.from_json(row.spec)
    facts = targets.facts_of(connection, row.key)
    return TargetOut(
        id=row.id,
        name=row.name,
        identity=row.identity,
        kind=spec.kind,
        mcpu=spec.mcpu,
        cores=spec.cores,
        model=spec.model,
        mattr=list(spec.mattr),
        triple=spec.triple,
        attributes={fact.attribute: HardwareFact(value=fact.value, origin=fact.origin) for fact in facts},
        devices=[device.id for device in devices.for_target(connection, row.key)],
        labels=marks,
        created_at=lookups.utc(row.created_at),
    )
