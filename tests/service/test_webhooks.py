"""A job's end is told to the address that it names, signed, and only where the service may call."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select

from crosstune.db.engine import reading, transaction
from crosstune.db.repositories import jobs
from crosstune.db.repositories.jobs import JobState
from crosstune.db.tables import Step
from crosstune.service import webhooks
from crosstune.service.errors import WebhookRefused
from crosstune.service.settings import Settings
from crosstune.service.worker import Worker

SECRET = "only we know"


class Receiver:
    """Keeps what it was told; answers `status`."""

    def __init__(self, status: int = 204) -> None:
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.status = status
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.told.append((dict(self.headers), body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing is said on the test's output."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/told"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def worker(engine: Engine, tmp_path: Path) -> Iterator[Worker]:
    url = engine.url.render_as_string(hide_password=False)
    made = Worker(Settings(data_dir=tmp_path / "data", database_url=url, webhook_secret=SecretStr(SECRET)), engine)
    yield made
    made.context.close()


def ended_job(engine: Engine, make: Any, url: str | None) -> str:
    with transaction(engine) as connection:
        network = make.network(connection, "net", ("conv",))
        job = jobs.create(
            connection,
            project_id="default",
            network_id=network.id,
            target_key=make.target(connection).key,
            budget_trials=10,
            budget_s=None,
            webhook=url,
        )
        jobs.end_failed(connection, job.id, "failed", "a test ended it")
    return job.id


def notices(engine: Engine) -> list[Any]:
    with reading(engine) as connection:
        query = select(Step.id, Step.state, Step.last_exit, Step.not_before).where(Step.kind == "notify")
        return list(connection.execute(query).all())


def test_a_receiver_gets_the_job_once_it_has_ended_and_can_check_who_speaks(
    engine: Engine, make: Any, worker: Worker, receiver: Receiver
) -> None:
    job = ended_job(engine, make, receiver.url)
    (notice,) = notices(engine)
    worker.run_step(notice.id)
    ((headers, body),) = receiver.told
    assert (json.loads(body)["id"], json.loads(body)["state"]) == (job, "failed")
    seconds, digest = (part.partition("=")[2] for part in headers[webhooks.SIGNATURE].split(","))
    assert hmac.new(SECRET.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest() == digest
    assert abs(int(seconds) - time.time()) < 60
    assert notices(engine)[0].state == "done"


def test_a_receiver_that_fails_is_told_again_later_and_the_job_stays_as_it_is(
    engine: Engine, make: Any, worker: Worker, receiver: Receiver
) -> None:
    receiver.status = 500
    job = ended_job(engine, make, receiver.url)
    worker.run_step(notices(engine)[0].id)
    (notice,) = notices(engine)
    assert notice.state == "queued" and notice.not_before > time.time() + 10 and "500" in notice.last_exit
    with reading(engine) as connection:
        assert jobs.get(connection, job).state is JobState.FAILED


def test_a_job_without_a_webhook_tells_nobody(engine: Engine, make: Any) -> None:
    ended_job(engine, make, None)
    assert notices(engine) == []


@pytest.mark.parametrize("url", ["http://8.8.8.8/x", "https://[2001:4860:4860::8888]/x", "http://nowhere.invalid/x"])
def test_public_and_unknown_addresses_are_refused_unless_they_are_listed(url: str, tmp_path: Path) -> None:
    with pytest.raises(WebhookRefused, match="CROSSTUNE_WEBHOOK_HOSTS"):
        webhooks.check_address(url, Settings(data_dir=tmp_path))
    host = url.split("/")[2].strip("[]")
    webhooks.check_address(url, Settings(data_dir=tmp_path, webhook_hosts=(host,)))


def test_addresses_of_this_network_may_be_called(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/x", "http://[::1]/x", "http://10.0.0.7/x", "http://192.168.1.2/x"):
        webhooks.check_address(url, Settings(data_dir=tmp_path))
