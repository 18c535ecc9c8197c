"""The program behind `tuner.child`: preloads TVM once, then forks a process for each task.

Started by exec as `python -m crosstune.tuner.child_template FD SETTINGS`; FD is a SOCK_SEQPACKET socket to the parent
and SETTINGS a JSON object (`preload`, `packages`, `memory_bytes`, `file_bytes`). Each request carries three
descriptors: the child's channel, a pipe for its exit status, a file for its output. When the parent is gone the
socket ends, and every child ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

from crosstune.tuner import child_wire

ROOT = "crosstune.tuner."
REQUEST_BYTES = 65536
WARM_MODULES = (
    "crosstune.tuner.operations.build_candidate",
    "crosstune.tuner.operations.measure_candidate",
    "crosstune.tuner.operations.propose",
)
"""Imported before the first fork, so that no child pays for them."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class FunctionRefused(LookupError):
    """A function outside the packages that children may call."""


class StartedThreads(RuntimeError):
    """A preloaded module started threads, which do not survive a fork."""


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    settings: dict[str, Any] = json.loads(sys.argv[2])
    if settings["preload"]:
        _preload()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page that it shares with the template
    control.send(b"ready")
    Forker(control, settings).run()


def _preload() -> None:
    from crosstune.tuner.tvm_adapter.hidden import hidden
    from crosstune.tuner.tvm_adapter.preload import preload

    preload()
    with hidden("sklearn"):
        for module in WARM_MODULES:
            importlib.import_module(module)
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(threads) != 1:
        raise StartedThreads(f"threads run after preloading: {threads}; a forked child would miss their locks")


class Forker:
    """Forks children on request, and reports how each one ended."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control, self.settings, self.pid = control, settings, os.getpid()
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.children: dict[int, tuple[int, int]] = {}
        """pidfd -> (pid, descriptor for the exit status)"""

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is not self.control:
                    self.bury(key.fd)
                elif not self.take_request():
                    self.end()

    def take_request(self) -> bool:
        request, descriptors, _, _ = socket.recv_fds(self.control, REQUEST_BYTES, 3)
        if not request:
            return False
        channel, status, output = descriptors
        pid = os.fork()
        if pid == 0:
            self.become_child(json.loads(request), channel, status, output)
        os.close(channel)
        os.close(output)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (pid, status)
        self.selector.register(pidfd, selectors.EVENT_READ)
        return True

    def bury(self, pidfd: int) -> None:
        """Kill what a dead child left in its session, then report its exit status and reap it."""
        pid, status = self.children.pop(pidfd)
        kill_group(pid)  # before reaping: until then nothing else can have this process group
        _, wait_status = os.waitpid(pid, 0)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        try:
            os.write(status, json.dumps({"exit": os.waitstatus_to_exitcode(wait_status)}).encode())
        except BrokenPipeError:
            pass  # the parent has given this child up
        finally:
            os.close(status)

    def end(self) -> NoReturn:
        for pid, _ in self.children.values():
            kill_group(pid)
        os._exit(0)

    def become_child(self, request: dict[str, Any], channel: int, status: int, output: int) -> NoReturn:
        exit_status = 1
        try:
            self.let_go(status)
            isolate(request["scratch"], output, self.settings, self.pid)
            serve(socket.socket(fileno=channel), tuple(self.settings["packages"]))
            exit_status = 0
        except BaseException:  # noqa: BLE001 - the border of the process: print the reason and end
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(exit_status)  # no destructors: TVM's would wait for its threads

    def let_go(self, own_status: int) -> None:
        """Close what belongs to the template; a descriptor kept here would hide its death from the parent."""
        self.selector.close()
        self.control.close()
        os.close(own_status)
        for pidfd, (_, status) in self.children.items():
            os.close(pidfd)
            os.close(status)


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it died before setsid
        os.killpg(pid, signal.SIGKILL)


def isolate(scratch: str, output: int, settings: dict[str, Any], template_pid: int) -> None:
    """Own session, death with the template, limits, scratch folder, output into a file."""
    os.setsid()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != template_pid:
        os._exit(1)  # the template died before the line above
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(scratch)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    limits = {resource.RLIMIT_AS: settings["memory_bytes"], resource.RLIMIT_FSIZE: settings["file_bytes"]}
    for kind, limit in {**limits, resource.RLIMIT_CORE: 0}.items():
        resource.setrlimit(kind, (limit, limit))
    # When memory runs out the kernel shall take a child, not the service.
    Path("/proc/self/oom_score_adj").write_text("1000")


def serve(channel: socket.socket, packages: tuple[str, ...]) -> None:
    """Answer calls until the parent closes the channel."""
    channel.sendall(b"!")  # the parent learns this process's id from the credentials of this byte
    while True:
        try:
            request = child_wire.receive(channel)
        except EOFError:
            return
        child_wire.send(channel, answer(request, packages))


def answer(request: dict[str, Any], packages: tuple[str, ...]) -> dict[str, Any]:
    try:
        function = resolve(request["function"], packages)
        return {"value": function(request["payload"])}
    except Exception as error:  # noqa: BLE001 - the border: the parent gets the type and the text
        traceback.print_exc()
        return {"error": type(error).__name__, "message": str(error)}


def resolve(function: str, packages: tuple[str, ...]) -> Any:
    """`operations.build_candidate:run` -> the callable; FunctionRefused outside `packages`."""
    module_name, _, name = function.partition(":")
    full = ROOT + module_name if module_name.startswith("operations.") else module_name
    if not any(full == package or full.startswith(package + ".") for package in packages) or name.startswith("_"):
        raise FunctionRefused(f"{function!r} is not an operation; name one as 'operations.module:function'")
    found = getattr(importlib.import_module(full), name, None)
    if not callable(found):
        raise FunctionRefused(f"{full} has no function {name!r}")
    return found


if __name__ == "__main__":
    main()
