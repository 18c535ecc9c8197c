"""Weights in a file of their own (the safetensors format: a JSON header, then the raw little-endian data).

Kept out of the library: embedded in it they pass through LLVM and the linker (2.5 s and a second copy per 108 MB).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crosstune.tuner.manifest import ArtifactRefused

Array = np.ndarray[Any, np.dtype[Any]]

ALIGNMENT_BYTES = 64
"""What TVM's generated code assumes of every buffer's address."""
LARGEST_HEADER_BYTES = 100_000_000

FORMAT_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
DTYPES = {name: dtype for dtype, name in FORMAT_NAMES.items()}


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised C-contiguous array whose data starts at a multiple of 64 bytes."""
    kind = np.dtype(dtype)
    size_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    raw = np.empty(size_bytes + ALIGNMENT_BYTES, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT_BYTES
    array: Array = raw[offset : offset + size_bytes].view(kind).reshape(shape)
    return array


def is_aligned(array: Array) -> bool:
    """True when compiled code may use the array's own memory (DLPack has no word for read-only arrays)."""
    return array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT_BYTES == 0


def write_weights(path: Path, weights: Mapping[str, Array]) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, array in weights.items():
        header[name] = {
            "dtype": FORMAT_NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT_BYTES)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in weights.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read_weights(path: Path) -> dict[str, Array]:
    """Every tensor by name, each aligned for compiled code; ArtifactRefused when the file is cut or damaged."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > LARGEST_HEADER_BYTES:
            raise ArtifactRefused(f"{path.name} is damaged: its header would be {header_bytes} bytes long")
        try:
            entries = json.loads(file.read(header_bytes))
            return {name: _read_one(file, 8 + header_bytes, entry) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactRefused(f"{path.name} is damaged: {error}") from error


def _read_one(file: Any, data_start: int, entry: dict[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    array = aligned_empty(tuple(entry["shape"]), DTYPES[entry["dtype"]])
    if array.nbytes != end - begin:
        raise ValueError(f"a tensor of {array.nbytes} bytes stands in {end - begin}")
    file.seek(data_start + begin)
    if array.nbytes and file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
        raise ValueError("the file ends too early")
    return array
