"""Random, truncated and bit-flipped uploads: stored exactly or refused with a problem, and the service lives on."""

from __future__ import annotations

import hashlib
import importlib.util
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

LARGEST_SAMPLE_BYTES = 60_000


@pytest.fixture(scope="module")
def onnx_bytes() -> bytes:
    """The head of a real network out of the onnx package, whose code is not needed for it."""
    specification = importlib.util.find_spec("onnx")
    assert specification is not None and specification.origin is not None
    folder = Path(specification.origin).parent / "backend" / "test" / "data" / "light"
    return (folder / "light_squeezenet.onnx").read_bytes()[:LARGEST_SAMPLE_BYTES]


def _damaged(content: bytes, how: str, seed: int) -> bytes:
    draw = random.Random(seed)
    if how == "random":
        return draw.randbytes(draw.randrange(2048))
    if how == "truncated":
        return content[: draw.randrange(len(content))]
    if how == "oversized":
        return content * 2
    flipped = bytearray(content)
    for _ in range(draw.randrange(1, 20)):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def test_any_upload_is_stored_exactly_or_refused_with_a_problem(api: Api, onnx_bytes: bytes) -> None:
    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        how=st.sampled_from(["random", "truncated", "flipped", "oversized"]),
        seed=st.integers(0, 2**32),
        name=st.none() | st.text(max_size=8),
        shape=st.lists(st.text(max_size=12) | st.sampled_from(["x:1,3", "data:1,3,224,224"]), max_size=2),
    )
    def run(how: str, seed: int, name: str | None, shape: list[str]) -> None:
        content = _damaged(onnx_bytes, how, seed)
        response = api.upload(content, shape=shape, **({} if name is None else {"name": name}))
        if response.status_code < 300:
            network = response.json()
            digest = hashlib.sha256(content).hexdigest()
            assert network["content_sha256"] == digest
            stored = api.settings.data_dir / "artifacts" / "default" / "network" / digest[:2] / digest
            assert stored.read_bytes() == content
        else:
            assert response.status_code in {409, 413, 422}
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"]

    run()
    assert api.get("/livez").status_code == 200
    incoming = api.settings.data_dir / "artifacts" / "incoming"
    assert list(incoming.iterdir()) == []
