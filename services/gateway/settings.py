"""What can be turned in the gateway?"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ByteSize, Field, SecretStr, model_validator
from pydantic_settings import NoDecode
from sqlalchemy.engine import make_url

from libs.common.settings import PORTS, CommaSeparated, CommonSettings, Environment, Seconds


class GatewaySettings(CommonSettings):
    """The gateway's variables; those of `CommonSettings` hold as well."""

    opens_storage: ClassVar[bool] = True

    port: int = Field(default=PORTS["gateway"], ge=0, le=65535)

    database_url: str = Field(
        default="sqlite+aiosqlite:///var/gateway.db",
        description="`sqlite+aiosqlite:///file` on a local disk, or `postgresql+asyncpg://user:password@host/name`",
    )
    database_pool: int = Field(default=10, ge=1, le=200, description="Connections kept open to the database")
    database_wait: Seconds = Field(default=timedelta(seconds=15), description="How long a write waits for its turn")

    jwt_secret: SecretStr = Field(
        default=SecretStr(""), description="Signs access tokens; at least 32 characters; required outside development"
    )
    access_token_lifetime: Seconds = timedelta(minutes=30)
    refresh_token_lifetime: Seconds = timedelta(days=30)
    admin_email: str = Field(default="admin@localhost.localdomain", description="The first administrator")
    admin_password: SecretStr | None = Field(
        default=None, description="Their password; made at first start and printed once when it is absent"
    )
    access_keys_per_user: int = Field(default=50, ge=0, le=1000, description="Keys for programs of one account")
    password_min_length: int = Field(default=10, ge=8, le=128)
    login_attempts: int = Field(default=8, ge=1, description="Failed logins of one account before it has to wait")
    login_window: Seconds = Field(default=timedelta(minutes=5), description="How long failed logins count")

    upload_limit: ByteSize = Field(default=ByteSize(6_000_000_000), description="Size of one upload request")
    model_limit: ByteSize = Field(default=ByteSize(4_000_000_000), description="Size of one request with model files")
    convert_limit: ByteSize = Field(default=ByteSize(60_000_000), description="Size of one conversion request")
    json_limit: ByteSize = Field(default=ByteSize(1_048_576), description="Size of every other request body")
    page_size: int = Field(default=50, ge=1, le=200)
    idempotency_lifetime: Seconds = Field(default=timedelta(hours=24), description="How long answers are kept")
    idempotency_lock: Seconds = Field(
        default=timedelta(minutes=5), description="After this time a request that never ended may be repeated"
    )

    inner_timeout: Seconds = Field(default=timedelta(seconds=30), description="For short calls to inner services")
    upload_timeout: Seconds = Field(default=timedelta(minutes=30), description="For a whole upload to be examined")
    upload_idle: Seconds = Field(default=timedelta(minutes=1), description="An upload that stands still ends")
    convert_timeout: Seconds = Field(default=timedelta(minutes=10), description="For one conversion")
    synthesis_timeout: Seconds = Field(
        default=timedelta(minutes=30), description="For one text, or, streamed, for one sentence of it"
    )
    conversion_files: int = Field(default=500, ge=1, le=500, description="Recordings in one conversion job")
    conversion_results_lifetime: Seconds = Field(
        default=timedelta(days=7), description="How long the sounds of a conversion or speech job are kept"
    )
    speech_job_texts: int = Field(default=500, ge=1, le=5000, description="Texts in one speech job")
    speech_job_text_limit: int = Field(
        default=20_000, ge=1, le=100_000, description="Characters of one text of a speech job"
    )
    speech_job_characters: int = Field(
        default=200_000, ge=1, le=800_000, description="Characters of all texts of a speech job"
    )
    live_sessions_per_user: int = Field(default=2, ge=0, le=100, description="Live conversions of one account")
    live_ticket_lifetime: Seconds = Field(default=timedelta(seconds=30), description="For a browser's WebSocket")
    live_handshake: Seconds = Field(default=timedelta(seconds=10), description="Time for a session's first message")
    staged_lifetime: Seconds = Field(
        default=timedelta(minutes=10), description="After this time a half-received recording is swept or claimed again"
    )
    leftovers_lifetime: Seconds = Field(
        default=timedelta(days=7),
        description="How long a job's failed attempts, and what the broker keeps of it, stay after its end",
    )
    sweep_every: Seconds = Field(default=timedelta(minutes=5), description="How often left-overs are looked for")

    heartbeat_comment: Seconds = Field(default=timedelta(seconds=15), description="A comment on silent live feeds")
    outbox_poll: Seconds = Field(default=timedelta(seconds=1), description="How often unsent commands are tried")
    queue_ahead: int = Field(
        default=4,
        ge=0,
        le=10_000,
        description="Preparations and trainings of one lane that wait at the broker for a worker; the others wait in "
        "the database, and whoever has fewest in hand is next. 0 sends all at once, first come, first served",
    )
    outbox_claim: Seconds = Field(
        default=timedelta(seconds=10), description="After this time a lost gateway's messages are sent by another"
    )
    broker_look: Seconds = Field(
        default=timedelta(seconds=2), description="How often the gateway looks whether the broker has lost its store"
    )
    progress_write: Seconds = Field(default=timedelta(seconds=5), description="How often progress reaches a job's row")
    gpu_hour_price: float = Field(default=2.5, ge=0, description="For estimated costs, per hour of training")
    max_training_cost: float = Field(
        default=100.0, ge=0, description="A training that is estimated at more is refused (F-117)"
    )
    daily_training_budget: float = Field(
        default=1000.0, ge=0, description="The same for all trainings within 24 hours, with those that run"
    )

    cors_origins: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=(), description="Origins of browsers that may call the API; none by default"
    )

    @model_validator(mode="before")
    @classmethod
    def _database_of_the_environment(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = dict(values)
        if str(given.get("environment", "development")) in ("container", "production"):
            given.setdefault("database_url", "sqlite+aiosqlite:////var/lib/voicewright/gateway.db")
        return given

    @model_validator(mode="after")
    def _secrets_and_places(self) -> GatewaySettings:
        """No secret has a default where others can reach it, and the database is not where workers write."""
        if not self.jwt_secret.get_secret_value():
            if self.environment is not Environment.development:
                raise ValueError("JWT_SECRET is required: at least 32 random characters (scripts/secrets makes them)")
            # On a developer's machine: its own secret, without another variable to set, and stable over restarts.
            key = self.service_token.get_secret_value().encode()
            self.jwt_secret = SecretStr(hmac.new(key, b"voicewright access tokens", hashlib.sha256).hexdigest())
        if len(self.jwt_secret.get_secret_value()) < 32:
            raise ValueError("JWT_SECRET is too short: use at least 32 random characters")
        file = self.sqlite_file
        if file is not None and file.is_relative_to(self.data_root):
            raise ValueError(
                f"DATABASE_URL lies under DATA_ROOT ({file}): put it on a local disk of the gateway's own, "
                "workers write to DATA_ROOT and it may be a network volume"
            )
        return self

    @property
    def sqlite_file(self) -> Path | None:
        """The database's file, or None for a server or a database in memory."""
        url = make_url(self.database_url)
        if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
            return None
        return Path(url.database).absolute()
