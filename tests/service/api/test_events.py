"""Live events: nothing lost over reconnects, a snapshot where events are no longer kept, an end with the job."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from crosstune.db.engine import transaction
from crosstune.db.repositories import events, jobs
from crosstune.db.repositories.jobs import JobState

if TYPE_CHECKING:
    from tests.service.api.conftest import Api


@pytest.fixture
def job_id(api: Api) -> str:
    api.network()
    return str(
        api.made(api.post("/v1/jobs", {"network": "net", "target": api.target()["id"], "budget": {"trials": 9}}))["id"]
    )


def _append(api: Api, job_id: str, *numbers: int) -> None:
    with transaction(api.engine) as connection:
        for number in numbers:
            events.append(connection, job_id, "round", {"number": number})


def _end(api: Api, job_id: str) -> None:
    with transaction(api.engine) as connection:
        for state in (JobState.RUNNING, JobState.BUILDING, JobState.SUCCEEDED):
            jobs.transition(connection, job_id, state)


def _stream(api: Api, job_id: str, last_event_id: int | None = None) -> list[dict[str, Any]]:
    """All events until the stream ends."""
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    response = api.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found = []
    for block in response.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return found


def test_the_stream_of_an_ended_job_tells_all_and_ends(api: Api, job_id: str) -> None:
    _append(api, job_id, 1, 2)
    _end(api, job_id)
    found = _stream(api, job_id)
    assert [event["id"] for event in found] == list(range(1, len(found) + 1))
    assert [event["data"]["data"]["number"] for event in found if event["event"] == "round"] == [1, 2]
    assert found[-1]["data"]["data"]["state"] == "succeeded"
    assert {event["data"]["job"] for event in found} == {job_id}


def test_a_reconnect_gets_exactly_what_it_missed(api: Api, job_id: str) -> None:
    _append(api, job_id, 1, 2, 3)
    _end(api, job_id)
    everything = _stream(api, job_id)
    for last_seen in range(len(everything) + 1):
        assert _stream(api, job_id, last_seen) == everything[last_seen:]


def test_events_arrive_while_they_happen(api: Api, job_id: str) -> None:
    def play() -> None:
        for number in range(5):
            time.sleep(0.05)
            _append(api, job_id, number)
        _end(api, job_id)

    player = threading.Thread(target=play)
    player.start()
    watchers: list[list[dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda: watchers.append(_stream(api, job_id))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in [player, *threads]:
        thread.join(20)
    assert len(watchers) == 3
    for found in watchers:
        assert [event["data"]["data"]["number"] for event in found if event["event"] == "round"] == [0, 1, 2, 3, 4]
        assert found[-1]["data"]["data"]["state"] == "succeeded"
    assert api.app.state.services.hub._watchers == {}


def test_a_place_before_what_is_kept_gets_a_snapshot_first(api: Api, job_id: str) -> None:
    _append(api, job_id, 1, 2)
    with transaction(api.engine) as connection:
        events.prune(connection, time.time() + 1)
    _append(api, job_id, 3)
    with transaction(api.engine) as connection:
        latest = jobs.get(connection, job_id).event_sequence
    _end(api, job_id)
    first, *rest = _stream(api, job_id, 1)
    assert first["event"] == "snapshot" and first["data"]["id"] == job_id and first["data"]["state"] == "succeeded"
    assert rest == [] and first["id"] == latest + 3
    assert [event["id"] for event in _stream(api, job_id, latest - 1)] == list(range(latest, latest + 4))


def test_a_place_that_never_was_gets_a_snapshot(api: Api, job_id: str) -> None:
    _end(api, job_id)
    assert [event["event"] for event in _stream(api, job_id, 999)] == ["snapshot"]


def test_what_is_no_event_id_and_an_unknown_job_are_refused_before_the_stream(api: Api, job_id: str) -> None:
    response = api.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"})
    api.problem(response, 422, "event-id-refused")
    api.problem(api.get("/v1/jobs/job_unknown/events"), 404, "job-unknown")


def test_a_long_backlog_comes_in_order(api: Api, job_id: str) -> None:
    _append(api, job_id, *range(450))
    _end(api, job_id)
    numbers = [event["data"]["data"]["number"] for event in _stream(api, job_id) if event["event"] == "round"]
    assert numbers == list(range(450))
