"""What the work of a step may use: database, files, this machine's children, its device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sqlalchemy import Connection, Engine

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import devices
from crosstune.db.repositories.devices import DeviceLease
from crosstune.db.repositories.steps import Claim
from crosstune.service.background import Background
from crosstune.service.calibrated import known_references_s
from crosstune.service.heart import Heart, Held
from crosstune.service.settings import Settings
from crosstune.service.store import Store
from crosstune.tuner.builder import Builder
from crosstune.tuner.child import Template
from crosstune.tuner.rounds import RoundRunner
from crosstune.tuner.runner import Runner
from crosstune.tuner.search import Searcher
from crosstune.tuner.targets import Machine, detect_machine

DEVICE_POLL_S = 0.05
"""How often a worker that waits for the device looks whether it is free."""


class Stopped(Exception):
    """The work ended early: its step was cancelled or lost, the worker shuts down, or the device was paused."""


class TryAgain(Exception):
    """What the work needs is not there now, as is to be expected; it may be after `retry_s` seconds."""

    def __init__(self, text: str, retry_s: float) -> None:
        super().__init__(text)
        self.retry_s = retry_s


@dataclass(slots=True, frozen=True)
class Identity:
    """This worker as the database knows it."""

    worker_id: str
    worker_key: int
    owner: str
    """The name on leases: worker id, unique per process."""
    host: str
    device_id: str
    device_key: int


@dataclass
class WorkerContext:
    settings: Settings
    engine: Engine
    store: Store
    heart: Heart
    identity: Identity
    template_folder: Path
    take_next: Callable[[Connection], Claim | None]
    """Claims what this worker is to do next, if there is anything."""
    background: Background = field(default_factory=Background)
    template_lock: threading.Lock = field(default_factory=threading.Lock)
    _template: Template | None = None

    @property
    def template(self) -> Template:
        """The process that children are forked from, started when first needed."""
        with self.template_lock:
            if self._template is None:
                self._template = Template.start(folder=self.template_folder)
            return self._template

    @cached_property
    def machine(self) -> Machine:
        return detect_machine(self.template)

    @cached_property
    def runner(self) -> Runner:
        return Runner(self.template, self.settings.run_timeout_s, known_references_s(self.engine))

    @cached_property
    def rounds(self) -> RoundRunner:
        settings = self.settings
        return RoundRunner(
            searcher=Searcher(self.template),
            builder=Builder(self.template, settings.builders, settings.build_timeout_s),
            runner=self.runner,
        )

    def _acquire(self, held: Held) -> DeviceLease | None:
        if held.should_stop():
            raise Stopped
        identity = self.identity
        return retrying(
            self.engine,
            lambda connection: devices.acquire(connection, identity.device_id, identity.owner, self.settings.lease_s),
        )

    def _device_active(self) -> bool:
        with reading(self.engine) as connection:
            return devices.get(connection, self.identity.device_id).state == devices.DeviceState.ACTIVE

    def close(self) -> None:
        """End all children."""
        if "rounds" in self.__dict__:
            self.rounds.close()
        if "runner" in self.__dict__:
            self.runner.close()
        with self.template_lock:
            if self._template is not None:
                self._template.close()
                self._template = None

    def end(self, connection: Connection, held: Held) -> None:
        """Last in the transaction that ends a step: give its devices back and claim the next step.

        Rounds come by the hundred, and would else take two more transactions each.
        """
        for lease in held.leases:
            devices.release(connection, lease)
        held.next = self.take_next(connection)
        held.ended = True

    @contextmanager
    def measuring(self, held: Held, until_end: bool = False) -> Iterator[None]:
        """Hold this machine's device: one measures at a time, whatever the target.

        `until_end`: it is given back by the transaction that ends the step (`end`), or by whoever cleans up after it.
        Raises Stopped when the step is to stop, or the device is paused, while waiting for it.
        """
        taken = self._acquire(held)
        while taken is None:
            if not self._device_active():
                raise Stopped
            time.sleep(DEVICE_POLL_S)
            taken = self._acquire(held)
        lease = taken
        try:
            with self.heart.holding_device(lease), self.background.paused():
                yield
        finally:
            if until_end:
                held.leases.append(lease)
            else:
                retrying(self.engine, lambda connection: devices.release(connection, lease))


Execute = Callable[[WorkerContext, Claim, Held], None]
"""The work of one kind of step. It finishes its claim itself, in the transaction that stores its results."""
