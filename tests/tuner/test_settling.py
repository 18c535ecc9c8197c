"""Processors that wake one another: it takes a moment, and leaves every binding as it was."""

from __future__ import annotations

import os
import threading
import time

from crosstune.tuner.settling import PAUSE_S, shake


def test_shaking_is_short_and_leaves_no_thread_and_no_binding_behind() -> None:
    allowed, threads = os.sched_getaffinity(0), threading.active_count()
    began_s = time.monotonic()
    shake(sorted(allowed), wakes=20)
    assert time.monotonic() - began_s >= 20 * PAUSE_S
    assert os.sched_getaffinity(0) == allowed
    assert threading.active_count() == threads


def test_a_single_processor_has_nobody_to_wake() -> None:
    shake([min(os.sched_getaffinity(0))], wakes=3)
