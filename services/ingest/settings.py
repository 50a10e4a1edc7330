"""What can be turned in ingest?"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import ClassVar

from pydantic import ByteSize, Field

from libs.common.settings import PORTS, CommonSettings, Seconds


class IngestSettings(CommonSettings):
    """Ingest's variables; those of `CommonSettings` hold as well."""

    opens_storage: ClassVar[bool] = True

    port: int = Field(default=PORTS["ingest"], ge=0, le=65535)

    upload_file_limit: ByteSize = Field(default=ByteSize(50 * 1024 * 1024), description="Size of one file")
    upload_skip_limit: ByteSize = Field(
        default=ByteSize(50 * 1024 * 1024),
        description="How much of files that are too large is read past before the whole request is refused",
    )
    upload_total_limit: ByteSize = Field(default=ByteSize(6_000_000_000), description="Size of one request")
    upload_count_limit: int = Field(default=500, ge=1, description="Files in one request")
    model_file_limit: ByteSize = Field(default=ByteSize(2_000_000_000), description="Size of one model file")
    model_count_limit: int = Field(default=4, ge=1, description="Model files in one request")
    upload_max_seconds: Seconds = Field(default=timedelta(hours=1), description="Length of one recording")
    upload_min_seconds: Seconds = Field(default=timedelta(seconds=0.3), description="Shorter recordings are refused")
    upload_idle: Seconds = Field(default=timedelta(minutes=2), description="An upload that stands still so long ends")
    metadata_limit: ByteSize = Field(default=ByteSize(16 * 1024 * 1024), description="Size of one metadata.csv")

    staging_ttl: Seconds = Field(
        default=timedelta(hours=24), description="After this time an upload that nobody claimed is removed"
    )
    sweep_every: Seconds = Field(default=timedelta(hours=1), description="How often old uploads are looked for")

    examiners: int = Field(
        default=os.cpu_count() or 1, ge=1, le=128, description="Recordings examined at the same time, each in a process"
    )
    examiner_memory: ByteSize = Field(
        default=ByteSize(2 * 1024**3), ge=64 * 1024**2, description="Memory that one examination may take"
    )
    examine_timeout: Seconds = Field(default=timedelta(minutes=5), description="Time that one examination may take")
    examiner_idle: Seconds = Field(default=timedelta(minutes=1), description="After this time idle processes end")

    validate_slots: int = Field(default=2, ge=1, le=16, description="Datasets validated at the same time")
    copy_retry: Seconds = Field(
        default=timedelta(seconds=15), description="Pause before the object store is tried again with a copy"
    )
