"""The command line: against the real application, and as a process of its own where start and end matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

import crosstune
from crosstune.db.engine import transaction
from crosstune.db.repositories import devices, workers
from crosstune.db.repositories.jobs import JobState
from crosstune.service import running
from crosstune.service.cli import application
from crosstune.service.cli.reference import reference
from crosstune.service.client import Client
from crosstune.service.embedded import embedded_service
from crosstune.tuner.contracts import CrosstuneError

if TYPE_CHECKING:
    from tests.service.conftest import LiveService

COMMAND = [sys.executable, "-m", "crosstune.service.cli"]


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(application, list(arguments), **options)


def run_at(service: LiveService, *arguments: str) -> Result:
    return run("--url", service.url, *arguments)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(b"stands for a network")
    return path


def test_help_answers_within_a_second_and_imports_neither_tvm_nor_torch_nor_the_service() -> None:
    script = (
        "import sys, atexit; sys.argv = ['crosstune', '--help']\n"
        "heavy = ('tvm', 'torch', 'onnx', 'onnxruntime', 'xgboost', 'fastapi', 'sqlalchemy', 'numpy')\n"
        "atexit.register(lambda: print('LOADED', [name for name in heavy if name in sys.modules]))\n"
        "from crosstune.service.cli import main; main()"
    )
    times_s = []
    for _ in range(3):
        began_s = time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        times_s.append(time.monotonic() - began_s)
    assert "LOADED []" in done.stdout
    assert "submit" in done.stdout
    assert min(times_s) < 1.0


def test_an_embedded_service_ends_when_the_program_that_started_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from crosstune.service.embedded import embedded_service\n"
        "with embedded_service(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(100)"
    )
    program = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None and program.stdout.readline().startswith("http")
    assert running.find(tmp_path) is not None
    program.kill()
    program.wait()
    deadline_s = time.monotonic() + 20
    while running.find(tmp_path) is not None:
        assert time.monotonic() < deadline_s, "the service goes on alone"
        time.sleep(0.1)


def test_importing_the_package_costs_next_to_nothing() -> None:
    script = (
        "import time, sys; began = time.perf_counter(); import crosstune; spent = time.perf_counter() - began\n"
        "print(spent); assert not {'tvm', 'pydantic', 'httpx', 'numpy'} & set(sys.modules)\n"
        "assert crosstune.Client.__name__ == 'Client' and crosstune.__version__"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(3)]
    assert all(done.returncode == 0 for done in runs), runs[0].stderr
    assert min(float(done.stdout) for done in runs) < 0.1


def test_the_reference_page_is_current() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
    hint = "run: python -m crosstune.service.cli.reference > docs/cli.md"
    assert page.read_text() == reference(), hint


def test_wrong_usage_is_exit_code_2_and_names_the_option() -> None:
    for arguments, expected in [
        (["submit", "x.onnx", "--shape", "input"], "--shape"),
        (["submit", "x.onnx", "--shape", "input:1,0"], "--shape"),
        (["submit", "x.onnx", "--minutes", "-1"], "--minutes"),
        (["submit", "x.onnx", "--trials", "0"], "--trials"),
        (["submit", "x.onnx", "--label", "nothing"], "--label"),
        (["best"], "--target"),
        (["best", "--target", "x"], "--network"),
        (["build", "--network", "x"], "--target"),
        (["job", "list", "--state", "asleep"], "waiting_for_device"),
        (["network", "upload", "/nowhere.onnx"], "nowhere"),
        (["no-such-command"], "no-such-command"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert expected in result.output, arguments


def test_a_value_that_the_schemas_refuse_is_wrong_usage_not_a_traceback(live_service: LiveService) -> None:
    result = run_at(live_service, "target", "add", "--mcpu", "a b", "--cores", "2", "--model", "x")
    assert result.exit_code == 2
    assert "mcpu" in result.output
    assert "Traceback" not in result.output


def test_no_service_is_one_sentence_with_the_next_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--url", "http://127.0.0.1:1", "job", "list"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "crosstune serve" in done.stderr


def test_a_refusal_of_the_service_is_one_sentence(live_service: LiveService) -> None:
    result = run_at(live_service, "job", "show", "job_0198c1f2-0000-7000-8000-000000000000", "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "there is no job" in result.stderr


def test_a_wrong_setting_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSTUNE_PORT", "many")
    result = run("job", "list")
    assert result.exit_code == 1
    assert "CROSSTUNE_PORT" in result.stderr


def test_targets_are_added_and_listed(live_service: LiveService) -> None:
    added = run_at(
        live_service,
        *("target", "add", "--mcpu", "znver4", "--cores", "2", "--model", "AMD EPYC", "--name", "mine", "--json"),
    )
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["name"] == "mine"
    assert json.loads(run_at(live_service, "target", "list", "--json").stdout)[0]["cores"] == 2
    assert "AMD EPYC" in run_at(live_service, "target", "list").stdout
    assert "znver4" in run_at(live_service, "target", "show", "mine").stdout


def test_every_list_is_empty_json_or_a_sentence_at_first(live_service: LiveService) -> None:
    for command in (["target", "list"], ["network", "list"], ["job", "list"], ["records"], ["devices"]):
        answer = run_at(live_service, *command, "--json")
        assert (answer.exit_code, json.loads(answer.stdout)) == (0, []), command
        people = run_at(live_service, *command)
        assert people.exit_code == 0
        assert people.stdout.startswith("no "), command


def test_a_network_is_uploaded_and_shown(live_service: LiveService, model: Path) -> None:
    made = run_at(live_service, "network", "upload", str(model), "--no-wait", "--shape", "x:1,3", "--json")
    assert made.exit_code == 0, made.output
    network = json.loads(made.stdout)
    assert network["name"] == "small"
    assert network["shapes"] == {"x": [1, 3]}
    assert json.loads(run_at(live_service, "network", "show", "small", "--json").stdout)["tasks"] == []
    assert "importing" in run_at(live_service, "network", "list").stdout


def test_an_upload_that_cannot_be_imported_fails_with_the_reason(live_service: LiveService, model: Path) -> None:
    def refuse() -> None:
        with Client(live_service.url) as client:
            while not (networks := client.list_networks().items):
                time.sleep(0.05)
        live_service.refuse_network(networks[0].id, "dynamic-shape", "input x has no size; give --shape x:1,3")

    with live_service.background(refuse):
        result = run_at(live_service, "network", "upload", str(model), "--json")
    assert result.exit_code == 1
    assert "--shape x:1,3" in result.stderr
    assert result.stdout == ""


def test_a_watched_job_that_succeeds_is_exit_code_0_and_shows_its_gain(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        job = client.create_job(live_service.job_in(client))
    with live_service.background(lambda: live_service.play(job.id, 4, pause_s=0.1)):
        result = run_at(live_service, "watch", job.id)
    assert result.exit_code == 0, result.output
    assert "succeeded: 4 trials" in result.stdout
    assert "10 ms by default, 2.5 ms tuned (4.00x)" in result.stdout
    shown = run_at(live_service, "job", "show", job.id)
    assert "test-silicon" in shown.stdout
    assert "4/10 trials" in shown.stdout
    listed = run_at(live_service, "job", "list", "--state", "succeeded")
    assert job.id in listed.stdout


def test_a_watched_job_that_fails_is_exit_code_1(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        job = client.create_job(live_service.job_in(client))
    live_service.play(job.id, 1, ending=JobState.FAILED)
    result = run_at(live_service, "watch", job.id, "--json")
    assert result.exit_code == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["data"]["state"] == "failed"
    assert "failed" in result.stderr


def test_an_interrupted_watch_leaves_the_job_alone_and_says_so(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        job = client.create_job(live_service.job_in(client))
        command = [*COMMAND, "--url", live_service.url, "watch", job.id, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None and watching.stderr is not None
            watching.stdout.readline()
            # Again, as people do: an interrupt that arrives inside a finaliser is lost to Python.
            until_s = time.monotonic() + 20
            while watching.poll() is None and time.monotonic() < until_s:
                watching.send_signal(signal.SIGINT)
                time.sleep(1)
            watching.kill()
            assert watching.wait() == 1
            told = watching.stderr.read()
        assert "the job goes on" in told
        assert "Traceback" not in told
        assert client.get_job(job.id).state == "queued"


def test_a_job_is_cancelled_and_resumed(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        job = client.create_job(live_service.job_in(client))
    cancelled = run_at(live_service, "job", "cancel", job.id, "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    resumed = run_at(live_service, "job", "resume", job.id, "--trials", "3", "--json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["budget"]["trials"] == 13


def test_a_build_is_awaited_shown_and_refused_with_its_reason(live_service: LiveService, tmp_path: Path) -> None:
    with Client(live_service.url) as client:
        build = live_service.build(client)
        archive = tmp_path / "artifact.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(__file__, "made/manifest.json")
        live_service.finish_build(build.id, archive)
    shown = run_at(live_service, "build", "--id", build.id, "--out", str(tmp_path / "here"))
    assert shown.exit_code == 0, shown.output
    assert "2 ms (5.00x)" in shown.stdout
    assert (tmp_path / "here" / "manifest.json").is_file()

    def fail() -> None:
        with Client(live_service.url) as client:
            while len(found := client.list_builds().items) < 2:
                time.sleep(0.05)
        live_service.fail_build(found[0].id, "the compiler gave up")

    with live_service.background(fail):
        arguments = ("build", "--network", build.network, "--target", build.target, "--json")
        refused = run_at(live_service, *arguments)
    assert refused.exit_code == 1
    assert "the compiler gave up" in refused.stderr
    assert json.loads(refused.stdout)["state"] == "failed"


def test_best_schedules_are_shown_with_their_label(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        build = live_service.build(client)
    chosen = ("best", "--target", "test-silicon", "--network", build.network)
    (schedule,) = json.loads(run_at(live_service, *chosen, "--json").stdout)["schedules"]
    assert (schedule["label"], schedule["weight"]) == ("none", 3)
    people = run_at(live_service, *chosen)
    assert "fused_conv2d_add_relu" in people.stdout
    assert "none" in people.stdout
    live_service.know_hardware("test-silicon")
    people = run_at(live_service, *chosen).stdout
    assert "predicted" in people and "expected sum over tasks" in people and " to " in people


def test_a_dry_run_says_what_a_job_would_do_and_makes_none(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        build = live_service.build(client)
    chosen = ("submit", build.network, "--target", "test-silicon", "--trials", "20", "--dry-run")
    plan = run_at(live_service, *chosen, "--json")
    assert plan.exit_code == 0, plan.output
    assert [task["weight"] for task in json.loads(plan.stdout)["tasks"]] == [3]
    assert "estimated time" in run_at(live_service, *chosen).stdout
    live_service.know_hardware("test-silicon")
    assert "expected sum over tasks" in run_at(live_service, *chosen).stdout
    assert run_at(live_service, "job", "list", "--json").stdout.strip() == "[]"


def test_a_submit_makes_a_job_with_its_labels_and_says_how_to_follow_it(live_service: LiveService) -> None:
    with Client(live_service.url) as client:
        build = live_service.build(client)
    chosen = ("submit", build.network, "--target", "test-silicon", "--minutes", "0.5", "--label", "team=vision")
    made = json.loads(run_at(live_service, *chosen, "--json").stdout)
    assert (made["budget"], made["labels"]) == ({"trials": None, "seconds": 30.0}, {"team": "vision"})
    assert "crosstune watch job_" in run_at(live_service, *chosen).stdout
    found = json.loads(run_at(live_service, "job", "list", "--label", "team=vision", "--json").stdout)
    assert len(found) == 2


def test_an_export_without_records_is_an_empty_file(live_service: LiveService, tmp_path: Path) -> None:
    out = tmp_path / "records.ndjson"
    result = run_at(live_service, "export", "--out", str(out), "--json")
    assert json.loads(result.stdout) == {"file": str(out), "format": "ndjson", "records": 0}
    assert out.read_text() == ""
    assert run_at(live_service, "export").stdout == ""


def test_the_schema_is_created_and_named_without_a_service(tmp_path: Path) -> None:
    before = run("--data-dir", str(tmp_path / "new"), "db", "current", "--json")
    assert before.exit_code == 1
    assert run("--data-dir", str(tmp_path / "new"), "db", "upgrade").exit_code == 0
    after = run("--data-dir", str(tmp_path / "new"), "db", "current", "--json")
    assert after.exit_code == 0
    assert json.loads(after.stdout)["current"] is True


def test_an_audit_of_a_database_without_tables_names_the_command_that_helps(tmp_path: Path) -> None:
    result = run("--data-dir", str(tmp_path), "audit", "--count", "1")
    assert result.exit_code == 1
    assert "crosstune db upgrade" in result.stderr


def test_a_database_that_does_not_answer_is_a_sentence_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSTUNE_DATABASE_URL", "postgresql+psycopg://me:secret@127.0.0.1:1/none")
    for command in (["db", "current"], ["db", "upgrade"], ["serve", "--port", "0"]):
        result = run(*command)
        assert result.exit_code == 1, command
        assert "CROSSTUNE_DATABASE_URL" in result.stderr
        assert "secret" not in result.output


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CROSSTUNE_DATABASE_URL", "mysql://localhost/x"),
        ("CROSSTUNE_DATABASE_URL", "no url at all"),
        ("CROSSTUNE_DATA_DIR", "/proc/nowhere"),
    ],
)
def test_what_cannot_hold_the_data_is_told_by_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    for command in (["serve", "--port", "0"], ["db", "upgrade"], ["db", "current"]):
        result = run(*command)
        assert result.exit_code == 1, result.output
        assert result.stderr.count("\n") == 1
        assert variable in result.stderr


def test_serve_tells_its_url_is_found_by_its_folder_and_ends_with_exit_code_0(tmp_path: Path) -> None:
    command = [*COMMAND, "serve", "--port", "0", "--no-worker", "--data-dir", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        told = json.loads(service.stdout.readline())
        found = running.find(tmp_path)
        assert found == running.RunningService(told["url"], service.pid)
        assert run("--data-dir", str(tmp_path), "job", "list", "--json").stdout.strip() == "[]"
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 1
        assert told["url"] in second.stderr
        taken = run("serve", "--data-dir", str(tmp_path / "other"), "--port", told["url"].rpartition(":")[2])
        assert taken.exit_code == 1
        assert "--port 0" in taken.stderr
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
    assert running.find(tmp_path) is None
    assert not (tmp_path / running.FILE_NAME).exists()


def test_a_service_that_was_killed_leaves_a_file_that_nobody_believes(tmp_path: Path) -> None:
    command = [*COMMAND, "serve", "--port", "0", "--no-worker", "--data-dir", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        service.stdout.readline()
        service.kill()
    assert (tmp_path / running.FILE_NAME).exists()
    assert running.find(tmp_path) is None
    running.announce(tmp_path, running.RunningService("http://127.0.0.1:1", os.getpid()))
    assert running.find(tmp_path) is None


def test_an_embedded_service_lasts_as_long_as_its_block_and_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSTUNE_EMBEDDED_WORKER", "false")
    with embedded_service(tmp_path) as url:
        assert Client(url).get_liveness().status == "ok"
        with embedded_service(tmp_path) as same:
            assert same == url
        assert Client(url).get_liveness().status == "ok"
    assert running.find(tmp_path) is None


def test_tuning_from_python_tells_why_a_job_failed(live_service: LiveService, model: Path) -> None:
    """The service of the data folder is used, whoever started it."""
    service = running.RunningService(live_service.url, os.getpid())
    running.announce(live_service.settings.data_dir, service)
    with Client(live_service.url) as client:
        live_service.target("test-silicon")

        def work() -> None:
            while not (networks := client.list_networks().items):
                time.sleep(0.05)
            live_service.make_ready(networks[0].id)
            while not (jobs := client.list_jobs().items):
                time.sleep(0.05)
            live_service.play(jobs[0].id, 2, ending=JobState.FAILED)

        seen: list[str] = []
        with live_service.background(work), pytest.raises(CrosstuneError, match="failed"):
            crosstune.tune(
                model,
                "test-silicon",
                trials=4,
                data_dir=live_service.settings.data_dir,
                on_event=lambda event: seen.append(event.kind),
            )
    assert seen.count("round") == 2


def test_an_embedded_service_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crosstune.service.embedded import EmbeddedServiceFailed

    monkeypatch.setenv("CROSSTUNE_DATABASE_URL", "sqlite:////proc/nowhere/crosstune.db")
    with pytest.raises(EmbeddedServiceFailed, match="proc/nowhere"), embedded_service(tmp_path):
        pass


def test_devices_are_paused_and_workers_drained_and_taken_back(live_service: LiveService) -> None:
    with transaction(live_service.engine) as connection:
        device = devices.register(connection, name="board", kind="local", host="board")
        worker = workers.register(connection, host="board", pid=1, version="1", schema="1")
    for command, told in (("pause", "paused"), ("drain", "draining"), ("resume", "active")):
        assert f"board is {told}" in run_at(live_service, "device", command, device.id).output
    assert worker.id in run_at(live_service, "workers", "list").output
    assert "takes nothing new" in run_at(live_service, "workers", "drain", worker.id).output
    with transaction(live_service.engine) as connection:
        assert workers.beat(connection, worker.id), "it hears of it with its next heartbeat"
    assert "takes work" in run_at(live_service, "workers", "resume", worker.id).output
    refused = run_at(live_service, "workers", "drain", "wkr_nobody")
    assert refused.exit_code == 1 and "no worker" in refused.stderr
