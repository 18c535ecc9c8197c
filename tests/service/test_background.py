"""Processes in the background stand still while the device measures."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosstune.service.background import Background

COUNT = """
import sys, time
number = 0
while True:
    number += 1
    open(sys.argv[1], "w").write(str(number))
    time.sleep(0.01)
"""


class Counter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.process = subprocess.Popen([sys.executable, "-c", COUNT, str(path)], start_new_session=True)

    @property
    def runs(self) -> bool:
        before = self._path.read_text() if self._path.exists() else ""
        time.sleep(0.2)
        return self._path.exists() and self._path.read_text() != before


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    made = Counter(tmp_path / "count")
    until_s = time.monotonic() + 10
    while not made.runs and time.monotonic() < until_s:
        continue
    yield made
    made.process.kill()
    made.process.wait()


def test_it_stands_still_while_something_is_measured_and_goes_on_after(counter: Counter) -> None:
    background = Background()
    with background.running(counter.process.pid):
        assert counter.runs
        with background.paused():
            assert not counter.runs
            with background.paused():
                pass
            assert not counter.runs, "another measurement is still going on"
        assert counter.runs


def test_what_starts_while_something_is_measured_waits_for_its_end(counter: Counter) -> None:
    background = Background()
    with background.paused(), background.running(counter.process.pid):
        assert not counter.runs
        counter.process.kill()


def test_a_process_that_has_ended_disturbs_nobody(counter: Counter) -> None:
    background = Background()
    counter.process.kill()
    counter.process.wait()
    with background.running(counter.process.pid), background.paused():
        assert counter.process.returncode
