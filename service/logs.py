"""What a process says of its work: a line each on standard error, as text or JSON, with the ids of step and job."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from crosstune.service.settings import Settings

LOGGERS = ("crosstune", "dramatiq", "alembic")
TEXT = "%(asctime)s %(levelname)s %(message)s%(told)s"

_ids: ContextVar[dict[str, str] | None] = ContextVar("ids", default=None)


@contextmanager
def about(**ids: str | None) -> Iterator[None]:
    """Every line that this thread says in the block carries `ids`."""
    token = _ids.set({**(_ids.get() or {}), **{name: value for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _ids.reset(token)


def configure(settings: Settings) -> None:
    """Of crosstune's own loggers and the queue's; the web server has its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter(TEXT))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(settings.log_level.upper() if name == "crosstune" else logging.WARNING)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.told = "".join(f" {name}={value}" for name, value in (_ids.get() or {}).items())
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, ids, and the exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_ids.get() or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
