"""What is kept for how long: nothing that is best or newest ever goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, update

from crosstune.db.engine import reading, transaction
from crosstune.db.repositories import builds, events, projects, records, schedules
from crosstune.db.tables import Build, Measurement
from crosstune.service import retention
from crosstune.service.artifact_rows import add_artifact
from crosstune.service.settings import Settings
from crosstune.service.store import Store

OLD_S = time.time() - 100 * retention.DAY_S


def settings_of(folder: Path, **days: float) -> Settings:
    return Settings(data_dir=folder, **{f"keep_{name}_days": value for name, value in days.items()})


def finished_build(engine: Engine, make: Any, store: Store, folder: Path, content: bytes, finished_at: float) -> str:
    source = folder / "built"
    source.write_bytes(content)
    stored = store.put_file("default", "build", source)
    with transaction(engine) as connection:
        network = make.network(connection, "net", ("conv",))
        target = make.target(connection)
        build = builds.create(
            connection, project_id="default", network_id=network.id, target_key=target.key, schedules=[]
        )
        artifact = add_artifact(connection, "default", "build", stored, build.id)
        values = {"state": "ready", "artifact_id": artifact, "finished_at": finished_at}
        connection.execute(update(Build).where(Build.id == build.id).values(**values))
    return build.id


def artifacts_of(engine: Engine, *ids: str) -> list[bool]:
    with reading(engine) as connection:
        return [builds.get(connection, one).artifact_id is not None for one in ids]


def test_old_builds_lose_their_artifacts_but_for_the_newest(engine: Engine, make: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = [finished_build(engine, make, store, tmp_path, content, OLD_S) for content in (b"one", b"two", b"three")]
    retention.tidy(engine, store, settings_of(tmp_path))
    assert artifacts_of(engine, *given) == [True, True, True]
    retention.tidy(engine, store, settings_of(tmp_path, builds=30))
    assert artifacts_of(engine, *given) == [False, False, True]
    left = [path.read_bytes() for path in (tmp_path / "artifacts" / "default" / "build").rglob("*") if path.is_file()]
    assert left == [b"three"]


def test_bytes_that_a_newer_build_shares_stay(engine: Engine, make: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    given = [finished_build(engine, make, store, tmp_path, b"the same", at) for at in (OLD_S, time.time())]
    retention.tidy(engine, store, settings_of(tmp_path, builds=30))
    assert artifacts_of(engine, *given) == [False, True]
    assert [path for path in (tmp_path / "artifacts" / "default" / "build").rglob("*") if path.is_file()]


def test_failed_attempts_go_when_they_are_old_and_verdicts_and_the_best_stay(
    engine: Engine, make: Any, tmp_path: Path
) -> None:
    with transaction(engine) as connection:
        target, workload = make.target(connection), make.workload(connection)
        project = projects.get(connection).key
        failed = make.failure("compile", measured_at=OLD_S)
        candidates = [
            make.candidate("good", make.full(1e-3, measured_at=OLD_S)),
            make.candidate("bad", failed),
            make.candidate("fresh", make.failure("compile")),
        ]
        records.store(
            connection, target_key=target.key, workload_key=workload.key, project_key=project, candidates=candidates
        )
    retention.tidy(engine, Store(tmp_path), settings_of(tmp_path, failed=30))
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(Measurement)).scalar_one() == 2
        known = {one.invalidity for one in schedules.known(connection, target.key, workload.key, 0)}
        assert known == {None, "compile"}
        assert schedules.best(connection, target.key, [workload.key], project)[workload.key].latency_s == 1e-3


def test_events_go_after_the_days_that_the_settings_say(engine: Engine, make: Any, tmp_path: Path) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, now=OLD_S)
        events.append(connection, job.id, "state", {"state": "running"})
    for days, left in ((200.0, 2), (30.0, 1)):
        retention.tidy(engine, Store(tmp_path), settings_of(tmp_path, events=days))
        with reading(engine) as connection:
            assert len(events.after(connection, job.id, 0)) == left
