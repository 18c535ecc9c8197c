"""Run a compiled network with TVM's runtime alone: no compiler (259 MB), no `import tvm`, no torch; ready in 0.2 s."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.tuner.tvm_adapter.hidden import hidden

Array = np.ndarray[Any, np.dtype[Any]]

CPU_DEVICE = (1, 0)
"""DLPack's kLocal device type and its index."""
POOLED_ALLOCATOR = 2
LIBRARIES = ("tvm_runtime", "tvm_runtime_extra")


class RuntimeUnusable(RuntimeError):
    """TVM's runtime is missing, another version, or already running with another thread count."""


def installed_version() -> str | None:
    """The version of TVM in this environment, without importing it."""
    try:
        return version("apache-tvm")
    except PackageNotFoundError:
        return None


def start_runtime(threads: int) -> None:
    """Load TVM's runtime and give its pool `threads` threads; must come before the process's first parallel loop.

    Raises RuntimeUnusable when TVM is not installed or its pool runs with another count already.
    """
    spec = find_spec("tvm")
    if spec is None or spec.origin is None:
        raise RuntimeUnusable("apache-tvm is not installed in this environment")
    with hidden("torch"):
        import tvm_ffi
    from tvm_ffi.libinfo import load_lib_ctypes

    os.environ["TVM_NUM_THREADS"] = str(threads)
    for name in LIBRARIES:
        load_lib_ctypes("tvm", name, "RTLD_GLOBAL", extra_lib_paths=[Path(spec.origin).parent / "lib"])
    found = int(tvm_ffi.get_global_func("runtime.NumThreads")())
    if found != threads:
        raise RuntimeUnusable(
            f"TVM's thread pool already runs {found} threads in this process where {threads} are needed: load the "
            "network before anything else uses TVM, or in a process of its own"
        )


def load_main(library: Path) -> Callable[..., Any]:
    """The function `main` of a compiled network: takes and returns tensors (see `tensor`)."""
    return load_machine(load_library(library))


def load_library(library: Path) -> Any:
    """The compiled library; `library[name]` is one of its kernels."""
    import tvm_ffi

    return tvm_ffi.load_module(str(library.resolve()))


def load_machine(module: Any) -> Callable[..., Any]:
    """The network's `main` out of a loaded or just compiled module."""
    machine = module["vm_load_executable"]()
    machine["vm_initialization"](*CPU_DEVICE, POOLED_ALLOCATOR)
    main: Callable[..., Any] = machine["main"]
    return main


def tensor(array: Array) -> Any:
    """A tensor over the array's own memory, which must be writeable and aligned (see `weights_file.aligned`)."""
    import tvm_ffi

    return tvm_ffi.from_dlpack(array)


def arrays(result: Any) -> list[Array]:
    """The tensors of a result as arrays over the same memory, which lives as long as they do."""
    parts = [result] if hasattr(result, "__dlpack__") else list(result)
    return [np.from_dlpack(part) for part in parts]
