"""docs/cli.md, made from the commands themselves: `python -m crosstune.service.cli.reference > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

WIDTH = 100


def reference() -> str:
    """Every command's help as Markdown, in the order of `crosstune --help`."""
    from crosstune.service.cli import application

    command = typer.main.get_command(application)
    parts = [
        "# The command line",
        "Made from `--help` by `python -m crosstune.service.cli.reference > docs/cli.md`; a test keeps it current.",
    ]
    for path, text in _helps(command, "crosstune", None):
        parts += [f"## `{path}`", f"```text\n{text.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _helps(command: Any, path: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=path.rsplit(" ", 1)[-1], parent=parent, terminal_width=WIDTH)
    yield path, command.get_help(context)
    for name in command.list_commands(context) if hasattr(command, "list_commands") else []:
        yield from _helps(command.get_command(context, name), f"{path} {name}", context)


if __name__ == "__main__":
    sys.stdout.write(reference())
