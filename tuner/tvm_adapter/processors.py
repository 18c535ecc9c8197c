"""What LLVM knows about this machine's processor and about the processors that it can compile for."""

from __future__ import annotations

import tvm_ffi
from tvm.target import Target, codegen

from crosstune.tuner.tvm_adapter.target import CPU_KIND

RELEVANT = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "popcnt", "lzcnt", "movbe", "gfni", "vaes", "vpclmul", "amx")
"""Beginnings of the names of x86 features that decide about a kernel's instructions."""
RELEVANT_ARM = ("neon", "fullfp16", "dotprod", "i8mm", "bf16", "sve", "sme", "fp-armv8")
HOST_FEATURES = "tvm.codegen.llvm.GetHostCPUFeatures"


def own_processor() -> str:
    """This machine's processor by LLVM's name for it."""
    return str(codegen.llvm_get_system_cpu())


def own_features() -> dict[str, bool]:
    """Relevant features: True for those of this very machine, which may hide some of its model's."""
    found = tvm_ffi.get_global_func(HOST_FEATURES)().items()
    return {str(name): bool(present) for name, present in found if _relevant(str(name))}


def processors(triple: str) -> list[str]:
    """The names that LLVM takes as mcpu for `triple`; empty when it has no such architecture."""
    if triple.partition("-")[0] not in {str(name).replace("x86-64", "x86_64") for name in codegen.llvm_get_targets()}:
        return []
    return sorted(str(name) for name in codegen.llvm_get_cpu_archlist(Target({"kind": CPU_KIND, "mtriple": triple})))


def features(mcpu: str, triple: str) -> set[str]:
    """Relevant features that code for `mcpu` may use."""
    target = Target({"kind": CPU_KIND, "mtriple": triple, "mcpu": mcpu})
    return {str(name) for name in codegen.llvm_get_cpu_features(target) if _relevant(str(name))}


def _relevant(name: str) -> bool:
    return name.startswith((*RELEVANT, *RELEVANT_ARM))
