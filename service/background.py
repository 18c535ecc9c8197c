"""Processes that stand still while this machine's device measures: whatever runs beside a measurement spoils it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Background:
    """Process groups of this machine; one object per worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._pauses = 0

    @contextmanager
    def running(self, group: int) -> Iterator[None]:
        """While the block runs, the process group `group` is stopped and continued as measuring demands."""
        with self._lock:
            self._groups.add(group)
            if self._pauses:
                _signal(group, signal.SIGSTOP)
        try:
            yield
        finally:
            with self._lock:
                self._groups.discard(group)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing in the background runs while the block does."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, pauses: int) -> None:
        with self._lock:
            before, self._pauses = self._pauses, self._pauses + pauses
            if bool(before) != bool(self._pauses):
                for group in self._groups:
                    _signal(group, signal.SIGSTOP if self._pauses else signal.SIGCONT)


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # it has just ended by itself
