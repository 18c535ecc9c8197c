"""Child processes for everything that touches TVM or a user's network: import, search, build, run.

`Template` starts one process by exec, with an empty environment, which preloads TVM and then forks a child per task
within milliseconds. A child answers calls in length-prefixed JSON; the parent holds the deadline and kills the child's
whole process group. Nothing here imports TVM, and everything may be used from several threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from crosstune.tuner import child_wire, orphans
from crosstune.tuner.contracts import ChildFailed, CrosstuneError, Invalidity

START_S = 120.0
"""Longest preload: a cold file cache and a busy machine included."""
HELLO_S = 20.0
END_S = 10.0
PATIENCE_S = 2.0
"""Between the end of a child's channel and its exit status; a child that only closed its channel is then killed."""
RESTARTS = 3
MEMORY_BYTES = 8 * 2**30
FILE_BYTES = 8 * 2**30
OPERATIONS = ("crosstune.tuner.operations",)
OUTPUT_TAIL_BYTES = 2000
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG")
OUT_OF_MEMORY_WORDS = ("bad_alloc", "MemoryError", "out of memory", "Cannot allocate memory")
CREDENTIALS = struct.Struct("3i")


class ChildError(CrosstuneError):
    """The called function raised: `type_name` and `message` are those of its exception. The child lives on."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name, self.message = type_name, message


@dataclass(frozen=True, slots=True)
class Settings:
    """How a template and its children run; see `Template.start`."""

    prefix: tuple[str, ...]
    preload: bool
    memory_bytes: int
    file_bytes: int
    packages: tuple[str, ...]
    import_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: exit code or minus the signal (None: the template could not say), and its last words."""

    reason: str
    status: int | None
    output: str
    killed_by_us: bool


class Template:
    """A preloaded process that forks children; it is started again when it has died."""

    def __init__(self, settings: Settings, folder: Path | None) -> None:
        self.settings = settings
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="crosstune-"))
        for name in (orphans.NOTES, orphans.SCRATCH):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._spawned = 0
        self._children: weakref.WeakSet[Child] = weakref.WeakSet()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._note: Path | None = None

    @classmethod
    def start(
        cls,
        prefix: Sequence[str] = (),
        preload: bool = True,
        folder: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        packages: Sequence[str] = OPERATIONS,
        import_path: Sequence[str] = (),
    ) -> Template:
        """Start a template and wait until it is ready; ChildFailed with its words when it cannot start.

        `prefix` is put before the command (a sandbox), `folder` keeps scratch folders and notes for `kill_orphans`
        (a temporary one by default), `memory_bytes` limits each child's address space, `packages` are those whose
        functions children may be asked for, found along `import_path` too.
        """
        settings = Settings(tuple(prefix), preload, memory_bytes, FILE_BYTES, tuple(packages), tuple(import_path))
        template = cls(settings, folder)
        try:
            with template._lock:
                template._launch()
        except BaseException:
            template.close()
            raise
        return template

    def spawn(self, name: str) -> Child:
        """A fresh child, forked from the template (some 10 ms); ChildFailed(DEVICE_LOST) when none can be had.

        The caller closes it (it is a context manager).
        """
        for attempt in range(RESTARTS + 1):
            try:
                return self._fork(name)
            except (EOFError, OSError):
                self._restart_if_dead()
                time.sleep(0.1 * attempt)
        raise ChildFailed(Invalidity.DEVICE_LOST, f"no child process could be started in {RESTARTS + 1} tries")

    @property
    def pid(self) -> int:
        if self._process is None:
            raise CrosstuneError("the template is closed")
        return self._process.pid

    def kill_children(self) -> None:
        """End every child that is alive now, whoever waits for its answer; the template goes on."""
        with self._lock:
            children = list(self._children)
        for child in children:
            child.close()

    def close(self) -> None:
        """End the template and with it every child."""
        with self._lock:
            self._closed = True
            self._end()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Template:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fork(self, name: str) -> Child:
        with self._lock:
            if self._closed or self._control is None:
                raise ChildFailed(Invalidity.DEVICE_LOST, "the template is closed")
            self._spawned += 1
            scratch = self.folder / orphans.SCRATCH / f"{os.getpid()}-{self._spawned}-{name}"
            scratch.mkdir()
            child = Child.fork(name, self._control, self.folder, scratch)
            self._children.add(child)
            return child

    def _restart_if_dead(self) -> None:
        with self._lock:
            if self._closed or self._process is None or self._process.poll() is None:
                return
            self._end()
            self._launch()

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process that writes to it
        with theirs, words:
            self._process = subprocess.Popen(
                self._command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
                cwd=self.folder,
            )
            self._control = ours
            self._note = orphans.note(self.folder, self._process.pid, None)
            theirs.close()
            ours.settimeout(START_S)
            try:
                ready = ours.recv(16)
            except (TimeoutError, ConnectionError):
                ready = b""
            if ready != b"ready":
                self._end()
                raise ChildFailed(Invalidity.DEVICE_LOST, f"the template did not start: {tail(words)}")

    def _command(self, descriptor: int) -> list[str]:
        keys = ("preload", "packages", "memory_bytes", "file_bytes")
        settings = json.dumps({key: getattr(self.settings, key) for key in keys})
        module = ["-P", "-m", "crosstune.tuner.child_template"]
        return [*self.settings.prefix, sys.executable, *module, str(descriptor), settings]

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        path = [*self.settings.import_path, *kept.pop("PYTHONPATH", "").split(os.pathsep)]
        if any(path):
            kept["PYTHONPATH"] = os.pathsep.join(entry for entry in path if entry)
        # A thread pool of the template would not survive its forks.
        return {**kept, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()  # the template kills its children when this ends
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._note is not None:
            self._note.unlink(missing_ok=True)


class Child:
    """A forked process that answers calls, one at a time, and keeps its state between them."""

    def __init__(self, name: str, folder: Path, scratch: Path, channel: socket.socket, status: int) -> None:
        self.name, self.scratch, self.pid = name, scratch, 0
        self._folder, self._channel, self._status = folder, channel, status
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._note: Path | None = None
        self._calling, self._ending = threading.Lock(), threading.Lock()
        self._paused = False
        self._end: Ending | None = None

    @classmethod
    def fork(cls, name: str, control: socket.socket, folder: Path, scratch: Path) -> Child:
        """Ask the template behind `control` for a child, and wait for its first word."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        status, status_end = os.pipe()
        child = cls(name, folder, scratch, ours, status)
        try:
            descriptors = [theirs.fileno(), status_end, child._output.fileno()]
            control.settimeout(HELLO_S)
            socket.send_fds(control, [json.dumps({"scratch": str(scratch)}).encode()], descriptors)
            theirs.close()
            os.close(status_end)
            status_end = -1
            child._greet()
        except BaseException:
            if status_end >= 0:
                os.close(status_end)
            theirs.close()
            child.close()
            raise
        return child

    def call(self, function: str, payload: Any, timeout_s: float) -> Any:
        """Run `function` ("operations.module:name") in the child; payload and answer are JSON values.

        ChildError: it raised. ChildFailed: TIMEOUT (killed after `timeout_s`), OUT_OF_MEMORY, RUNTIME (it crashed),
        DEVICE_LOST (the template died); after these the child is gone.
        """
        with self._calling:
            if self._end is not None:
                raise ChildFailed(Invalidity.DEVICE_LOST, f"child {self.name} is gone: {self._end.reason}")
            self.resume()
            deadline_s = time.monotonic() + timeout_s
            try:
                child_wire.send(self._channel, {"function": function, "payload": payload}, deadline_s)
                answer = child_wire.receive(self._channel, deadline_s)
            except TimeoutError:
                self._finish(f"{function} took longer than {timeout_s:g} s", patience_s=0)
                raise ChildFailed(Invalidity.TIMEOUT, f"{function} took longer than {timeout_s:g} s") from None
            except (EOFError, OSError):
                raise self._post_mortem(function) from None
        if "value" in answer:
            return answer["value"]
        if answer["error"] == "MemoryError":
            self.close()
            raise ChildFailed(Invalidity.OUT_OF_MEMORY, f"{function} ran out of memory")
        raise ChildError(str(answer["error"]), str(answer["message"]))

    @property
    def alive(self) -> bool:
        """False once it ended; a death between two calls is seen here too."""
        return self._end is None and not readable(self._status, 0)

    def pause(self) -> None:
        """Stop the process: TVM's idle threads spin for a while after each kernel and would disturb another's run."""
        if self._end is None and not self._paused:
            self._signal(signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        if self._end is None and self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False

    def close(self) -> None:
        """Kill the process group, wait for its end, remove its scratch folder."""
        self._finish("it was closed", patience_s=0)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _greet(self) -> None:
        # The kernel says who sent the first byte, in this process's numbering also when the child has its own.
        self._channel.settimeout(HELLO_S)
        header, ancillary, _, _ = self._channel.recvmsg(1, socket.CMSG_SPACE(CREDENTIALS.size))
        if not header:
            raise EOFError("the child ended before its first word")
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.pid = CREDENTIALS.unpack(data[: CREDENTIALS.size])[0]
        self._note = orphans.note(self._folder, self.pid, self.scratch)

    def _post_mortem(self, function: str) -> ChildFailed:
        """The child closed its channel by itself: find out how it ended."""
        end = self._finish(f"it ended in {function}", patience_s=PATIENCE_S)
        if end.killed_by_us:
            return ChildFailed(Invalidity.DEVICE_LOST, f"{function}: {end.reason}")
        if end.status is None:
            return ChildFailed(Invalidity.DEVICE_LOST, f"the template process died during {function}")
        if end.status == -signal.SIGKILL or any(word in end.output for word in OUT_OF_MEMORY_WORDS):
            return ChildFailed(Invalidity.OUT_OF_MEMORY, f"{function} was killed for its memory. {end.output}".strip())
        how = f"killed by {signal.Signals(-end.status).name}" if end.status < 0 else f"exited with status {end.status}"
        return ChildFailed(Invalidity.RUNTIME, f"{function} was {how}. {end.output}".strip())

    def _finish(self, reason: str, patience_s: float) -> Ending:
        """See the process dead, killing it after `patience_s`, and tidy up; once, whoever asks first."""
        with self._ending:
            if self._end is not None:
                return self._end
            killed = not readable(self._status, patience_s)
            if killed:
                self._signal(signal.SIGKILL)
            report = os.read(self._status, 256) if readable(self._status, END_S) else b""
            status = int(json.loads(report)["exit"]) if report else None
            self._end = Ending(reason, status, tail(self._output), killed)
            self._channel.close()
            self._output.close()
            os.close(self._status)
            shutil.rmtree(self.scratch, ignore_errors=True)
            if self._note is not None:
                self._note.unlink(missing_ok=True)
            return self._end

    def _signal(self, number: signal.Signals) -> None:
        if self.pid and not readable(self._status, 0):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def readable(descriptor: int, timeout_s: float) -> bool:
    """True when something, or the end, can be read from `descriptor`."""
    poll = select.poll()  # select.select refuses descriptors above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def tail(file: IO[bytes]) -> str:
    """The last words in a file that another process wrote to."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OUTPUT_TAIL_BYTES))
    return file.read().decode(errors="replace").strip()
