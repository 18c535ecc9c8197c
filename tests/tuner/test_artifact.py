"""Artifacts: loaded without the service, and refused with a sentence where they cannot run."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from crosstune.tuner.archive import pack, unpack
from crosstune.tuner.artifact import TunedNetwork, check_machine, load
from crosstune.tuner.cpu_features import host_features, required_features
from crosstune.tuner.manifest import LIBRARY_NAME, MANIFEST_NAME, WEIGHTS_NAME, ArtifactRefused, read_manifest
from crosstune.tuner.tvm_adapter.runtime import tensor
from crosstune.tuner.weights_file import aligned_empty, read_weights, write_weights

FRESH = """
import json, sys
import numpy as np
from crosstune.tuner.artifact import load
network = load(sys.argv[1])
x = np.load(sys.argv[2])
result = network(x)
np.savez(sys.argv[3], **result)
loaded = [name for name in ("tvm", "torch", "onnx", "onnxruntime", "sqlalchemy", "fastapi", "crosstune.service",
                            "crosstune.db") if name in sys.modules]
print(json.dumps(loaded))
"""


THREADS = """
import os, sys
from pathlib import Path
from crosstune.tuner.artifact import load
from crosstune.tuner.manifest import ArtifactRefused, read_manifest
threads = read_manifest(Path(sys.argv[1])).threads
load(sys.argv[1])
assert os.environ["TVM_NUM_THREADS"] == str(threads)
try:
    load(sys.argv[1], threads=threads + 1)
except ArtifactRefused as error:
    print(error)
"""


@pytest.fixture
def network(artifact: Path) -> TunedNetwork:
    """The loaded artifact's checks around a stand-in for its compiled function: this process starts no threads."""
    manifest = read_manifest(artifact)

    def main(x: Any, *weights: Any) -> Any:
        assert len(weights) == len(manifest.parameters)
        values = np.from_dlpack(x)
        return tensor((values.reshape(10, -1) * np.arange(1, 121, dtype=np.float32)).sum(axis=1).reshape(1, 10))

    return TunedNetwork(manifest, main, read_weights(artifact / WEIGHTS_NAME))


def fresh_process(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=check, timeout=120)


def copied(artifact: Path, folder: Path, **changes: Any) -> Path:
    """The artifact once more, with fields of its manifest changed."""
    copy = folder / "copy"
    shutil.copytree(artifact, copy)
    manifest = json.loads((copy / MANIFEST_NAME).read_text()) | changes
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    return copy


def random_input(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 20, 20)).astype(np.float32)


@pytest.mark.parametrize("packed", [False, True])
def test_a_fresh_process_runs_it_without_the_service_or_a_compiler(
    artifact: Path, small_network: onnx.ModelProto, tmp_path: Path, packed: bool
) -> None:
    path = pack(artifact, tmp_path / "network.tar") if packed else artifact
    np.save(tmp_path / "x.npy", random_input())
    answer = fresh_process("-c", FRESH, str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npz"))
    assert json.loads(answer.stdout) == []
    session = onnxruntime.InferenceSession(small_network.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": random_input()})
    found = np.load(tmp_path / "y.npz")["probabilities"]
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_command_describes_and_times_it(artifact: Path) -> None:
    answer = fresh_process("-m", "crosstune.tuner.artifact", str(artifact), "--seconds", "0.2")
    assert "x: float32[1, 3, 20, 20]" in answer.stdout
    assert "probabilities: float32[1, 10]" in answer.stdout
    assert "latency" in answer.stdout and "manifest" in answer.stdout


def test_the_command_ends_with_a_sentence_when_it_is_refused(tmp_path: Path) -> None:
    answer = fresh_process("-m", "crosstune.tuner.artifact", str(tmp_path), check=False)
    assert answer.returncode == 1
    assert "not an artifact" in answer.stderr and "Traceback" not in answer.stderr


def test_inputs_come_in_order_or_by_name_in_any_memory(network: TunedNetwork) -> None:
    x = random_input()
    expected = network(x)["probabilities"].copy()
    odd = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
    odd[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    transposed = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    aligned = aligned_empty(x.shape, x.dtype)
    aligned[...] = x
    for same in (odd, frozen, transposed, aligned, x.astype(np.float64), x.tolist()):
        np.testing.assert_array_equal(network(x=same)["probabilities"], expected)
    assert not np.array_equal(network(random_input(4))["probabilities"], expected)


def test_wrong_inputs_are_named(network: TunedNetwork) -> None:
    x = random_input()
    with pytest.raises(ValueError, match=r"shape \(1, 3, 10, 10\).*\(1, 3, 20, 20\)"):
        network(x[:, :, :10, :10])
    with pytest.raises(ValueError, match="unknown: y; missing: x"):
        network(y=x)
    with pytest.raises(ValueError, match="missing: x"):
        network()
    with pytest.raises(ValueError, match="takes 1: x"):
        network(x, x)
    with pytest.raises(ValueError, match="takes the inputs x"):
        network(x, x=x)
    with pytest.raises(TypeError, match="complex"):
        network(x.astype(np.complex64))


def test_the_manifests_thread_count_is_in_effect_and_another_is_refused_afterwards(artifact: Path) -> None:
    answer = fresh_process("-c", THREADS, str(artifact))
    assert "thread pool already runs" in answer.stdout


def test_a_missing_instruction_set_is_a_sentence_not_an_illegal_instruction(artifact: Path, tmp_path: Path) -> None:
    features = [*read_manifest(artifact).cpu_features, "avx9000"]
    with pytest.raises(ArtifactRefused, match="avx9000; this processor has not"):
        load(copied(artifact, tmp_path, cpu_features=features))


def test_another_architecture_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match="compiled for riscv64"):
        load(copied(artifact, tmp_path, architecture="riscv64"))


def test_another_version_of_tvm_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"pip install apache-tvm==0\.99\.0"):
        load(copied(artifact, tmp_path, tvm_version="0.99.0"))


@pytest.mark.parametrize("name", [LIBRARY_NAME, WEIGHTS_NAME])
def test_an_altered_file_is_refused(artifact: Path, tmp_path: Path, name: str) -> None:
    folder = copied(artifact, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactRefused, match=f"{name} is not the file that was verified"):
        load(folder)


def test_a_missing_file_an_unfinished_folder_and_a_damaged_manifest_are_refused(artifact: Path, tmp_path: Path) -> None:
    folder = copied(artifact, tmp_path)
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(ArtifactRefused, match=f"lacks its file '{WEIGHTS_NAME}'"):
        load(folder)
    (folder / MANIFEST_NAME).write_text("{}")
    with pytest.raises(ArtifactRefused, match="manifest schema None"):
        load(folder)
    (folder / MANIFEST_NAME).write_text('{"schema": 1}')
    with pytest.raises(ArtifactRefused, match="damaged"):
        load(folder)
    (folder / MANIFEST_NAME).write_text("{")
    with pytest.raises(ArtifactRefused, match="not JSON"):
        load(folder)
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(ArtifactRefused, match="never finished"):
        load(folder)


def test_the_manifest_asks_only_for_what_this_machine_has(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert {"avx2", "fma"} <= set(manifest.cpu_features)
    assert set(manifest.cpu_features) <= (host_features() or set())
    check_machine(manifest)


def test_features_are_named_as_linux_names_them(tmp_path: Path) -> None:
    assert required_features(["avx512vnni", "sse4.1", "bmi", "fast-gather", "lzcnt"]) == (
        "abm",
        "avx512_vnni",
        "bmi1",
        "sse4_1",
    )
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 fma\n")
    assert host_features(tmp_path / "cpuinfo") == {"fpu", "avx2", "fma"}
    assert host_features(tmp_path / "none") is None


def test_packing_twice_gives_the_same_bytes_and_only_what_the_manifest_lists(artifact: Path, tmp_path: Path) -> None:
    first, second = pack(artifact, tmp_path / "a.tar"), pack(artifact, tmp_path / "b.tar")
    assert first.read_bytes() == second.read_bytes()
    folder = unpack(first, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST_NAME, LIBRARY_NAME, WEIGHTS_NAME])
    assert read_manifest(folder) == read_manifest(artifact)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/b/c", "a/../../outside", ".."])
def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(ArtifactRefused, match="no file of an artifact"):
        load(tmp_path / "evil.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        entry = tarfile.TarInfo(f"a/{MANIFEST_NAME}")
        entry.type, entry.linkname = kind, "/etc/hostname"
        tar.addfile(entry)
    with pytest.raises(ArtifactRefused, match=r"no file of an artifact|cannot be read"):
        load(tmp_path / "evil.tar")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(ArtifactRefused, match="cannot be read as an artifact"):
        load(tmp_path / "text.tar")
    with pytest.raises(ArtifactRefused, match="cannot be read as an artifact"):
        load(tmp_path / "missing.tar")


def test_weights_keep_their_values_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    weights = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(True),
        "c": np.zeros((0, 4), np.float16),
        "d": np.arange(5, dtype=np.int64)[::-1],
    }
    path = tmp_path / "w.safetensors"
    write_weights(path, weights)
    found = read_weights(path)
    assert list(found) == list(weights)
    for name, array in weights.items():
        assert found[name].dtype == array.dtype and (not array.size or found[name].ctypes.data % 64 == 0)
        np.testing.assert_array_equal(found[name], array)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ArtifactRefused, match="ends too early"):
        read_weights(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ArtifactRefused, match="damaged"):
        read_weights(path)


@pytest.mark.slow
def test_a_fresh_process_reproduces_the_manifests_latency(artifact: Path) -> None:
    answer = fresh_process("-m", "crosstune.tuner.artifact", str(artifact), "--seconds", "3")
    found_ms = float(answer.stdout.split("latency ")[1].split(" ms")[0])
    assert found_ms / 1e3 == pytest.approx(read_manifest(artifact).latencies["tuned_s"], rel=0.1)


def test_torch_stays_usable_after_tvm_was_loaded_without_it() -> None:
    """Where torch is installed, TVM's import takes it in unless it is hidden, and it must come back."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed: make training")
    script = (
        "import sys; from crosstune.tuner.tvm_adapter.preload import preload; preload(); "
        "before = 'torch' in sys.modules; import torch; print(before, float(torch.ones(3).sum()))"
    )
    assert fresh_process("-c", script).stdout.split() == ["False", "3.0"]
