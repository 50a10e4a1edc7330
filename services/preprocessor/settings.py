"""What can be turned in the preprocessor?"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Literal

from pydantic import Field

from libs.common.settings import PORTS, ScaledSettings


class PreprocessorSettings(ScaledSettings):
    """The preprocessor's variables; those of `CommonSettings` hold as well."""

    port: int = Field(default=PORTS["preprocessor"], ge=0, le=65535)
    preprocess_slots: int = Field(default=1, ge=1, le=16, description="Datasets prepared at the same time")
    preprocess_processes: int = Field(
        default=os.cpu_count() or 1,
        ge=1,
        le=128,
        description="Processes that prepare one dataset, each with one thread",
    )
    preprocess_precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="HuBERT and RMVPE in float32 (auto too) or bfloat16, which needs a processor that has it",
    )
    step_timeout_preprocess: timedelta = Field(
        default=timedelta(hours=6), description="A step that takes longer is ended and tried again, as a failed attempt"
    )
