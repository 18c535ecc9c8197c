"""The table of known hardware, and how a target finds its row."""

from __future__ import annotations

import pytest

from crosstune.cost_model.formats.target_text import parse_target
from crosstune.cost_model.hardware.known import known_names, lookup

TENSET = ("platinum-8272", "e5-2673", "epyc-7452", "graviton2", "k80", "t4")


@pytest.mark.parametrize("name", TENSET)
def test_every_platform_of_tenset_is_known_by_its_model(name: str) -> None:
    kind = "cuda" if name in ("k80", "t4") else "llvm"
    found = lookup(parse_target(f"{kind} -model={name}"))
    assert found is not None
    assert found["kind"] == ("gpu" if kind == "cuda" else "cpu")
    assert found["peak_flops_per_s"] > 1e11
    assert 1e10 < found["memory_bytes_per_s"] < 2e12


@pytest.mark.parametrize("name", known_names())
def test_every_row_is_complete(name: str) -> None:
    found = lookup({"kind": "x", "model": name})
    assert found is not None
    wanted = {"frequency_hz", "l2_bytes", "peak_flops_per_s", "memory_bytes_per_s"}
    wanted |= {"multiprocessors", "warp_size", "shared_bytes"} if found["kind"] == "gpu" else {"cores", "vector_bits"}
    assert wanted <= found.keys()


def test_the_cores_of_a_target_replace_those_of_the_chip() -> None:
    whole, four = (lookup({"kind": "llvm", "model": "e5-2673", **cores}) for cores in ({}, {"num-cores": 4}))
    assert whole is not None and four is not None
    assert whole["cores"] == 20
    assert four["peak_flops_per_s"] == pytest.approx(whole["peak_flops_per_s"] / 5)


def test_peak_is_cores_times_clock_times_lanes_times_multiply_adds() -> None:
    found = lookup({"kind": "llvm", "model": "platinum-8272", "num-cores": 1})
    assert found is not None
    assert found["peak_flops_per_s"] == pytest.approx(2.6e9 * 2 * 2 * 16)


def test_a_gpu_is_known_by_its_architecture_and_says_that_it_was_assumed() -> None:
    found = lookup(parse_target("cuda -keys=cuda,gpu -arch=sm_80"))
    assert found is not None
    assert found["assumed"] and found["multiprocessors"] == 108


def test_what_the_importer_was_told_outweighs_the_target() -> None:
    found = lookup(parse_target("cuda -arch=sm_86"), device="RTX3080")
    assert found is not None
    assert "assumed" not in found and found["multiprocessors"] == 68


def test_an_mcpu_tells_the_vector_unit_and_nothing_that_was_guessed() -> None:
    assert lookup({"kind": "llvm", "mcpu": "znver4", "num-cores": 2}) == {
        "kind": "cpu",
        "vector_bits": 512,
        "vector_units": 1,
        "cores": 2,
    }


def test_what_is_not_known_is_none() -> None:
    assert lookup({"kind": "llvm"}) is None
    assert lookup({"kind": "metal", "model": "m9"}, device="nothing") is None
