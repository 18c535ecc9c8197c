"""What lives as long as the process: settings, database, artifact store, event hub, the caller's project."""

from __future__ import annotations

from functools import cached_property

from sqlalchemy import Engine

from crosstune.db.engine import create_engine, reading
from crosstune.db.repositories import projects
from crosstune.service.hub import Hub
from crosstune.service.machine import Hardware
from crosstune.service.predictor import Predictor
from crosstune.service.principal import Principal, Scope
from crosstune.service.settings import Settings
from crosstune.service.store import Store


class Services:
    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        self._owns_engine = engine is None
        self.engine = engine if engine is not None else create_engine(settings.database_url)
        self.hub = Hub(self.engine, settings.events_poll_s)

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.store_dir)

    @cached_property
    def hardware(self) -> Hardware:
        return Hardware(self.settings.data_dir / "children-api")

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.hardware.template)

    @cached_property
    def default_principal(self) -> Principal:
        """Whoever calls over loopback, while there are no keys: the project `default` with every scope."""
        with reading(self.engine) as connection:
            project = projects.get(connection)
        return Principal(project.id, project.key, project.name, frozenset(Scope))

    def open(self) -> None:
        """Get ready to serve; raises SchemaOutdated, whose text names the command that helps."""
        from crosstune.db import migrate  # Alembic is a third of the time that importing the application takes

        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        migrate.require_head(self.engine)
        self.store.forget_abandoned()
        _ = self.default_principal

    def close(self) -> None:
        self.predictor.close()
        self.hardware.close()
        if self._owns_engine:
            self.engine.dispose()
