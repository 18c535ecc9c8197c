"""Wake-ups: over a real Redis from one process to another, and in process while Redis is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crosstune.service.queue import Dispatcher, make_brokers
from tests.redis_server import RedisServer, redis_server

QUEUE = "hw.target"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@contextmanager
def dispatcher(url: str | None, run: Callable[[str], None]) -> Iterator[Dispatcher]:
    made = Dispatcher(make_brokers(url), run, threads=1)
    made.start()
    try:
        yield made
    finally:
        made.stop(timeout_s=5)


class Ran:
    """The steps that were run, in order; `block` keeps the one that is running from ending."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.block = threading.Event()
        self.block.set()

    def __call__(self, step_id: str) -> None:
        self.steps.append(step_id)
        self.block.wait(10)

    def within(self, seconds: float, count: int = 1) -> bool:
        until_s = time.monotonic() + seconds
        while len(self.steps) < count and time.monotonic() < until_s:
            time.sleep(0.01)
        return len(self.steps) >= count


def test_an_announced_step_runs_in_this_process_without_redis() -> None:
    ran = Ran()
    with dispatcher(None, ran) as made:
        made.announce("stp_1", QUEUE)
        assert ran.within(5) and ran.steps == ["stp_1"]


def test_over_redis_a_step_runs_in_one_of_the_processes_that_serve_its_queue(redis: RedisServer) -> None:
    busy, free = Ran(), Ran()
    busy.block.clear()
    with dispatcher(redis.url, busy) as first:
        first.announce("stp_1", QUEUE)
        assert busy.within(5)
        with dispatcher(redis.url, free) as second:
            second.announce("stp_2", QUEUE)
            first.announce("stp_3", QUEUE)
            assert free.within(5, count=2), "a busy process took more than it can do"
            busy.block.set()
    assert (busy.steps, sorted(free.steps)) == (["stp_1"], ["stp_2", "stp_3"])


def test_while_redis_is_away_a_process_takes_what_it_announces_itself(redis: RedisServer) -> None:
    ran = Ran()
    with dispatcher(redis.url, ran) as made:
        redis.kill()
        made.announce("stp_1", QUEUE)
        assert ran.within(5) and ran.steps == ["stp_1"]


def test_once_redis_is_back_empty_steps_go_over_it_again(redis: RedisServer) -> None:
    mine, other = Ran(), Ran()
    with dispatcher(redis.url, mine) as first, dispatcher(redis.url, other) as second:
        second.announce("stp_0", QUEUE)
        assert mine.within(0) or other.within(5) or mine.within(5)
        redis.kill()
        first.announce("stp_1", QUEUE)
        redis.start()
        redis.flush()
        mine.block.clear()
        for number in range(2, 6):
            first.announce(f"stp_{number}", QUEUE)
        until_s = time.monotonic() + 15
        while len(mine.steps) + len(other.steps) < 6 - 1 and time.monotonic() < until_s:
            time.sleep(0.05)
        mine.block.set()
        assert any(step in other.steps for step in ("stp_2", "stp_3", "stp_4", "stp_5"))
