"""Liveness, readiness, and what the process that answers HTTP does not load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from crosstune.db.engine import transaction
from crosstune.db.errors import SchemaOutdated
from crosstune.db.repositories import ranking_checks, targets, workloads
from crosstune.db.repositories.ranking_checks import Ranked
from crosstune.service.app import create_app
from crosstune.service.settings import read_settings
from tests.service.api.conftest import sha256

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

START = """
import json, sys, time
begin = time.process_time()
from crosstune.service.app import create_app
from crosstune.service.settings import read_settings
create_app(read_settings(data_dir=sys.argv[1], embedded_worker=False))
print(json.dumps({"start_s": time.process_time() - begin, "modules": sorted(sys.modules)}))
"""


def test_a_service_without_a_worker_is_ready_with_a_warning(api: Api) -> None:
    assert api.get("/livez").json()["status"] == "ok"
    response = api.get("/readyz")
    assert response.status_code == 200
    found = response.json()
    assert found["ready"] and found["database"] == "ok" and found["live_workers"] == 0
    assert found["schema_version"] == found["expected_schema_version"]
    assert "no live worker" in found["warnings"][0]


def test_a_live_worker_and_waiting_work_are_counted(api: Api) -> None:
    api.worker()
    api.upload()
    found = api.get("/readyz").json()
    assert (found["live_workers"], found["queued_steps"], found["warnings"]) == (1, 1, [])


def test_a_database_of_another_version_is_not_ready_and_names_the_command(api: Api) -> None:
    with api.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    response = api.get("/readyz")
    assert response.status_code == 503
    assert "crosstune db upgrade" in response.json()["database"]
    assert api.get("/livez").status_code == 200


def test_a_database_that_was_upgraded_meanwhile_keeps_a_running_process_ready_with_a_warning(api: Api) -> None:
    with api.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    response = api.get("/readyz")
    assert response.status_code == 200
    assert any("upgrade this process" in warning for warning in response.json()["warnings"])


def test_an_empty_database_stops_the_start_with_the_command_that_helps(tmp_path: Path) -> None:
    app = create_app(read_settings(data_dir=tmp_path, embedded_worker=False))
    with pytest.raises(SchemaOutdated, match="crosstune db upgrade"), TestClient(app):
        pass


def test_the_process_that_answers_http_loads_no_compiler_and_starts_fast(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", START, str(tmp_path)], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    heavy = {"tvm", "tvm_ffi", "torch", "onnx", "onnxruntime", "xgboost", "numpy", "scipy"}
    assert heavy.isdisjoint(found["modules"])
    # Processor time: well under a second on an idle machine; the margin is for one that is busy with other tests.
    assert found["start_s"] < 2


def test_prometheus_reads_steps_workers_and_how_batches_were_ranked(api: Api) -> None:
    target = api.target()["id"]
    api.worker(target)
    api.network()
    with transaction(api.engine) as connection:
        for _ in range(10):
            ranking_checks.add(
                connection,
                Ranked(8, 0.4, 0.1, 0.05),
                target_key=targets.get(connection, target).key,
                workload_key=workloads.get(connection, sha256("workload 0")).key,
                model_key=None,
                step_key=None,
            )
    found = api.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    lines = found.text.splitlines()
    assert "crosstune_workers_live 1.0" in lines
    assert 'crosstune_steps{state="queued"} 1.0' in lines
    assert any(line.startswith("crosstune_queue_steps{target=") and line.endswith(" 1.0") for line in lines)
    waits = [line for line in lines if line.startswith("crosstune_queue_oldest_seconds{")]
    assert waits and all(0.0 <= float(line.split()[-1]) < 600.0 for line in waits)
    assert "crosstune_trials_total 0.0" in lines and 'crosstune_jobs{state="running"} 0.0' in lines
    place = f'{{operator="all",target="{target}"}}'
    assert f"crosstune_ranking_pairwise_accuracy{place} 0.4" in lines
    assert f"crosstune_ranking_drifting{place} 1.0" in lines
