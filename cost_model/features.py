"""Statement features of a scheduled program: one row of 164 numbers per buffer store.

The numbers are those of TVM's per-store features: counts, extents and byte sizes as log2(|x| + 1), next to one-hot
flags. Columns: 0-15 arithmetic, 16-26 vectorize, 27-37 unroll, 38-48 parallel, 49-56 GPU, 57-146 five buffers of 18,
147-156 arithmetic intensity from inner to outer loops, 157-160 allocation, 161-163 loops around the store.

They are stored beside every measurement as float16, compressed, with the version of their layout, since replaying old
records to extract them again would take hours and end at the next TVM.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

FEATURE_LAYOUT = 1
"""Bump when the meaning or number of columns changes; old rows are then skipped, not misread."""

STATEMENT_COLUMNS = 164
VECTOR_LENGTH = 3 * STATEMENT_COLUMNS + 1
_ONE_HOT_COLUMNS = np.zeros(STATEMENT_COLUMNS, dtype=bool)
for _first in (19, 30, 41):  # position of vectorize, unroll, parallel: 8 flags each
    _ONE_HOT_COLUMNS[_first : _first + 8] = True
for _buffer in range(57, 147, 18):  # per buffer: 3 access flags, then 4 sizes, then 3 reuse flags
    _ONE_HOT_COLUMNS[_buffer : _buffer + 3] = True
    _ONE_HOT_COLUMNS[_buffer + 7 : _buffer + 10] = True

Matrix = NDArray[np.float32]
"""(stores, 164)"""
Vector = NDArray[np.float32]
"""(VECTOR_LENGTH,)"""


class WrongLayout(ValueError):
    """Packed features of another layout version, or damaged ones."""


def pack(features: Matrix) -> bytes:
    """`features`, shape (stores, 164), in about 1 kB: layout version, number of stores, then float16, deflated."""
    if features.ndim != 2 or features.shape[1] != STATEMENT_COLUMNS:
        raise WrongLayout(f"statement features have shape (stores, {STATEMENT_COLUMNS}), not {features.shape}")
    header = FEATURE_LAYOUT.to_bytes(1, "big") + len(features).to_bytes(2, "big")
    return header + zlib.compress(features.astype("<f2").tobytes(), 6)


def layout_of(packed: bytes) -> int:
    """The layout version of packed features."""
    if len(packed) < 3:
        raise WrongLayout("packed features are at least three bytes long")
    return packed[0]


def unpack(packed: bytes) -> Matrix:
    """The features that `pack` was given, shape (stores, 164), to float16 precision; WrongLayout for anything else."""
    if layout_of(packed) != FEATURE_LAYOUT:
        raise WrongLayout(f"features have layout {packed[0]}, this version reads {FEATURE_LAYOUT}")
    stores = int.from_bytes(packed[1:3], "big")
    size_bytes = stores * STATEMENT_COLUMNS * 2
    reader = zlib.decompressobj()
    try:
        raw = reader.decompress(packed[3:], size_bytes + 1)  # a bomb stops here
    except zlib.error as error:
        raise WrongLayout(f"packed features are damaged: {error}") from error
    if len(raw) != size_bytes or not reader.eof:
        raise WrongLayout(f"packed features hold {len(raw)} bytes where {stores} stores need {size_bytes}")
    return np.frombuffer(raw, dtype="<f2").reshape(stores, STATEMENT_COLUMNS).astype(np.float32)


def vector(features: Matrix) -> Vector:
    """One program as (VECTOR_LENGTH,), see `vectors`; zeros when it has no stores."""
    found: Vector = vectors(features[None], np.ones((1, len(features)), dtype=bool))[0]
    return found


def vectors(features: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Programs (n, stores, 164), padded where `mask` (n, stores) is False, as (n, VECTOR_LENGTH).

    Sum over stores (magnitudes are summed as numbers, not as logarithms), maximum over stores, the store with the
    most iterations times arithmetic, and the number of stores.
    """
    count = mask.sum(axis=1, dtype=np.float32)
    found = np.zeros((len(features), VECTOR_LENGTH), dtype=np.float32)
    there = count > 0
    if not there.any():
        return found
    features, mask = features[there], mask[there]
    kept = mask[..., None]
    magnitudes = np.log2(np.sum((np.exp2(features) - 1.0) * kept, axis=1) + 1.0)
    total = np.where(_ONE_HOT_COLUMNS, np.sum(features * kept, axis=1), magnitudes)
    arithmetic = np.where(mask, features[..., :16].max(axis=2), -np.inf)
    main = features[np.arange(len(features)), np.argmax(arithmetic, axis=1)]
    largest = np.max(features, axis=1, where=kept, initial=-np.inf)
    found[there] = np.concatenate([total, largest, main, count[there, None]], axis=1)
    return found
