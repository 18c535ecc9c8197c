"""Load and run a compiled network: `load(path)` gives a callable that takes and returns numpy arrays.

Needs TVM's runtime and numpy, neither the service nor a compiler, torch or onnx.
`python -m crosstune.tuner.artifact PATH` prints what an artifact is and times it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.tuner.archive import unpack
from crosstune.tuner.contracts import CrosstuneError, median
from crosstune.tuner.cpu_features import host_architecture, host_features
from crosstune.tuner.manifest import (
    LIBRARY_NAME,
    WEIGHTS_NAME,
    ArtifactRefused,
    Manifest,
    Port,
    check_files,
    read_manifest,
)
from crosstune.tuner.tvm_adapter import runtime
from crosstune.tuner.weights_file import Array, aligned_empty, is_aligned, read_weights

WARM_UP_S = 0.3
LONGEST_LIST = 12


class TunedNetwork:
    """A compiled network, ready to run; safe to call from several threads (one runs at a time).

    Processes that fork must load it after the fork: a thread pool does not survive one.
    """

    def __init__(self, manifest: Manifest, main: Callable[..., Any], weights: dict[str, Array]) -> None:
        self.manifest = manifest
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self._main = main
        self._arrays = [weights[name] for name in manifest.parameters]  # keeps the tensors' memory alive
        self._weights = tuple(runtime.tensor(array) for array in self._arrays)
        self._buffers = [aligned_empty(port.shape, port.dtype) for port in self.inputs]
        self._lock = threading.Lock()

    def __call__(self, *positional: Any, **named: Any) -> dict[str, Array]:
        """Outputs by name. Inputs come in the manifest's order or by name (`network(**{"data:0": x})` for odd ones).

        An aligned, contiguous array is read where it is; others are copied first. Raises ValueError for a missing or
        unknown input and for a wrong shape, TypeError for a dtype that cannot be converted without loss.
        """
        given = self._ordered(positional, named)
        with self._lock:
            tensors = [
                runtime.tensor(self._prepared(*each)) for each in zip(self.inputs, self._buffers, given, strict=True)
            ]
            results = runtime.arrays(self._main(*tensors, *self._weights))
        return dict(zip((port.name for port in self.outputs), results, strict=True))

    def _ordered(self, positional: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        names = [port.name for port in self.inputs]
        if len(positional) > len(names):
            raise ValueError(f"{len(positional)} inputs given, the network takes {len(names)}: {', '.join(names)}")
        given = dict(zip(names, positional, strict=False)) | named
        unknown, missing = sorted(set(named) - set(names)), [name for name in names if name not in given]
        if unknown or missing or len(given) < len(positional) + len(named):
            raise ValueError(
                f"the network takes the inputs {', '.join(names)}; "
                f"unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
            )
        return [given[name] for name in names]

    @staticmethod
    def _prepared(port: Port, buffer: Array, value: Any) -> Array:
        array = np.asarray(value)
        if array.shape != port.shape:
            raise ValueError(f"input {port.name!r} has shape {array.shape}, the network was compiled for {port.shape}")
        if array.dtype == buffer.dtype and is_aligned(array):
            return array
        if not np.can_cast(array.dtype, buffer.dtype, "same_kind"):
            raise TypeError(f"input {port.name!r} is {array.dtype}, the network takes {port.dtype}")
        np.copyto(buffer, array, casting="same_kind")
        return buffer

    def random_inputs(self, seed: int) -> list[Array]:
        """Aligned random inputs of the right shapes; see `random_input`."""
        generator = np.random.default_rng(seed)
        return [random_input(port, generator) for port in self.inputs]

    def latencies_s(self, duration_s: float = 2.0, least: int = 30) -> list[float]:
        """Seconds of each call on fixed random inputs, after a warm-up; at least `least` calls and `duration_s`."""
        inputs = self.random_inputs(seed=0)
        warm_until = time.perf_counter() + WARM_UP_S
        while time.perf_counter() < warm_until:
            self(*inputs)
        latencies: list[float] = []
        until = time.perf_counter() + duration_s
        while len(latencies) < least or time.perf_counter() < until:
            start = time.perf_counter()
            self(*inputs)
            latencies.append(time.perf_counter() - start)
        return latencies


def random_input(port: Port, generator: np.random.Generator) -> Array:
    """Standard normal floats; zeros and ones for integers, which are valid as masks and as indices alike."""
    array = aligned_empty(port.shape, port.dtype)
    if array.dtype.kind == "f":
        array[...] = generator.standard_normal(port.shape)
    else:
        array[...] = generator.integers(0, 2, port.shape)
    return array


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> TunedNetwork:
    """Load an artifact: its folder, or the .tar the service hands out.

    `threads` defaults to the manifest's count, or to the processors at hand where those are fewer. It is fixed for
    the process by the first network that is loaded. Raises ArtifactRefused when the files are not the verified ones,
    or this machine lacks an instruction set, or this environment the TVM version, that the artifact was compiled for.
    """
    source = Path(path)
    if source.is_dir():
        return _load_folder(source, threads)
    with tempfile.TemporaryDirectory(prefix="crosstune-") as folder:  # what is loaded outlives its files
        return _load_folder(unpack(source, Path(folder)), threads)


def _load_folder(folder: Path, threads: int | None) -> TunedNetwork:
    manifest = read_manifest(folder)
    check_machine(manifest)
    for name in (LIBRARY_NAME, WEIGHTS_NAME):
        if name not in manifest.files:
            raise ArtifactRefused(f"the manifest does not list {name}")
    check_files(folder, manifest)
    return load_library(folder / LIBRARY_NAME, folder / WEIGHTS_NAME, manifest, threads)


def load_library(library: Path, weights: Path, manifest: Manifest, threads: int | None = None) -> TunedNetwork:
    """Load without checking the machine or the files: what was compiled here a moment ago."""
    try:
        runtime.start_runtime(threads or min(manifest.threads, usable_processors()))
        main = runtime.load_main(library)
    except (runtime.RuntimeUnusable, OSError) as error:
        raise ArtifactRefused(f"the network cannot be loaded: {error}") from error
    tensors = read_weights(weights)
    if missing := set(manifest.parameters) - set(tensors):
        raise ArtifactRefused(f"{weights.name} lacks {len(missing)} tensors, {min(missing)!r} among them")
    return TunedNetwork(manifest, main, tensors)


def usable_processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_machine(manifest: Manifest) -> None:
    """ArtifactRefused unless this processor and this environment can run the artifact."""
    if host_architecture() != manifest.architecture:
        raise ArtifactRefused(f"compiled for {manifest.architecture}; this machine is {host_architecture()}")
    present = host_features()
    missing = sorted(set(manifest.cpu_features) - present) if present is not None else []
    if missing:
        raise ArtifactRefused(
            f"compiled for {manifest.target.mcpu} ({manifest.target.model}), which has {', '.join(missing)}; "
            "this processor has not: build the network for a target that describes this machine"
        )
    found = runtime.installed_version()
    if found != manifest.tvm_version:
        raise ArtifactRefused(
            f"compiled by apache-tvm {manifest.tvm_version}; this environment has {found or 'none'}: "
            f"pip install apache-tvm=={manifest.tvm_version}"
        )


def describe(manifest: Manifest) -> str:
    """A few lines for people."""
    ports = [("input", port) for port in manifest.inputs] + [("output", port) for port in manifest.outputs]
    lines = [f"{role:7} {port.name}: {port.dtype}{list(port.shape)}" for role, port in ports[:LONGEST_LIST]]
    if len(ports) > LONGEST_LIST:
        lines.append(f"        and {len(ports) - LONGEST_LIST} more")
    target = manifest.target
    lines.append(f"target  {target.mcpu}, {target.model}, {manifest.threads} threads, TVM {manifest.tvm_version}")
    lines.append(f"pinned  {manifest.workloads_applied} of {manifest.workloads_total} workloads")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m crosstune.tuner.artifact", description=main.__doc__ or __doc__)
    parser.add_argument("path", help="folder or .tar of an artifact")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to time it")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args(arguments)
    try:
        network = load(options.path, threads=options.threads)
    except CrosstuneError as error:
        print(error, file=sys.stderr)
        return 1
    print(describe(network.manifest))
    latencies = network.latencies_s(options.seconds)
    tuned_s = network.manifest.latencies.get("tuned_s")
    noted = f", manifest {tuned_s * 1e3:.3f} ms" if tuned_s else ""
    print(f"latency {median(latencies) * 1e3:.3f} ms (median of {len(latencies)} runs{noted})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
