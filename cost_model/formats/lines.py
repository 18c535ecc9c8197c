"""Numbered lines of a text file, compressed or not, in constant memory."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

MAX_LINE_BYTES = 64 << 20
"""No real record comes near; a compressed file without line ends would fill the memory."""
GZIP_MAGIC = b"\x1f\x8b"
COMMENT = b"#"


class Damaged(ValueError):
    """A file that cannot be read any further: `line` is the first that is lost."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line, self.problem = line, problem


class NumberedLines:
    """Iterates over (number from 1, line without its end); comments and blank lines are left out.

    Compression is seen from the content, not from the name. Raises Damaged where a compressed file ends early or is
    none, or a line is too long; OSError when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        compressed = self._raw.peek(2)[:2] == GZIP_MAGIC
        self._file: IO[bytes] = gzip.GzipFile(fileobj=self._raw) if compressed else self._raw  # type: ignore[assignment]
        self._broken = not compressed and path.suffix == ".gz" and bool(self._raw.peek(1))

    @property
    def position_bytes(self) -> int:
        """How much of the file, as it lies on disk, has been read."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        if self._broken:
            raise Damaged(1, "the file is named .gz, but what it holds is not gzip")
        number = 0
        while line := self._next(number + 1):
            number += 1
            text = line.strip()
            if text and not text.startswith(COMMENT):
                yield number, text

    def _next(self, number: int) -> bytes:
        try:
            line = self._file.readline(MAX_LINE_BYTES + 1)
        except EOFError:
            raise Damaged(number, "the compressed file ends early; it was cut off") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Damaged(number, f"the compressed file is damaged: {error}") from None
        if len(line) > MAX_LINE_BYTES:
            raise Damaged(number, f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
        return line

    def __enter__(self) -> NumberedLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()


def drop_cut_line(path: Path) -> None:
    """Take a last line without its end, which a crash cut off, from a file that is appended to."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:  # backwards in blocks: a line may be long, the file longer
            start = max(0, end - (1 << 16))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)
