"""The manifest of an artifact: what it is, what it needs, what was pinned, what was checked, how fast it was.

An artifact is a folder with exactly the files that the manifest lists (with their sha256) and `manifest.json`
itself, which is written last and atomically: a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosstune.tuner.contracts import CrosstuneError, TargetSpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
LIBRARY_NAME = "network.so"
WEIGHTS_NAME = "weights.safetensors"


class ArtifactRefused(CrosstuneError):
    """An artifact that must not be run here; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a network."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Port:
        return cls(str(value["name"]), str(value["dtype"]), tuple(int(size) for size in value["shape"]))


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the field names; latencies are seconds, `files` maps a file's name to the sha256 of its content."""

    target: TargetSpec
    tvm_version: str
    architecture: str
    cpu_features: tuple[str, ...]
    """Flags of /proc/cpuinfo that the library may use."""
    threads: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: tuple[str, ...]
    """Names in the weights file, in the order in which the compiled function takes them after its inputs."""
    pipeline_version: int
    layout: str
    synthetic_weights: bool
    schedules: tuple[dict[str, Any], ...]
    """Per distinct workload: workload_sha256, functions, weight, schedule_sha256 (None: default), latency_s, source,
    label (how the schedule was known), expected_latency_s, reason (of a default where another one was wanted)."""
    workloads_applied: int
    workloads_total: int
    verification: dict[str, Any] = field(default_factory=dict)
    latencies: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA_VERSION,
            "target": self.target.to_json(),
            "tvm_version": self.tvm_version,
            "architecture": self.architecture,
            "cpu_features": list(self.cpu_features),
            "threads": self.threads,
            "inputs": [port.to_json() for port in self.inputs],
            "outputs": [port.to_json() for port in self.outputs],
            "parameters": list(self.parameters),
            "pipeline_version": self.pipeline_version,
            "layout": self.layout,
            "synthetic_weights": self.synthetic_weights,
            "schedules": list(self.schedules),
            "workloads_applied": self.workloads_applied,
            "workloads_total": self.workloads_total,
            "verification": self.verification,
            "latencies": self.latencies,
            "files": self.files,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        """ArtifactRefused for another schema version or a field that is missing or of the wrong form."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA_VERSION:
            found = value.get("schema") if isinstance(value, dict) else None
            raise ArtifactRefused(f"manifest schema {found!r} is not known; this crosstune reads {SCHEMA_VERSION}")
        try:
            return cls(
                target=TargetSpec.from_json(value["target"]),
                tvm_version=str(value["tvm_version"]),
                architecture=str(value["architecture"]),
                cpu_features=tuple(value["cpu_features"]),
                threads=int(value["threads"]),
                inputs=tuple(Port.from_json(port) for port in value["inputs"]),
                outputs=tuple(Port.from_json(port) for port in value["outputs"]),
                parameters=tuple(value["parameters"]),
                pipeline_version=int(value["pipeline_version"]),
                layout=str(value["layout"]),
                synthetic_weights=bool(value["synthetic_weights"]),
                schedules=tuple(value["schedules"]),
                workloads_applied=int(value["workloads_applied"]),
                workloads_total=int(value["workloads_total"]),
                verification=dict(value["verification"]),
                latencies=dict(value["latencies"]),
                files={str(name): str(digest) for name, digest in value["files"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactRefused(f"the manifest is damaged: {type(error).__name__}: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact folder; ArtifactRefused when there is none or it cannot be read."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ArtifactRefused(f"{folder} has no {MANIFEST_NAME}: not an artifact, or one that was never finished")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactRefused(f"{path} is not JSON: {error}") from error
    return Manifest.from_json(value)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` so that a reader (or a crash) sees all of it or nothing."""
    temporary = folder / f".{MANIFEST_NAME}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest.to_json(), file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST_NAME)


def check_files(folder: Path, manifest: Manifest) -> None:
    """ArtifactRefused when a listed file is missing or not the one that was verified."""
    for name, digest in manifest.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ArtifactRefused(f"the artifact lacks its file {name!r}")
        if sha256_file(path) != digest:
            raise ArtifactRefused(f"{name} is not the file that was verified (its sha256 differs): fetch it again")


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
