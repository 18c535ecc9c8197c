"""What commands print: JSON for machines on stdout, tables for people; notes and errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from crosstune.service.schemas.schedules import Expectation

ABSENT = "-"


PIPE_WIDTH = 200
"""Columns where no terminal sets them: a table in a file is not folded at 80."""


def stdout_console() -> Console:
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def note(text: str) -> None:
    """A line for people that never mixes with machine output."""
    Console(file=sys.stderr, highlight=False, soft_wrap=True).print(text, markup=False)


def busy(text: str) -> AbstractContextManager[object]:
    """A spinner on stderr for as long as the block lasts, where there is somebody to see it."""
    console = Console(file=sys.stderr)
    return console.status(text) if console.is_terminal else nullcontext()


def plain(value: Any) -> Any:
    """A schema, or a list of them, as JSON values."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def print_json(value: Any) -> None:
    """One JSON document and a line end; flushed, so that a pipe sees it at once."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """One line of NDJSON, for streams."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Table:
    """A table whose `right` columns hold numbers."""
    result = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        # An id is copied from here: it stays in one piece, and others give way.
        whole = column in ("id", "state")
        result.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        result.add_row(*(cell(value) for value in row))
    return result


def print_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Sequence[str] = (),
    empty: str = "nothing",
) -> None:
    """The table, or the sentence `empty` where it has no rows."""
    listed = list(rows)
    console = stdout_console()
    console.print(table(title, columns, listed, right) if listed else empty)


def cell(value: Any) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def duration(value_s: float | None) -> str:
    """A latency or a span with three digits and a fitting unit."""
    if value_s is None:
        return ABSENT
    for limit_s, scale, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if value_s < limit_s:
            return f"{value_s * scale:.3g} {unit}"
    return f"{value_s:.3g} s" if value_s < 120 else f"{value_s / 60:.3g} min"


def expected(found: Expectation) -> str:
    """An expected latency with its 80 % interval."""
    if found.expected_latency_s is None:
        return ABSENT
    return (
        f"{duration(found.expected_latency_s)} ({duration(found.expected_low_s)} to {duration(found.expected_high_s)})"
    )


def speedup(before_s: float | None, after_s: float | None) -> str:
    return f"{before_s / after_s:.2f}x" if before_s and after_s else ABSENT


def flops(value: float | None) -> str:
    """A count of floating point operations."""
    if value is None:
        return ABSENT
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}FLOP"
    return f"{value:.0f} FLOP"


def throughput(operations: float | None, latency_s: float | None) -> str:
    return f"{operations / latency_s / 1e9:.1f}" if operations and latency_s else ABSENT
