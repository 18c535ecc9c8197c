"""The typed client against the real application on a loopback port, with cut connections on the way."""

from __future__ import annotations

import inspect
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crosstune.service.client import ApiError, Client, ClientError, ServiceUnreachable, WaitedTooLong
from crosstune.service.client.sse import RawEvent, read_events
from crosstune.service.schemas.jobs import Budget, JobEvent, JobResume, JobState
from crosstune.service.schemas.networks import NetworkState
from crosstune.service.schemas.targets import TargetIn
from crosstune.tuner.contracts import NetworkRefused

if TYPE_CHECKING:
    from tests.service.conftest import LiveService


class CuttingProxy:
    """A TCP proxy that can cut a connection after some bytes of the answer, or swallow a whole answer."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = upstream_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.plans: list[Callable[[bytes, int], bool]] = []
        self.requests: list[bytes] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._closed = True
        self._listener.close()

    def cut_when(self, condition: Callable[[bytes, int], bool]) -> None:
        """Cut the next connection when `condition(answer so far, its length)` is true."""
        self.plans.append(condition)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._upstream))
            plan = self.plans.pop(0) if self.plans else (lambda _answer, _length: False)
            threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
            threading.Thread(target=self._answers, args=(far, near, plan), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        while data := _receive(near):
            self.requests.append(data)
            far.sendall(data)
        _shut(far)

    def _answers(self, far: socket.socket, near: socket.socket, plan: Callable[[bytes, int], bool]) -> None:
        answer = b""
        while data := _receive(far):
            answer += data
            if plan(answer, len(answer)):
                break
            near.sendall(data)
        _shut(near)
        _shut(far)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
    finally:
        connection.close()


@pytest.fixture
def client(live_service: LiveService) -> Iterator[Client]:
    with Client(live_service.url, timeout_s=20) as made:
        yield made


@pytest.fixture
def proxy(live_service: LiveService) -> Iterator[CuttingProxy]:
    made = CuttingProxy(live_service.port)
    yield made
    made.close()


def test_every_operation_of_the_api_is_a_method_of_the_client(live_service: LiveService) -> None:
    schema = live_service.app.openapi()
    operations = {operation["operationId"] for path in schema["paths"].values() for operation in path.values()}
    assert len(operations) > 25
    missing = [name for name in operations if not inspect.isfunction(getattr(Client, name, None))]
    assert not missing
    assert set(schema["paths"]) >= {"/v1/jobs", "/v1/networks", "/v1/builds"}


def test_the_clients_usual_address_is_the_services_usual_port() -> None:
    from crosstune.service.client.client import DEFAULT_URL
    from crosstune.service.settings import Settings

    assert f"http://{Settings.model_fields['host'].default}:{Settings.model_fields['port'].default}" == DEFAULT_URL


def test_readiness_is_an_answer_also_when_nothing_works_yet(client: Client) -> None:
    assert client.get_liveness().status == "ok"
    readiness = client.get_readiness()
    assert readiness.database == "ok"
    assert readiness.live_workers == 0


def test_a_target_described_by_hand_is_listed_and_found_by_name(client: Client) -> None:
    body = TargetIn(kind="llvm", mcpu="x86-64", cores=2, model="Test Silicon 1", name="by-hand")
    made = client.create_target(body)
    assert made.name == "by-hand"
    assert client.get_target("by-hand") == made
    assert [it.id for it in client.collect(client.list_targets)] == [made.id]
    assert client.create_target(body).id == made.id
    with pytest.raises(ApiError) as caught:
        client.create_target(body.model_copy(update={"mcpu": "no-such-processor"}))
    assert caught.value.kind == "target-refused"


def test_a_refusal_carries_the_problem_and_says_what_is_known(live_service: LiveService, client: Client) -> None:
    live_service.target("known")
    with pytest.raises(ApiError) as caught:
        client.get_target("unknown")
    assert caught.value.status == 404
    assert caught.value.kind == "target-unknown"
    assert caught.value.problem["known"] == ["known"]
    assert "unknown" in str(caught.value)


def test_a_name_with_a_slash_reaches_no_other_route(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.get_job("../networks")
    assert caught.value.status in {404, 422}


def test_nothing_listening_is_told_with_the_next_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}")
    client._transport.pause_s = 0.001
    with pytest.raises(ServiceUnreachable, match="crosstune serve"):
        client.get_liveness()


@pytest.mark.parametrize("url", ["localhost:80", "ftp://localhost", "http://", "http://localhost:port", ""])
def test_an_address_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="http://127"):
        Client(url)


def test_an_upload_can_be_repeated_and_lists_page_by_page(client: Client, tmp_path: Path) -> None:
    networks = [client.upload_network(f"network {number}".encode()) for number in range(5)]
    assert all(it.state is NetworkState.IMPORTING for it in networks)
    assert client.upload_network(b"network 3").id == networks[3].id
    first = client.list_networks(limit=2)
    assert len(first.items) == 2 and first.next is not None
    everything = client.collect(client.list_networks)
    assert [it.id for it in everything] == [it.id for it in reversed(networks)]
    assert len(client.collect(client.list_networks, 3)) == 3


def test_a_file_gives_its_name_while_that_is_free(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "my network (1).onnx"
    file.write_bytes(b"one")
    assert client.upload_network(file).name == "my-network-1"
    file.write_bytes(b"two")
    assert client.upload_network(file).name != "my-network-1"
    with pytest.raises(ApiError) as caught:
        client.upload_network(b"three", name="my-network-1")
    assert caught.value.kind == "name-taken"


def test_a_file_that_is_not_there_is_said_so(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="absent"):
        client.upload_network(tmp_path / "absent.onnx")


def test_shapes_reach_the_service_as_they_were_given(client: Client) -> None:
    made = client.upload_network(b"dynamic", shapes={"input:0": (1, 3, 8, 8), "mask": [1, 8]})
    assert made.shapes == {"input:0": [1, 3, 8, 8], "mask": [1, 8]}


def test_waiting_for_an_import_raises_the_reason_of_a_refusal(live_service: LiveService, client: Client) -> None:
    network = client.upload_network(b"not onnx")
    with pytest.raises(WaitedTooLong):
        client.wait_network(network.id, timeout_s=0.2)
    live_service.refuse_network(network.id, "not-onnx", "the bytes are not an ONNX file")
    with pytest.raises(NetworkRefused, match="not an ONNX") as caught:
        client.wait_network(network.id)
    assert caught.value.code == "not-onnx"


def test_a_deleted_network_is_gone_also_when_the_first_answer_was_lost(
    live_service: LiveService, client: Client, proxy: CuttingProxy
) -> None:
    network = client.upload_network(b"short-lived")
    live_service.make_ready(network.id)
    proxy.cut_when(lambda answer, _length: b" 204 " in answer)
    with Client(proxy.url) as cut:
        cut.delete_network(network.id)
    assert client.collect(client.list_networks) == []


def test_a_submit_whose_answer_is_lost_makes_one_job(
    live_service: LiveService, client: Client, proxy: CuttingProxy
) -> None:
    body = live_service.job_in(client)
    proxy.cut_when(lambda answer, _length: b" 201 " in answer)
    with Client(proxy.url) as cut:
        job = cut.create_job(body)
    assert [it.id for it in client.collect(client.list_jobs)] == [job.id]
    keys = {line for request in proxy.requests for line in request.split(b"\r\n") if b"dempotency-" in line}
    assert len(keys) == 1
    assert len(proxy.requests) >= 2


def test_the_same_key_is_the_same_job_and_no_key_is_a_new_one(live_service: LiveService, client: Client) -> None:
    body = live_service.job_in(client)
    first, again = client.create_job(body, key="once"), client.create_job(body, key="once")
    assert first.id == again.id
    assert client.create_job(body).id != first.id
    with pytest.raises(ApiError) as caught:
        client.create_job(body.model_copy(update={"seed": 7}), key="once")
    assert caught.value.kind == "idempotency-key-reused"


def test_a_submit_with_a_wrong_budget_uploads_nothing(client: Client) -> None:
    with pytest.raises(ValueError, match="trials"):
        client.submit(b"bytes", "nowhere", trials=0)
    with pytest.raises(ValueError, match="seconds"):
        client.submit(b"bytes", "nowhere")
    assert client.collect(client.list_networks) == []


def test_a_submit_of_a_file_that_is_not_there_asks_the_service_nothing() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ClientError, match="no file absent"):
        client.submit("absent.onnx", trials=1)


def test_a_submit_for_an_unknown_target_uploads_nothing(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit(b"bytes", "nowhere", trials=1)
    assert caught.value.kind == "target-unknown"
    assert client.collect(client.list_networks) == []


def test_events_are_followed_to_the_end_of_the_job(live_service: LiveService, client: Client) -> None:
    job = client.create_job(live_service.job_in(client))
    seen: list[int] = []

    def on_event(event: JobEvent) -> None:
        seen.append(event.sequence)

    with live_service.background(lambda: live_service.play(job.id, 5, pause_s=0.05)):
        ended = client.wait(job.id, on_event, timeout_s=30)
    assert ended.state is JobState.SUCCEEDED
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= 5


def test_a_stream_cut_in_the_middle_goes_on_without_loss_or_repetition(
    live_service: LiveService, client: Client, proxy: CuttingProxy
) -> None:
    job = client.create_job(live_service.job_in(client))
    proxy.cut_when(lambda answer, _length: answer.count(b"data:") >= 3)
    proxy.cut_when(lambda answer, _length: answer.count(b"data:") >= 3)
    proxy.cut_when(lambda answer, _length: b"text/event-stream" in answer)
    with Client(proxy.url) as cut, live_service.background(lambda: live_service.play(job.id, 12, pause_s=0.1)):
        seen = [event.sequence for event in cut.job_events(job.id)]
    assert seen == list(range(1, len(seen) + 1))
    assert seen[-1] == live_service.last_sequence(job.id)
    resumed = [request for request in proxy.requests if b"ast-" in request and b"vent-" in request]
    assert len(resumed) >= 2


def test_events_can_start_after_one_that_is_known(live_service: LiveService, client: Client) -> None:
    job = client.create_job(live_service.job_in(client))
    live_service.play(job.id, 4, pause_s=0)
    last = live_service.last_sequence(job.id)
    assert [event.sequence for event in client.job_events(job.id, after=last - 2)] == [last - 1, last]
    assert list(client.job_events(job.id, after=last)) == []


def test_a_stream_ended_by_a_service_that_stops_goes_on_with_the_next_one(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        job = client.create_job(live_service.job_in(client))
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.extend(it.sequence for it in client.job_events(job.id)))
        reader.start()
        live_service.play(job.id, 2, pause_s=0, ending=None)
        _until(lambda: len(seen) > 2)
        live_service.restart()
        live_service.play(job.id, 2, pause_s=0)
        reader.join(30)
    assert seen == list(range(1, live_service.last_sequence(job.id) + 1))


def test_an_unknown_job_has_no_events(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        list(client.job_events("job_0198c1f2-0000-7000-8000-000000000000"))
    assert caught.value.status == 404


def test_waiting_ends_at_its_time_out_and_the_job_goes_on(live_service: LiveService, client: Client) -> None:
    job = client.create_job(live_service.job_in(client))
    began_s = time.monotonic()
    with pytest.raises(WaitedTooLong):
        client.wait(job.id, timeout_s=0.5)
    assert time.monotonic() - began_s < 10
    assert client.get_job(job.id).state not in {JobState.CANCELLED, JobState.FAILED}


def test_a_job_is_cancelled_and_resumed_with_more_budget(live_service: LiveService, client: Client) -> None:
    job = client.create_job(live_service.job_in(client))
    assert client.cancel_job(job.id).state is JobState.CANCELLED
    assert client.cancel_job(job.id).state is JobState.CANCELLED
    resumed = client.resume_job(job.id, JobResume(budget=Budget(trials=5)))
    assert resumed.id == job.id
    assert resumed.budget.trials == 15
    with pytest.raises(ApiError) as caught:
        client.resume_job(job.id, JobResume(budget=Budget(trials=5)))
    assert caught.value.kind == "job-not-over"


def test_jobs_are_found_by_label(live_service: LiveService, client: Client) -> None:
    body = live_service.job_in(client)
    client.create_job(body)
    labelled = client.create_job(body.model_copy(update={"labels": {"team": "vision"}}))
    assert [it.id for it in client.collect(client.list_jobs, labels={"team": "vision"})] == [labelled.id]


def test_an_artifact_arrives_whole_in_a_new_folder(live_service: LiveService, client: Client, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "manifest.json").write_text("{}")
    (tmp_path / "made" / "network.so").write_bytes(b"code")
    archive = Path(shutil.make_archive(str(tmp_path / "artifact"), "tar", tmp_path, "made"))
    build = live_service.build(client)
    with pytest.raises(ApiError) as caught:
        client.download_artifact(build.id, tmp_path / "early")
    assert caught.value.kind == "build-not-ready"
    assert not (tmp_path / "early").exists()
    live_service.finish_build(build.id, archive)
    assert client.wait_build(build.id).tuned_latency_s == 0.002
    folder = client.download_artifact(build.id, tmp_path / "new" / "here")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "network.so"]
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    with pytest.raises(ClientError, match="not empty"):
        client.download_artifact(build.id, folder)


def test_an_artifact_that_arrives_damaged_is_refused(live_service: LiveService, client: Client, tmp_path: Path) -> None:
    build = live_service.build(client)
    archive = tmp_path / "artifact.tar"
    archive.write_bytes(b"first")
    live_service.finish_build(build.id, archive)
    (live_service.settings.data_dir / "artifacts" / "made" / archive.name).write_bytes(b"other")
    with pytest.raises(ClientError, match="damaged"):
        client.download_artifact(build.id, tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_an_event_that_was_cut_off_is_not_an_event() -> None:
    lines = ["id: 1", "event: round", "data: {", "data: }", "", ": heartbeat", "", "id: 2", "data: half"]
    assert list(read_events(lines)) == [RawEvent("1", "round", "{\n}")]


def _until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not become true"
        time.sleep(0.02)
