"""What can be turned in the preprocessor?"""

from __future__ import annotations

import os
from datetime import timedelta

from pydantic import Field

from libs.common.settings import PORTS, CommonSettings


class PreprocessorSettings(CommonSettings):
    """The preprocessor's variables; those of `CommonSettings` hold as well."""

    port: int = Field(default=PORTS["preprocessor"], ge=0, le=65535)
    preprocess_slots: int = Field(default=1, ge=1, le=16, description="Datasets prepared at the same time")
    preprocess_processes: int = Field(
        default=os.cpu_count() or 1, ge=1, le=128, description="Recordings of one dataset prepared at the same time"
    )
    step_timeout_preprocess: timedelta = Field(
        default=timedelta(hours=6), description="A step that takes longer is ended and tried again, as a failed attempt"
    )
