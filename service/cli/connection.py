"""How a command finds the service: --url, else the service announced in the data folder, else the usual address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from crosstune.service.client import Client
    from crosstune.service.settings import Settings


@dataclass(frozen=True, slots=True)
class Connection:
    """The options before the command's name."""

    url: str | None
    api_key: str | None
    data_dir: Path | None

    @classmethod
    def of(cls, context: typer.Context) -> Connection:
        found = context.find_object(cls)
        return found if found is not None else cls(None, None, None)

    def settings(self, **overrides: Any) -> Settings:
        """The settings, with this command line's options on top; raises SettingsRefused."""
        from crosstune.service.settings import read_settings

        given = {name: value for name, value in overrides.items() if value is not None}
        if self.data_dir is not None:
            given.setdefault("data_dir", self.data_dir)
        return read_settings(**given)

    def client(self) -> Client:
        """A client of the service; nothing is asked before its first call."""
        from crosstune.service.client import Client

        return Client(self.address(), api_key=self.api_key)

    def address(self) -> str:
        if self.url is not None:
            return self.url
        from crosstune.service import running

        settings: Settings = self.settings()
        found = running.find(settings.data_dir)
        return found.url if found is not None else f"http://127.0.0.1:{settings.port}"


def connect(context: typer.Context) -> Client:
    """A client for this command, closed when the command ends."""
    client = Connection.of(context).client()
    context.call_on_close(client.close)
    return client
