"""A service of one's own for as long as a `with` block lasts: `crosstune serve` as a child process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING

from crosstune.service import running
from crosstune.service.settings import read_settings
from crosstune.tuner.contracts import CrosstuneError

if TYPE_CHECKING:
    from crosstune.service.schemas.jobs import JobEvent

DEFAULT_SECONDS = 300.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class TuningFailed(CrosstuneError):
    """The job did not end with a usable network; the text says why and names the job."""


class EmbeddedServiceFailed(CrosstuneError):
    """The service did not start; the text holds the end of what it said."""


@contextmanager
def embedded_service(data_dir: Path | None = None) -> Iterator[str]:
    """The URL of a service on `data_dir`: the one that runs there already, else a new one on a free port.

    Only a service started here is stopped at the end. What it learnt stays in `data_dir` (CROSSTUNE_DATA_DIR or the
    usual folder unless given).
    """
    folder = read_settings(**({} if data_dir is None else {"data_dir": data_dir})).data_dir
    found = running.find(folder)
    if found is not None:
        yield found.url
        return
    command = [sys.executable, "-m", "crosstune.service.cli", "serve", "--port", "0", "--json"]
    command += ["--parent", str(os.getpid())]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder)], stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        try:
            yield _announced_url(process, log)
        finally:
            _stop(process)


def tune_embedded(
    onnx_path: str | PathLike[str],
    target: str,
    *,
    trials: int | None,
    seconds: float | None,
    shapes: Mapping[str, Sequence[int]] | None,
    data_dir: str | PathLike[str] | None,
    output: str | PathLike[str] | None,
    on_event: Callable[[JobEvent], None] | None,
) -> Path:
    """Submit, wait and download: the folder of the finished artifact (`crosstune.tune` has the parameters)."""
    from crosstune.service.client import Client
    from crosstune.service.schemas.jobs import JobState

    folder = read_settings(**({} if data_dir is None else {"data_dir": Path(data_dir)})).data_dir
    if trials is None and seconds is None:
        seconds = DEFAULT_SECONDS
    with embedded_service(folder) as url, Client(url) as client:
        job = client.submit(Path(onnx_path), target, trials=trials, seconds=seconds, shapes=shapes)
        job = client.wait(job.id, on_event)
        if job.state is not JobState.SUCCEEDED or job.build is None:
            reason = job.failure.detail if job.failure is not None else "no reason was given"
            raise TuningFailed(f"{job.id} {job.state.value}: {reason}")
        final = Path(output) if output is not None else folder / "tuned" / job.build
        return client.download_artifact(job.build, final)


def _announced_url(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """The URL on the first line that the service prints."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + START_TIMEOUT_S
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
        chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not chunk:
            log.seek(0)
            said = log.read()[-2000:].decode(errors="replace").strip()
            raise EmbeddedServiceFailed(f"the embedded service did not start: {said or 'it said nothing'}")
        line += chunk
    return str(json.loads(line)["url"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
