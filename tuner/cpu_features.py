"""Instruction sets: what a compiled library needs against what this processor has, so that a wrong machine gets
a sentence instead of an illegal instruction.

Compilers and Linux name them differently; names here are those of /proc/cpuinfo.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

LINUX_NAMES = {
    # x86: LLVM's feature -> flag in /proc/cpuinfo. Only what a code generator may use in a kernel.
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "popcnt": "popcnt",
    "movbe": "movbe",
    "lzcnt": "abm",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "f16c": "f16c",
    "fma": "fma",
    "avx": "avx",
    "avx2": "avx2",
    "avxvnni": "avx_vnni",
    "gfni": "gfni",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
    # aarch64
    "neon": "asimd",
    "fullfp16": "asimdhp",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "lse": "atomics",
    "sve": "sve",
    "sve2": "sve2",
}


def required_features(llvm_features: Iterable[str]) -> tuple[str, ...]:
    """The /proc/cpuinfo names of those of LLVM's features that generated code may use, sorted."""
    return tuple(sorted({LINUX_NAMES[feature] for feature in llvm_features if feature in LINUX_NAMES}))


def host_features(cpuinfo: Path = CPUINFO) -> frozenset[str] | None:
    """What this processor has, or None where the system does not say (no /proc/cpuinfo)."""
    if not cpuinfo.exists():
        return None
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return None


def host_architecture() -> str:
    """`x86_64` or `aarch64`, spelled as in a triple."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
