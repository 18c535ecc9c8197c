"""Where nothing can be written a service is not ready, and begins nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from crosstune.db.engine import create_engine
from crosstune.db.repositories import steps
from crosstune.service import health, room
from crosstune.service.services import Services
from crosstune.service.settings import Settings
from crosstune.service.worker import Worker


def read_only(engine: Engine) -> Engine:
    """The same database, opened by somebody who may not write to it."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return create_engine(f"sqlite:///file:{url.database}?mode=ro&uri=true")
    made = create_engine(url.render_as_string(hide_password=False))

    @event.listens_for(made, "connect")
    def forbid(connection: Any, _record: Any) -> None:
        connection.execute("SET default_transaction_read_only = on")
        connection.commit()

    return made


def services_of(engine: Engine, folder: Path) -> Services:
    folder.mkdir(exist_ok=True)
    return Services(Settings(data_dir=folder, database_url=engine.url.render_as_string(hide_password=False)), engine)


def test_a_database_that_takes_no_writes_is_not_ready(engine: Engine, tmp_path: Path) -> None:
    assert health.readiness(services_of(engine, tmp_path / "data")).ready
    found = health.readiness(services_of(read_only(engine), tmp_path / "data"))
    assert not found.ready and found.database == "takes no writes"


def test_a_disk_that_is_nearly_full_is_not_ready(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LEAST_FREE_BYTES", 2**60)
    found = health.readiness(services_of(engine, tmp_path / "data"))
    assert not found.ready and str(tmp_path / "data") in found.storage and found.database == "ok"


def test_a_worker_without_room_begins_nothing_and_goes_on_when_there_is_some(
    engine: Engine, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(Worker, "run_step", lambda self, step_id: begun.append(step_id))
    monkeypatch.setattr(room, "LEAST_FREE_BYTES", 2**60)
    url = engine.url.render_as_string(hide_password=False)
    worker = Worker(Settings(data_dir=tmp_path / "data", database_url=url, sweep_s=0.05), engine)
    with engine.begin() as connection:
        step = steps.enqueue(connection, kind="import", queue="crosstune", project_id="default", input={})
    worker.start()
    try:
        time.sleep(0.5)
        assert begun == []
        monkeypatch.setattr(room, "LEAST_FREE_BYTES", 0)
        until_s = time.monotonic() + 5
        while not begun and time.monotonic() < until_s:
            time.sleep(0.02)
        assert begun[0] == step
    finally:
        worker.stop()
