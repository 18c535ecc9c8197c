"""A device measures for one holder at a time, for all targets that it can stand for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from crosstune.db.engine import retrying, transaction
from crosstune.db.errors import NotFound, StaleClaim
from crosstune.db.repositories import devices, workers


def machine(connection: Connection, make: Any) -> devices.DeviceRow:
    device = devices.register(connection, name="this machine", kind="local", host="box")
    for name in ("avx512", "avx2"):
        devices.stand_for(connection, device.key, make.target(connection, name).key)
    return device


def test_two_targets_of_one_machine_share_one_lease(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        machine(connection, make)
        (one,), (other,) = (
            devices.for_target(connection, make.target(connection, name).key) for name in ("avx512", "avx2")
        )
        lease = devices.acquire(connection, one.id, "a", 15, now=100)
        assert lease is not None
        assert devices.acquire(connection, other.id, "b", 15, now=101) is None
        assert devices.acquire(connection, other.id, "a", 15, now=101) is None
        assert devices.release(connection, lease)
        assert devices.acquire(connection, other.id, "b", 15, now=102) is not None


def test_a_lease_that_passed_is_taken_over_and_the_late_holder_is_refused(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        device = machine(connection, make)
        late = devices.acquire(connection, device.id, "a", 15, now=100)
        other = devices.acquire(connection, device.id, "b", 15, now=116)
        assert late is not None and other is not None
        assert devices.renew(connection, "a", 15, [late], now=117) == frozenset()
        assert devices.renew(connection, "b", 15, [other], now=117) == {device.id}
        assert not devices.release(connection, late)
        devices.check(connection, other)
        with pytest.raises(StaleClaim):
            devices.check(connection, late)
        assert devices.acquire(connection, device.id, "a", 15, now=131) is None
        assert devices.acquire(connection, device.id, "a", 15, now=133) is not None


def test_a_released_lease_is_not_renewed(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        device = machine(connection, make)
        lease = devices.acquire(connection, device.id, "a", 15, now=100)
        assert lease is not None and devices.release(connection, lease)
        assert devices.renew(connection, "a", 15, [lease], now=101) == frozenset()
        assert devices.get(connection, device.id).owner is None


def test_a_paused_device_gives_no_new_lease_and_is_not_found_for_a_target(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        device = machine(connection, make)
        target_key = make.target(connection, "avx2").key
        held = devices.acquire(connection, device.id, "a", 15, now=100)
        assert held is not None
        assert devices.set_state(connection, device.id, devices.DeviceState.PAUSED).state == "paused"
        assert devices.renew(connection, "a", 15, [held], now=101) == {device.id}
        assert devices.for_target(connection, target_key) == []
        devices.release(connection, held)
        assert devices.acquire(connection, device.id, "b", 15, now=102) is None
        devices.set_state(connection, device.id, devices.DeviceState.ACTIVE)
        assert [one.id for one in devices.for_target(connection, target_key, host="box")] == [device.id]
        assert devices.for_target(connection, target_key, host="elsewhere") == []


def test_a_target_is_served_while_a_worker_of_the_devices_host_is_alive(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        device = machine(connection, make)
        target_key = make.target(connection, "avx2").key
        assert devices.serving(connection, target_key, seen_after=90) == 0
        worker = workers.register(connection, host="box", pid=1, version="0.1.0", schema="0001", now=100)
        assert devices.serving(connection, target_key, seen_after=90) == 1
        assert devices.serving(connection, target_key, seen_after=101) == 0
        assert devices.serving(connection, make.target(connection, "other").key, seen_after=90) == 0
        assert workers.beat(connection, worker.id, now=120) is False
        assert devices.serving(connection, target_key, seen_after=101) == 1
        workers.drain(connection, worker.id)
        assert workers.beat(connection, worker.id, now=121) is True
        assert devices.serving(connection, target_key, seen_after=101) == 0
        workers.stop(connection, worker.id)
        assert workers.seen_since(connection, 0) == []
        assert [one.id for one in workers.list_page(connection, 9)] == [worker.id]
        assert devices.targets_of(connection, device.key) == sorted(
            make.target(connection, name).id for name in ("avx512", "avx2")
        )


def test_registering_a_device_again_changes_nothing(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        device = machine(connection, make)
        devices.store_calibration(connection, device.key, {"peak": 1.0})
        again = machine(connection, make)
        assert again.id == device.id and again.last_calibration == {"peak": 1.0}
        assert [one.id for one in devices.list_page(connection, 9)] == [device.id]
        with pytest.raises(NotFound):
            devices.get(connection, "no such device")


def test_of_many_workers_that_want_the_device_at_the_same_moment_one_gets_it(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        device_id = machine(connection, make).id
    got: list[devices.DeviceLease | None] = []

    def take(owner: str) -> None:
        got.append(retrying(engine, lambda connection: devices.acquire(connection, device_id, owner, 60)))

    threads = [threading.Thread(target=take, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 6 and len([lease for lease in got if lease is not None]) == 1
