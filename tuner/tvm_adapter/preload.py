"""Bring TVM into a process, fast and complete, before any thread exists.

Call `preload` once, first thing; after it a process may be forked. Nothing here starts TVM's thread pool:
its size is fixed at the first parallel loop, so `set_threads` belongs into each forked child.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosstune.tuner.tvm_adapter.hidden import hidden

TVM_VERSION = "0.27.0.post1"
FFI_BELOW = (0, 1, 15)
"""Newer tvm-ffi releases segfault in TuneContext with this TVM."""


class WrongTvm(RuntimeError):
    """The installed TVM or tvm-ffi is not the pair that is known to work."""


def check_versions() -> None:
    found, ffi = version("apache-tvm"), version("apache-tvm-ffi")
    parts = tuple(int(part) for part in ffi.split(".")[:3])
    if found != TVM_VERSION or parts >= FFI_BELOW:
        raise WrongTvm(
            f"crosstune needs apache-tvm=={TVM_VERSION} with apache-tvm-ffi>=0.1.14.post0,<0.1.15; "
            f"found {found} with {ffi}: pip install 'apache-tvm=={TVM_VERSION}' 'apache-tvm-ffi<0.1.15'"
        )


def preload() -> None:
    """Import TVM with its x86 tensor intrinsics only (0.2 s instead of 22 s for all of them)."""
    if "tvm" in sys.modules:
        return
    check_versions()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a numpy pool in the parent would not survive the fork
    _answer_frozen_modules_at_once()
    with hidden("torch"):
        import tvm
    import tvm.relax
    import tvm.s_tir

    _stub_tensor_intrinsics(tvm)
    import tvm.s_tir.meta_schedule
    import tvm.s_tir.tensor_intrin.x86


def _answer_frozen_modules_at_once() -> None:
    # inspect.getmodule scans all of sys.modules for every frozen frame, 39 ms for each of TVM's decorators;
    # a name that is no module gives the same answer (None) without the scan.
    names = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", "<frozen runpy>", "<string>")
    for name in (*names, "<stdin>"):
        inspect.modulesbyfile.setdefault(name, "__no_such_module__")


def _stub_tensor_intrinsics(tvm: Any) -> None:
    package = types.ModuleType("tvm.s_tir.tensor_intrin")
    package.__path__ = [str(Path(tvm.s_tir.__file__).parent / "tensor_intrin")]
    sys.modules["tvm.s_tir.tensor_intrin"] = tvm.s_tir.tensor_intrin = package


def set_threads(count: int) -> None:
    """Give TVM's pool `count` threads; must come before the process's first parallel loop.

    TVM takes half of an x86 machine's processors by default, which halves the speed where there is no hyper-threading.
    """
    import tvm_ffi

    os.environ["TVM_NUM_THREADS"] = str(count)
    found = int(tvm_ffi.get_global_func("runtime.NumThreads")())
    if found != count:
        raise RuntimeError(f"TVM runs {found} threads where {count} were asked for: its pool was started too early")
