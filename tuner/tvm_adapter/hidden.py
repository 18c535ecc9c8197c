"""Import a package without the optional ones that it takes along wherever they are installed.

tvm_ffi imports torch whenever it can, to convert its tensors faster: three seconds and hundreds of megabytes for every
process that builds or measures a candidate or runs an artifact, none of which uses it. xgboost imports scikit-learn for
its estimators, and that pandas and pyarrow, which starts a thread; a process with threads must not fork.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Inside, the packages cannot be imported, afterwards they can; one that is there already stays."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]
