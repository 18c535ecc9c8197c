"""crosstune makes neural networks run faster on given hardware and remembers what it learnt.

`tune` returns a tuned network from an ONNX file, `load` opens one that was tuned before, `Client` speaks to a service.
Everything is imported on first use: importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from crosstune.service.client import Client
    from crosstune.service.schemas.jobs import JobEvent
    from crosstune.tuner.artifact import TunedNetwork

    __version__: str

__all__ = ["Client", "__version__", "load", "tune"]


def load(path: str | PathLike[str]) -> TunedNetwork:
    """Open a tuned network: a folder that `tune`, `crosstune build` or `Client.download_artifact` wrote."""
    from crosstune.tuner.artifact import load as load_artifact

    return load_artifact(path)


def tune(
    onnx_path: str | PathLike[str],
    target: str = "host",
    *,
    trials: int | None = None,
    seconds: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data_dir: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
    on_event: Callable[[JobEvent], None] | None = None,
) -> TunedNetwork:
    """Tune an ONNX network and return it compiled and verified.

    Uses the service that runs on `data_dir`, or starts one for as long as this takes; what it measures stays there, so
    that a second call is faster.

    :param target: `host` for this machine, or the name of a registered target.
    :param trials: at most so many candidates are measured.
    :param seconds: at most so long; with neither, five minutes.
    :param shapes: sizes of inputs with open dimensions, by input name.
    :param output: folder for the artifact; one in `data_dir` unless given.
    :param on_event: called with each event of the job.
    :raises crosstune.tuner.contracts.CrosstuneError: the network was refused or the job failed; the text says why.
    """
    from crosstune.service.embedded import tune_embedded

    folder = tune_embedded(
        onnx_path,
        target,
        trials=trials,
        seconds=seconds,
        shapes=shapes,
        data_dir=data_dir,
        output=output,
        on_event=on_event,
    )
    return load(folder)


def __getattr__(name: str) -> Any:
    if name == "Client":
        from crosstune.service.client import Client

        return Client
    if name == "__version__":
        from importlib.metadata import version

        return version("crosstune")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
