"""Bring a virtual machine's processors back beside each other.

The host moves virtual processors between its cores. When two that work together come to lie on cores without a common
cache, parallel loops take twice as long to start and end, and the host may leave it so for half a minute while both
are busy. It looks for a better place when one processor wakes another: so they are made to, many times.

Seen by hand on a 2-processor AMD EPYC machine, until the reference kernels were as fast as before: kept busy 7, 16 and
more than 25 s; asleep 1.6, 2.0, 3.8, 4.1, 4.7 and once more than 25 s; waking one another 0.2, 0.3, 0.4, 0.4
and 1.0 s. Few cases: the order is sure, the numbers are not.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

WAKES = 100
PAUSE_S = 1e-3
"""Long enough for the other processor to halt: a short idle is spent polling, and then nothing wakes."""


def shake(processors: Sequence[int], wakes: int = WAKES) -> None:
    """Let the first of `processors` wake each of the others `wakes` times, a tenth of a second in all."""
    thread = threading.Thread(target=_wake_others, args=(list(processors), wakes), name="settling")
    thread.start()
    thread.join()


def _wake_others(processors: list[int], wakes: int) -> None:
    """In a thread of its own, whose binding ends with it."""
    first, *others = processors
    os.sched_setaffinity(0, {first})
    calls = [threading.Event() for _ in others]
    answers = threading.Semaphore(0)
    threads = [
        threading.Thread(target=_answer, args=(processor, call, answers, wakes), name="settling")
        for processor, call in zip(others, calls, strict=True)
    ]
    for thread in threads:
        thread.start()
    for _ in range(wakes):
        time.sleep(PAUSE_S)
        for call in calls:
            call.set()
        for _ in calls:
            answers.acquire()
    for thread in threads:
        thread.join()


def _answer(processor: int, call: threading.Event, answers: threading.Semaphore, wakes: int) -> None:
    os.sched_setaffinity(0, {processor})
    for _ in range(wakes):
        call.wait()
        call.clear()
        answers.release()
