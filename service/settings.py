"""Settings: typed, read once at the start from CROSSTUNE_* variables or a TOML file, and passed in from there.

Order of precedence: arguments, environment, the file that CROSSTUNE_CONFIG names, defaults. `docs/settings.md` lists
all of them.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crosstune.tuner.contracts import CrosstuneError

CONFIG_VARIABLE = "CROSSTUNE_CONFIG"
PREFIX = "CROSSTUNE_"
WORKER_LIVE_LEASES = 2.0
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class SettingsRefused(CrosstuneError):
    """A setting that cannot be used; the text names it and says what would be right."""


def default_data_dir() -> Path:
    """The platform's usual folder for a user's application data."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "crosstune"
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "share") / "crosstune"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder of the SQLite database and the artifacts."
    )
    database_url: str = Field(
        "", description="SQLAlchemy URL; empty: SQLite in the data folder. PostgreSQL: postgresql+psycopg://..."
    )
    redis_url: str | None = Field(
        None, description="Redis that carries wake-ups between workers, redis://...; empty: each looks for itself."
    )
    store_dir: Path = Field(
        Path(), description="Folder of the artifacts, which all processes of a service share; the data folder if empty."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Only loopback is accepted while there are no keys."
    )
    port: int = Field(8642, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    share_port: bool = Field(False, description="Other processes of the same service listen on the port as well.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host headers that are answered, without port, separated by commas.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Web origins besides the service's own that may call it, separated by commas."
    )
    recheck_days: float | None = Field(
        None, gt=0, description="Days after which best records are measured again, while no job waits; empty: never."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Key that signs what webhooks get; empty: nothing is signed."
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Public hosts that webhooks may call, separated by commas."
    )
    keep_events_days: float = Field(30.0, gt=0, description="Days after which the events of jobs are forgotten.")
    keep_builds_days: float | None = Field(
        None,
        gt=0,
        description="Days after which builds lose their artifacts, but for the newest of each network and target.",
    )
    keep_failed_days: float | None = Field(
        None, gt=0, description="Days after which failed attempts to measure are forgotten; their verdicts stay."
    )
    max_upload_bytes: int = Field(512 * 2**20, ge=1024, description="Largest network upload, in bytes.")
    max_writes: int = Field(
        64, ge=1, description="Requests that change something, answered at once; more are refused with 429."
    )
    max_json_bytes: int = Field(2**20, ge=1024, description="Largest JSON body, in bytes.")
    embedded_worker: bool = Field(True, description="Run a worker for this machine inside the service process.")
    round_trials: int = Field(32, ge=1, le=1024, description="Candidates measured per round of one task.")
    ranker: Literal["attention", "xgboost", "random"] = Field(
        "attention",
        description="What puts candidates in order: the trained cost model, trees over the target's own records, "
        "or nothing.",
    )
    auto_promote: bool = Field(
        False, description="Use a retrained cost model as soon as it passes its gates; else somebody promotes it."
    )
    drift_threshold: float = Field(
        0.55, ge=0, le=1, description="Pairwise accuracy of measured batches below which the cost model has drifted."
    )
    retrain_on_drift: bool = Field(
        False, description="Begin a retraining when the cost model has drifted on a target, once a day at most."
    )
    lease_s: float = Field(
        15.0, gt=0, description="Seconds after which the work of a silent worker is taken over; renewed at a third."
    )
    sweep_s: float = Field(2.0, gt=0, description="Seconds between looks for work that waits.")
    build_timeout_s: float = Field(10.0, gt=0, description="Seconds after which compiling one candidate is given up.")
    run_timeout_s: float = Field(10.0, gt=0, description="Seconds after which measuring one candidate is given up.")
    import_timeout_s: float = Field(300.0, gt=0, description="Seconds after which importing a network is given up.")
    deploy_timeout_s: float = Field(900.0, gt=0, description="Seconds after which building a network is given up.")
    builders: int = Field(
        default_factory=lambda: min(len(os.sched_getaffinity(0)), 16),
        ge=1,
        le=256,
        description="Candidates compiled at the same time; the CPUs it may use (at most 16) unless told.",
    )
    events_poll_s: float = Field(0.25, gt=0, description="Seconds between looks for new events to stream.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line shown.")
    otlp_endpoint: str | None = Field(
        None, pattern=r"^https?://", description="Collector of OpenTelemetry traces, such as http://127.0.0.1:4318."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or one JSON object each.")

    @field_validator("allowed_hosts", "allowed_origins", "webhook_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip().lower() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("host")
    @classmethod
    def _loopback_only(cls, host: str) -> str:
        if not is_loopback(host):
            raise ValueError(
                f"{host!r} is reachable from other machines, and there are no API keys yet to protect it; "
                "use 127.0.0.1, ::1 or localhost, and an SSH tunnel from elsewhere"
            )
        return host

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url and not url.startswith(REDIS_SCHEMES):
            raise ValueError(f"{url.partition(':')[0]!r} is no address of Redis; use {', '.join(REDIS_SCHEMES)}...")
        return url or None

    @model_validator(mode="before")
    @classmethod
    def _in_data_dir(cls, values: dict[str, Any]) -> dict[str, Any]:
        folder = Path(values.get("data_dir") or default_data_dir()).expanduser().absolute()
        url = values.get("database_url") or f"sqlite:///{folder / 'crosstune.db'}"
        store = Path(values.get("store_dir") or folder).expanduser().absolute()
        return {**values, "data_dir": folder, "database_url": url, "store_dir": store}

    @property
    def worker_live_s(self) -> float:
        """Seconds after its last heartbeat for which a worker counts as live."""
        return WORKER_LIVE_LEASES * self.lease_s

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(CONFIG_VARIABLE)
        if not path:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host` (a name other than localhost is never trusted)."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def read_settings(**overrides: Any) -> Settings:
    """Read the settings once; raises SettingsRefused, whose text names the setting and what would be right."""
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise SettingsRefused(f"{CONFIG_VARIABLE} names {path!r}, which is not a file")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_explained(item) for item in error.errors(include_url=False)]
        raise SettingsRefused("; ".join(lines)) from error
    except ValueError as error:
        raise SettingsRefused(f"the settings cannot be read: {error}") from error


def _explained(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    return f"{name} ({PREFIX}{name.upper()}): {item['msg'].removeprefix('Value error, ')}"
