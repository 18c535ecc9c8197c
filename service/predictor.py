"""Asks a child process what a cost model makes of schedules: neither onnxruntime nor xgboost comes into the API's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from crosstune.tuner.child import Child, Template
from crosstune.tuner.contracts import ChildFailed

OPERATION = "operations.predict:run"
TIMEOUT_S = 30.0


class Predictor:
    """One child that is kept for the next request; safe to use from many threads."""

    def __init__(self, template: Callable[[], Template]) -> None:
        self._template, self._lock = template, threading.Lock()
        self._child: Child | None = None

    def predict(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises ChildFailed when the child died, ChildError for what it cannot score."""
        with self._lock:
            if self._child is None or not self._child.alive:
                self._drop()
                self._child = self._template().spawn("predict")
            try:
                answer: dict[str, Any] = self._child.call(OPERATION, payload, TIMEOUT_S)
            except ChildFailed:
                self._drop()
                raise
            return answer

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
