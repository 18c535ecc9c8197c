"""Several processes on PostgreSQL and Redis, started with the commands of docker-compose.yml."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import yaml
from sqlalchemy import distinct, func, select, text

from benchmarks.cluster import COMPOSE, Cluster, ClusterFailed
from crosstune import Client
from crosstune.db.engine import create_engine, reading
from crosstune.db.tables import Measurement
from crosstune.service.schemas.jobs import Budget, JobIn, JobState
from crosstune.service.settings import PREFIX, Settings
from tests.conftest import throw_away_postgres
from tests.e2e.test_kill import check_nothing_lost_nothing_doubled

LEASE_S = 3.0


def devices_that_measured(url: str) -> int:
    engine = create_engine(url)
    with reading(engine) as connection:
        found = connection.execute(select(func.count(distinct(Measurement.device_key)))).scalar_one()
    engine.dispose()
    return int(found)


def pretend_upgrade(url: str) -> None:
    """What a later version's migrations may do: they only add."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in ("jobs", "steps", "records"):
            connection.execute(text(f"ALTER TABLE {table} ADD COLUMN of_tomorrow INTEGER"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")
def test_a_job_runs_on_two_workers_and_survives_the_death_of_one_of_each_kind_of_process(
    tmp_path: Path, tiny_network: Path
) -> None:
    with throw_away_postgres() as url:
        cluster = Cluster(tmp_path, url, lease_s=LEASE_S)
        with cluster.running(workers=2, apis=2), Client(cluster.url) as client:
            (target,) = [one for one in client.list_targets().items if len(one.devices) == 2]
            network = client.wait_network(client.upload_network(tiny_network).id)
            body = JobIn(network=network.id, target=target.id, budget=Budget(trials=64), whole_budget=True)
            job = client.create_job(body).id
            until_s = time.monotonic() + 120
            while devices_that_measured(url) < 2:
                assert time.monotonic() < until_s and not client.get_job(job).finished_at, "one worker did everything"
                time.sleep(0.1)
            for name in ("redis", "worker-0", "api-0"):
                cluster.kill(name)
            ended = client.wait(job, timeout_s=240)
            assert ended.state is JobState.SUCCEEDED, ended.failure
            check_nothing_lost_nothing_doubled(url, job)

            pretend_upgrade(url)
            small = body.model_copy(update={"seed": 1, "budget": Budget(trials=16)})
            again = client.wait(client.create_job(small).id, timeout_s=240)
            assert again.state is JobState.SUCCEEDED, "what runs goes on while the database is newer"
            with pytest.raises(ClusterFailed, match="upgrade this one"):
                cluster.start_worker(0)


def test_compose_starts_what_the_cluster_starts_with_health_checks_limits_and_known_settings() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"postgres", "redis", "migrate", "api", "worker"}
    for name in ("postgres", "redis", "api"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    for name in ("postgres", "redis", "api", "worker"):
        assert services[name]["mem_limit"] and services[name]["restart"] == "unless-stopped"
    for name in ("api", "worker"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for name in ("migrate", "api", "worker"):
        given = {key.removeprefix(PREFIX).lower() for key in services[name]["environment"]}
        assert given <= set(Settings.model_fields)
        assert services[name]["command"][0] == "crosstune"


def test_the_cluster_runs_composes_commands_with_a_folder_of_its_own_for_the_containers(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "postgresql+psycopg://nobody@127.0.0.1/nothing")
    for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items():
        if "command" in service:
            command = cluster.command(name, tmp_path / "own")
            assert Path(command[0]).name == service["command"][0]
            assert (
                command[1:] == [str(tmp_path / "own") if word == "/data" else word for word in service["command"]][1:]
            )
