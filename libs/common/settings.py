"""What can be turned in every service? Only this file and each service's `settings.py` read the environment."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from libs.common.invalid import field_of, message_of


class Environment(StrEnum):
    """Where the service runs; it decides the defaults of paths and addresses."""

    development = "development"
    container = "container"
    production = "production"


def _comma_separated(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


CommaSeparated = BeforeValidator(_comma_separated)


def _seconds(value: Any) -> Any:
    try:
        return timedelta(seconds=float(value)) if isinstance(value, str) else value
    except ValueError:
        return value


# The environment gives text: a bare number in it means seconds, and ISO 8601 (`PT2M`) works as well.
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]

PORTS = {"gateway": 8000, "ingest": 8001, "trainer": 8002, "preprocessor": 8003, "inference": 8004}

CANNOT_BE_CONFIGURED = 78


def _faults(settings: type[BaseSettings], error: ValidationError) -> str:
    said = []
    for fault in error.errors(include_url=False, include_input=False):
        name, what = field_of(fault), message_of(fault)
        if fault["type"] == "missing":
            meaning = settings.model_fields[name].description if name in settings.model_fields else None
            what = f"is not set ({meaning})" if meaning else "is not set"
        said.append(f"{name.upper()} {what}" if fault["type"] == "missing" else f"{name.upper()}: {what}".lstrip(": "))
    return "; ".join(said)


class CommonSettings(BaseSettings):
    """Variables that all services share, named as in `docs/settings.md`. Durations are in seconds."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", populate_by_name=True)

    opens_storage: ClassVar[bool] = False  # whether the service puts things into the object store

    environment: Environment = Environment.development
    service_token: SecretStr = Field(
        min_length=16, description="Shared secret of the inner services; made by scripts/secrets"
    )
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)

    # None means: the default of the environment, filled in below.
    data_root: Path = Path("var/data")
    uploads_dir: Path | None = None
    models_root: Path = Path("var/models")
    assets_root: Path = Path("var/assets")
    hubert_path: Path | None = None
    rmvpe_path: Path | None = None
    pretrained_root: Path | None = None
    xtts_path: Path | None = None

    nats_url: str = "nats://127.0.0.1:4222"
    nats_credentials: Path | None = None
    nats_user: str = Field(default="", description="Name of this service at the broker, where that asks for one")
    nats_password: SecretStr | None = None
    nats_ca: Path | None = Field(
        default=None, description="Authority that signed the broker's certificate; for `tls://` in NATS_URL"
    )
    nats_replicas: int = Field(default=1, ge=1, le=5)
    commands_max_bytes: ByteSize = ByteSize(256 * 1024 * 1024)
    events_max_bytes: ByteSize = ByteSize(1024 * 1024 * 1024)
    progress_max_per_job: int = Field(default=20_000, ge=100)

    gateway_url: str = "http://127.0.0.1:8000"
    ingest_url: str = "http://127.0.0.1:8001"
    inference_url: str = "http://127.0.0.1:8004"

    storage_url: str = Field(default="", description="`file:///folder` or `s3+http(s)://host:port`; empty: var/objects")
    storage_access_key: SecretStr | None = None
    storage_secret_key: SecretStr | None = None
    storage_region: str = "us-east-1"
    voice_models_bucket: str = "voice-models"
    voice_samples_bucket: str = "voice-samples"

    ack_wait: timedelta = Field(default=timedelta(seconds=60), description="After this silence a worker counts as lost")
    heartbeat: timedelta = Field(default=timedelta(seconds=15), description="How often work in hand is kept alive")
    lease_ttl: timedelta = Field(default=timedelta(seconds=45), description="After this silence a lease may be taken")
    cancel_poll: timedelta = Field(
        default=timedelta(seconds=1), description="How often running work looks for a cancel"
    )
    worker_ttl: timedelta = Field(default=timedelta(seconds=30), description="How long a silent worker stays listed")
    retry_delays: Annotated[tuple[Seconds, ...], NoDecode, CommaSeparated] = Field(
        default=(timedelta(seconds=5), timedelta(seconds=25), timedelta(seconds=125)),
        description="Pauses before each retry of failed work; their number is the number of retries",
    )
    poll_interval: timedelta = Field(default=timedelta(seconds=0.2), description="How long one lane is asked for work")
    drain_timeout: timedelta = Field(default=timedelta(seconds=25), description="Time to save work after SIGTERM")

    log_format: str = Field(default="", pattern="^(|json|console)$")
    log_level: str = "INFO"
    otel_exporter_otlp_endpoint: str = Field(
        default="", description="Where OpenTelemetry's traces go, e.g. `http://collector:4318`; needs the extra `otel`"
    )
    log_files: bool = Field(default=True, description="Also write rotated JSON logs under DATA_ROOT/.logs/<service>")

    @classmethod
    def from_environment(cls) -> Self:
        """The settings as the environment has them.

        Ends the process with code 78 (`EX_CONFIG` of sysexits.h) and one line on stderr when a variable is missing or
        cannot be; the line names all of them, and no value, which may be a secret.
        """
        try:
            return cls()
        except ValidationError as error:
            print(f"cannot start: {_faults(cls, error)}", file=sys.stderr)
            sys.exit(CANNOT_BE_CONFIGURED)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_environment(cls, values: dict[str, Any]) -> dict[str, Any]:
        """In containers the volumes have fixed places and the services are found by name."""
        given = dict(values)
        if str(given.get("environment", "development")) in ("container", "production"):
            inside = {
                "data_root": "/data",
                "models_root": "/models",
                "assets_root": "/assets",
                "nats_url": "nats://nats:4222",
                "host": "0.0.0.0",  # noqa: S104  # a container is reached from outside itself
                "log_format": "json",
                **{f"{name}_url": f"http://{name}:{PORTS[name]}" for name in ("gateway", "ingest", "inference")},
            }
            given = {k: v for k, v in inside.items() if k not in given} | given
        durations = {name for name, field in cls.model_fields.items() if field.annotation is timedelta}
        return {k: _seconds(v) if k in durations else v for k, v in given.items()}

    @model_validator(mode="after")
    def _derived_paths(self) -> CommonSettings:
        self.data_root = self.data_root.absolute()
        self.models_root = self.models_root.absolute()
        self.assets_root = self.assets_root.absolute()
        self.uploads_dir = (self.uploads_dir or self.data_root / "uploads").absolute()
        self.hubert_path = self.hubert_path or self.assets_root / "hubert" / "hubert_base.pt"
        self.rmvpe_path = self.rmvpe_path or self.assets_root / "rmvpe" / "rmvpe.pt"
        self.pretrained_root = self.pretrained_root or self.assets_root / "pretrained_v2"
        self.xtts_path = self.xtts_path or self.assets_root / "xtts_v2"
        if not self.storage_url:
            self.storage_url = (self.data_root.parent / "objects").as_uri()
        if self.opens_storage and (fault := self.storage_fault()):
            raise ValueError(fault)
        if not self.log_format:
            self.log_format = "console"
        if self.heartbeat * 2 > self.lease_ttl or self.heartbeat * 2 > self.ack_wait:
            raise ValueError("heartbeat must be at most half of lease_ttl and of ack_wait")
        return self

    def storage_fault(self) -> str | None:
        """Why the object store cannot be opened with these settings; None when it can."""
        if not self.storage_url.startswith(("file://", "s3+http://", "s3+https://")):
            return f"STORAGE_URL {self.storage_url!r} must begin with file://, s3+http:// or s3+https://"
        if self.storage_url.startswith("s3+") and not (self.storage_access_key and self.storage_secret_key):
            return "STORAGE_URL names an S3 store: set STORAGE_ACCESS_KEY and STORAGE_SECRET_KEY"
        return None


class ScaledSettings(CommonSettings):
    """What services have besides whose processes are started by the length of their queue, each for some commands."""

    worker_commands: int = Field(
        default=0, ge=0, description="Commands that this process takes before it ends itself; 0: it goes on"
    )
    worker_idle: timedelta = Field(
        default=timedelta(minutes=2), description="With WORKER_COMMANDS, it also ends when no command comes so long"
    )
