"""Keep TVM's foreign-function interface from importing torch, where it is installed.

tvm_ffi imports torch whenever it can, to convert its tensors faster: three seconds and hundreds of megabytes for every
process that builds or measures a candidate or runs an artifact, none of which uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_hidden() -> Iterator[None]:
    """For the first import of tvm_ffi: inside torch cannot be imported, afterwards it can; one that is there stays.

    tvm_ffi asks for torch first because of a clash of symbols on Windows, which crosstune does not run on.
    """
    if "torch" in sys.modules or "tvm_ffi" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get("torch", ...) is None:
            del sys.modules["torch"]
