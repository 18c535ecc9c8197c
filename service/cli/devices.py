"""`crosstune devices`, `device`, `workers`: what measures, and who drives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import JsonOption, LimitOption
from crosstune.service.cli.output import print_json, print_table, stdout_console

if TYPE_CHECKING:
    from crosstune.service.schemas.devices import DeviceOut, WorkerOut

device_group = typer.Typer(no_args_is_help=True, help="A device: measure on it or not.")
worker_group = typer.Typer(no_args_is_help=True, help="Workers: who is there, and who takes no more work.")


def devices(context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the devices that measure."""
    client = connect(context)
    found = client.collect(client.list_devices, limit)
    if as_json:
        print_json(found)
        return
    rows = [(it.name, it.id, it.kind, it.state.value, _yes(it.live), _yes(it.measuring), it.targets) for it in found]
    columns = ("name", "id", "kind", "state", "live", "measuring", "targets")
    print_table(None, columns, rows, empty="no devices; `crosstune target detect` registers this machine")


@device_group.command()
def pause(context: typer.Context, device: str, as_json: JsonOption = False) -> None:
    """Measure nothing new on a device until it is resumed."""
    _print_device(connect(context).pause_device(device), as_json)


@device_group.command()
def resume(context: typer.Context, device: str, as_json: JsonOption = False) -> None:
    """Measure on a device again."""
    _print_device(connect(context).resume_device(device), as_json)


@device_group.command("drain")
def drain_device(context: typer.Context, device: str, as_json: JsonOption = False) -> None:
    """Take a device out of service."""
    _print_device(connect(context).drain_device(device), as_json)


@worker_group.command("list")
def list_workers(context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the workers, the newest first; those that are gone too."""
    client = connect(context)
    found = client.collect(client.list_workers, limit)
    if as_json:
        print_json(found)
        return
    rows = [(it.id, it.host, it.process, it.version, _yes(it.live), _yes(it.draining)) for it in found]
    print_table(None, ("id", "host", "process", "version", "live", "draining"), rows, empty="no workers")


@worker_group.command("drain")
def drain_worker(context: typer.Context, worker: str, as_json: JsonOption = False) -> None:
    """Let a worker take nothing new; `crosstune worker` ends when it is done with what it has."""
    _print_worker(connect(context).drain_worker(worker), as_json)


@worker_group.command("resume")
def resume_worker(context: typer.Context, worker: str, as_json: JsonOption = False) -> None:
    """Let a worker that was drained take work again."""
    _print_worker(connect(context).resume_worker(worker), as_json)


def _print_device(device: DeviceOut, as_json: bool) -> None:
    if as_json:
        print_json(device)
        return
    stdout_console().print(f"{device.name} is {device.state.value}", markup=False)


def _print_worker(worker: WorkerOut, as_json: bool) -> None:
    if as_json:
        print_json(worker)
        return
    stdout_console().print(f"{worker.id} {'takes nothing new' if worker.draining else 'takes work'}", markup=False)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def register(application: typer.Typer) -> None:
    application.command()(devices)
    application.add_typer(device_group, name="device")
    application.add_typer(worker_group, name="workers")
