"""Child processes: deadlines, crashes, memory, a dead template, a dead parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crosstune.tuner import orphans
from crosstune.tuner.child import ChildError, Template
from crosstune.tuner.contracts import ChildFailed, Invalidity

OPERATIONS = "crosstune_test_operations"
IMPORT_PATH = (str(Path(__file__).parent / "child_operations"),)
WAIT_S = 30.0


@pytest.fixture
def template() -> Iterator[Template]:
    with Template.start(preload=False, packages=(OPERATIONS,), import_path=IMPORT_PATH) as started:
        yield started


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def has_ended(pid: int) -> bool:
    return eventually(lambda: orphans.start_time(pid) is None)


def test_a_child_answers_and_keeps_its_state_between_calls(template: Template) -> None:
    with template.spawn("a") as first, template.spawn("b") as second:
        value = {"text": "é", "numbers": [1, 2.5, None], "large": "x" * 3_000_000}
        assert first.call(f"{OPERATIONS}:echo", value, WAIT_S) == value
        first.call(f"{OPERATIONS}:remember", 7, WAIT_S)
        assert first.call(f"{OPERATIONS}:recall", None, WAIT_S) == 7
        assert second.call(f"{OPERATIONS}:recall", None, WAIT_S) is None


def test_a_child_works_in_an_empty_folder_of_its_own_that_is_removed(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    with template.spawn("a") as child:
        found = child.call(f"{OPERATIONS}:surroundings", None, WAIT_S)
        assert found["files"] == ["left-behind.txt"]
        assert found["folder"] == str(child.scratch)
        assert found["pid"] == child.pid == found["session"]
        assert found["threads"] == 1
    assert not child.scratch.exists()


def test_a_child_inherits_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    with (
        Template.start(preload=False, packages=(OPERATIONS,), import_path=IMPORT_PATH) as template,
        template.spawn("a") as child,
    ):
        assert "DATABASE_PASSWORD" not in child.call(f"{OPERATIONS}:surroundings", None, WAIT_S)["environment"]


def test_an_exception_reaches_the_parent_by_name_and_the_child_lives_on(template: Template) -> None:
    with template.spawn("a") as child:
        with pytest.raises(ChildError) as caught:
            child.call(f"{OPERATIONS}:complain", "wrong shape", WAIT_S)
        assert (caught.value.type_name, caught.value.message) == ("ValueError", "wrong shape")
        assert child.call(f"{OPERATIONS}:echo", 1, WAIT_S) == 1


@pytest.mark.parametrize("function", ["os:getcwd", "subprocess:run", f"{OPERATIONS}:_hidden", "operations.x:run"])
def test_only_operations_can_be_called(template: Template, function: str) -> None:
    with template.spawn("a") as child, pytest.raises(ChildError, match="is not an operation"):
        child.call(function, "ls", WAIT_S)


def test_a_hung_child_is_killed_with_its_own_children_and_the_next_one_works(template: Template) -> None:
    with template.spawn("a") as child:
        grandchild = child.call(f"{OPERATIONS}:sleeping_grandchild", None, WAIT_S)
        started = time.monotonic()
        with pytest.raises(ChildFailed) as caught:
            child.call(f"{OPERATIONS}:hang", None, 0.3)
        assert caught.value.invalidity is Invalidity.TIMEOUT
        assert time.monotonic() - started < 3
        assert has_ended(child.pid) and has_ended(grandchild)
        assert not child.alive
        with pytest.raises(ChildFailed, match="is gone"):
            child.call(f"{OPERATIONS}:echo", 1, WAIT_S)
    with template.spawn("b") as child:
        assert child.call(f"{OPERATIONS}:echo", 1, WAIT_S) == 1


@pytest.mark.parametrize(
    ("function", "payload", "invalidity", "words"),
    [
        ("crash", None, Invalidity.RUNTIME, "SIGSEGV"),
        ("leave", 3, Invalidity.RUNTIME, "status 3"),
        ("kill_itself", None, Invalidity.OUT_OF_MEMORY, "memory"),
    ],
)
def test_a_child_that_dies_is_a_failure_with_its_reason(
    template: Template, function: str, payload: int | None, invalidity: Invalidity, words: str
) -> None:
    with template.spawn("a") as child:
        with pytest.raises(ChildFailed, match=words) as caught:
            child.call(f"{OPERATIONS}:{function}", payload, WAIT_S)
        assert caught.value.invalidity is invalidity
        assert not child.alive


def test_a_child_that_fills_its_memory_is_out_of_memory() -> None:
    with (
        Template.start(
            preload=False, packages=(OPERATIONS,), import_path=IMPORT_PATH, memory_bytes=512 * 2**20
        ) as template,
        template.spawn("a") as child,
    ):
        with pytest.raises(ChildFailed) as caught:
            child.call(f"{OPERATIONS}:fill_memory", None, WAIT_S)
        assert caught.value.invalidity is Invalidity.OUT_OF_MEMORY


def test_a_killed_template_takes_its_children_along_and_is_started_again(template: Template) -> None:
    child, old = template.spawn("a"), template.pid
    os.kill(old, signal.SIGKILL)
    with pytest.raises(ChildFailed) as caught:
        child.call(f"{OPERATIONS}:hang", None, WAIT_S)
    assert caught.value.invalidity is Invalidity.DEVICE_LOST
    assert has_ended(child.pid)
    with template.spawn("b") as next_child:
        assert next_child.call(f"{OPERATIONS}:echo", 1, WAIT_S) == 1
        assert template.pid != old


def test_a_paused_child_uses_no_processor_and_wakes_for_the_next_call(template: Template) -> None:
    with template.spawn("a") as child:
        child.pause()
        stat = Path(f"/proc/{child.pid}/stat")
        assert eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        assert child.call(f"{OPERATIONS}:echo", 1, WAIT_S) == 1
        child.pause()
    assert has_ended(child.pid)


def test_a_child_closed_by_another_thread_ends_the_call(template: Template) -> None:
    with template.spawn("a") as child:
        threading.Timer(0.2, child.close).start()
        with pytest.raises(ChildFailed) as caught:
            child.call(f"{OPERATIONS}:hang", None, WAIT_S)
        assert caught.value.invalidity is Invalidity.DEVICE_LOST


def test_many_threads_share_one_template(template: Template) -> None:
    answers: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with template.spawn("t") as child:
                answers.append(child.call(f"{OPERATIONS}:echo", number, WAIT_S))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(list(range(6)) * 5)


def test_spawning_is_quick_and_leaves_nothing_open(template: Template) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    durations_s = []
    for _ in range(20):
        started = time.monotonic()
        child = template.spawn("a")
        durations_s.append(time.monotonic() - started)
        child.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(list(Path(f"/proc/{template.pid}/fd").iterdir())) < 20
    assert sorted(durations_s)[10] < 0.2


STARTS_A_THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"


def preloaded(before: str) -> subprocess.CompletedProcess[str]:
    """What a template loads before it forks, after `before`."""
    script = (
        f"{before}\nfrom crosstune.tuner.child_template import _preload\n_preload()\nimport sklearn; print(sklearn)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_an_installed_scikit_learn_is_not_loaded_with_its_threads(tmp_path: Path) -> None:
    """xgboost imports it wherever it is there, and with it pyarrow, which starts a thread."""
    (tmp_path / "sklearn.py").write_text(STARTS_A_THREAD)
    found = preloaded(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    assert str(tmp_path) in found.stdout, found.stderr


def test_a_template_with_threads_refuses_to_fork_and_names_them() -> None:
    found = preloaded(STARTS_A_THREAD)
    assert found.returncode != 0
    assert "threads run after preloading: ['" in found.stderr


def test_a_template_that_cannot_start_says_why(tmp_path: Path) -> None:
    script = tmp_path / "broken.sh"
    script.write_text("#!/bin/sh\necho no sandbox here >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(ChildFailed, match="no sandbox here"):
        Template.start(prefix=(str(script),), preload=False)


PARENT = """
import sys, time
from pathlib import Path
from crosstune.tuner.child import Template
template = Template.start(preload=False, packages=({operations!r},), import_path={path!r}, folder=Path({folder!r}))
child = template.spawn("a")
grandchild = child.call("{operations}:sleeping_grandchild", None, 30)
print(template.pid, child.pid, grandchild, flush=True)
time.sleep(1000)
"""


def started_parent(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    program = PARENT.format(operations=OPERATIONS, path=IMPORT_PATH, folder=str(folder))
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, [int(word) for word in parent.stdout.readline().split()]


def test_no_process_survives_a_killed_parent(tmp_path: Path) -> None:
    parent, pids = started_parent(tmp_path)
    parent.kill()
    parent.wait()
    assert len(pids) == 3
    assert all(has_ended(pid) for pid in pids)


def test_what_survived_a_killed_parent_is_killed_by_its_note_and_others_are_left_alone(tmp_path: Path) -> None:
    parent, pids = started_parent(tmp_path)
    assert orphans.kill_orphans(tmp_path) == []  # the parent lives: its children are not orphans
    os.kill(pids[0], signal.SIGSTOP)  # so it cannot tidy up by itself
    parent.kill()
    parent.wait()
    with Template.start(preload=False, folder=tmp_path) as own, own.spawn("mine") as mine:
        killed = orphans.kill_orphans(tmp_path)
        assert pids[0] in killed and set(killed) <= set(pids)
        assert all(has_ended(pid) for pid in pids)
        assert mine.alive
        assert list((tmp_path / orphans.SCRATCH).iterdir()) == [mine.scratch]
