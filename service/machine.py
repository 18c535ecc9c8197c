"""What this process can say of hardware: the machine it runs on, and which targets can be compiled for.

Only LLVM knows it, so it is asked in a child process, which is started when the first question comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from crosstune.tuner import targets
from crosstune.tuner.child import Template
from crosstune.tuner.contracts import TargetSpec
from crosstune.tuner.targets import Machine


class Hardware:
    """Safe to use from many threads. `borrowed` gives the template of a worker in this process, when there is one."""

    def __init__(self, folder: Path, borrowed: Callable[[], Template] | None = None) -> None:
        self.borrowed = borrowed
        self._folder = folder
        self._lock = threading.Lock()
        self._own: Template | None = None
        self._machine: Machine | None = None

    def machine(self) -> Machine:
        """This machine; it is looked at once. Raises ChildFailed when no child can be had."""
        template = self.template()
        with self._lock:
            if self._machine is None:
                self._machine = targets.detect_machine(template)
            return self._machine

    def validate(self, spec: TargetSpec) -> None:
        """Raise TargetRefused, with what would be right, unless the target can be compiled for."""
        targets.validate(spec, self.template())

    def close(self) -> None:
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def template(self) -> Template:
        """Whose children may be asked; started when it is first needed."""
        if self.borrowed is not None:
            return self.borrowed()
        with self._lock:
            if self._own is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._own = Template.start(folder=self._folder)
            return self._own
