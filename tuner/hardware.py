"""What Linux tells about this machine: processor, usable cores, caches, memory. Nothing here is part of a target's
identity; each value carries where it comes from, since the cost model reads detected and calibrated ones alike."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

HARDWARE_VERSION = 1
"""Raised when an attribute changes its meaning."""
CPUINFO = Path("/proc/cpuinfo")
CPU_FOLDER = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class Origin(StrEnum):
    """Where an attribute's value comes from."""

    DETECTED = "detected"
    TABLE = "table"
    CALIBRATED = "calibrated"


@dataclass(frozen=True, slots=True)
class HardwareAttribute:
    """One fact about hardware; the attribute's name carries the unit."""

    value: float | str
    origin: Origin
    version: int = HARDWARE_VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> HardwareAttribute:
        return cls(value["value"], Origin(value["origin"]), value["version"])


Attributes = dict[str, HardwareAttribute]


def detect() -> Attributes:
    """Attributes of this machine as Linux gives them; what cannot be found is left out.

    vendor, model (strings); cores (usable here), threads_per_core, l1d_bytes, l2_bytes, l3_bytes (one instance each),
    last_cache_bytes, memory_bytes, frequency_hz, vector_bits
    """
    facts = cpuinfo()
    found: dict[str, float | str | None] = {
        "vendor": vendor(facts),
        "model": model(facts),
        "cores": usable_cores(),
        "threads_per_core": _threads_per_core(),
        **cache_bytes(),
        "memory_bytes": memory_bytes(),
        "frequency_hz": frequency_hz(facts),
        "vector_bits": vector_bits(set(facts.get("flags", facts.get("Features", "")).split())),
    }
    return {name: HardwareAttribute(value, Origin.DETECTED) for name, value in found.items() if value is not None}


def cpuinfo(path: Path = CPUINFO) -> dict[str, str]:
    """The fields of the first processor."""
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def model(facts: Mapping[str, str]) -> str:
    """The processor's model, also where a virtual machine hides its name (`AMD EPYC` alone): with family and model."""
    name = re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)", "", facts.get("model name", ""))).strip()
    name = re.sub(r"( CPU)?( @.*)?$", "", re.sub(r" (\d+-Core )?Processor.*$", "", name))
    if re.search(r"\d", name):
        return name
    if "cpu family" in facts:
        return f"{name} family {facts['cpu family']} model {facts['model']}".strip()
    if "CPU part" in facts:
        return f"{platform.machine()} implementer {facts['CPU implementer']} part {facts['CPU part']}"
    return name or platform.machine()


def vendor(facts: Mapping[str, str]) -> str:
    known = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "0x41": "Arm", "0xc0": "Ampere", "0x61": "Apple"}
    value = facts.get("vendor_id") or facts.get("CPU implementer") or "unknown"
    return known.get(value, value)


def usable_cores() -> int:
    """Processors that this process may use: its affinity, and the quota of its control group, rounded down."""
    allowed = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _cgroup_quota() -> float | None:
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (FileNotFoundError, ValueError):
        return None  # no version 2 of control groups here, or no controller for processors
    return None if quota == "max" else int(quota) / int(period)


def cache_bytes(folder: Path = CPU_FOLDER) -> dict[str, float]:
    """Sizes of the caches above the first usable processor, one instance of each level."""
    found: dict[str, float] = {}
    for index in sorted((folder / f"cpu{min(os.sched_getaffinity(0))}" / "cache").glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        level, size = (index / "level").read_text().strip(), (index / "size").read_text().strip()
        found["l1d_bytes" if level == "1" else f"l{level}_bytes"] = float(int(size[:-1]) * UNITS[size[-1]])
    return found | ({"last_cache_bytes": max(found.values())} if found else {})


def memory_bytes() -> float:
    """Main memory, or what the control group leaves of it."""
    physical = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = CGROUP / "memory.max"
    text = limit.read_text().strip() if limit.exists() else "max"
    return physical if text == "max" else min(physical, float(text))


def frequency_hz(facts: Mapping[str, str]) -> float | None:
    """The highest frequency of a core, or the present one where a virtual machine tells no more."""
    highest = CPU_FOLDER / "cpu0" / "cpufreq" / "cpuinfo_max_freq"
    if highest.exists():
        return float(highest.read_text()) * 1e3
    return float(facts["cpu MHz"]) * 1e6 if "cpu MHz" in facts else None


def vector_bits(flags: set[str]) -> float | None:
    """Width of a vector register by the flags in /proc/cpuinfo."""
    for flag, bits in (("avx512f", 512.0), ("avx", 256.0), ("sse2", 128.0), ("asimd", 128.0)):
        if flag in flags:
            return bits
    return None


def _threads_per_core() -> float | None:
    siblings = CPU_FOLDER / "cpu0" / "topology" / "thread_siblings_list"
    if not siblings.exists():
        return None
    ranges = [part.partition("-") for part in siblings.read_text().strip().split(",")]
    return float(sum(int(last or first) - int(first) + 1 for first, _, last in ranges))
