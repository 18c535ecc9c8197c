"""Log lines carry what they are about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from crosstune.service import logs
from crosstune.service.settings import Settings


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).level) for name in logs.LOGGERS}
    yield
    for name, (handlers, level) in before.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).setLevel(level)


def said(settings: Settings) -> list[str]:
    logs.configure(settings)
    logger = logging.getLogger("crosstune.service.worker")
    stream = io.StringIO()
    logging.getLogger("crosstune").handlers[0].stream = stream  # type: ignore[attr-defined]
    with logs.about(step="stp_1", job=None):
        logger.info("begins")
        with logs.about(job="job_1"):
            try:
                raise ValueError("no")
            except ValueError:
                logger.exception("failed")
    logger.debug("not shown")
    logger.warning("idle")
    return stream.getvalue().splitlines()


def test_json_lines_carry_step_and_job_as_fields(tmp_path: Path) -> None:
    begins, failed, idle = map(json.loads, said(Settings(data_dir=tmp_path, log_format="json")))
    assert (begins["level"], begins["message"], begins["step"]) == ("info", "begins", "stp_1") and "job" not in begins
    assert (failed["job"], failed["step"]) == ("job_1", "stp_1") and "ValueError: no" in failed["exception"]
    assert "step" not in idle and idle["time"].endswith("+00:00")


def test_text_lines_end_with_what_they_are_about(tmp_path: Path) -> None:
    lines = said(Settings(data_dir=tmp_path))
    assert lines[0].endswith("INFO begins step=stp_1") and lines[-1].endswith("WARNING idle")
