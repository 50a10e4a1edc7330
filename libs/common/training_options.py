"""What may be asked of a training run? The settings of the request and of the command alike, with ranges and meanings.

What holds on one side only (which presets there are, how long a person may ask for) is said where it holds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, Field

from libs.common.pitch_requests import MethodName


class Range(NamedTuple):
    """The least and the most that a number may be."""

    least: float
    most: float


# The same for a request, a command and the engine (libs/voice/training_config.py).
EPOCHS = Range(1, 1000)
BATCH_SIZE = Range(1, 64)
ACCUMULATION = Range(1, 64)
LEARNING_RATE = Range(1e-7, 0.1)
WEIGHT_DECAY = Range(0.0, 1.0)
VALIDATION_SPLIT = Range(0.0, 0.5)
DROPOUT = Range(0.0, 0.9)
EMA_DECAY = Range(0.0, 0.99999)
ADVERSARIAL_STEPS = Range(0, 100_000)


class TrainingSettings(BaseModel):
    """What may be asked of a training run; what is None or left out is the preset's own value."""

    epochs: int | None = Field(
        default=None, ge=EPOCHS.least, le=EPOCHS.most, description="Passes over the whole dataset"
    )
    batch_size: int | None = Field(
        default=None, ge=BATCH_SIZE.least, le=BATCH_SIZE.most, description="Segments that are learnt from at once"
    )
    learning_rate: float | None = Field(
        default=None, ge=LEARNING_RATE.least, le=LEARNING_RATE.most, description="At the start", examples=[1e-4]
    )
    validation_split: float | None = Field(
        default=None,
        ge=VALIDATION_SPLIT.least,
        le=VALIDATION_SPLIT.most,
        description="Share of the clips that is held out to measure by",
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, le=1000, description="Epochs without progress after which training stops"
    )
    total_steps: int | None = Field(default=None, ge=1, le=1_000_000, description="Comes before train_seconds")
    train_seconds: float | None = Field(default=None, gt=0, description="Train for about this long, schedule included")
    max_training_seconds: float = Field(
        default=7200.0, gt=0, description="A run that takes longer is ended; see best_on_timeout"
    )
    seed: int = Field(default=1234, ge=0, le=2**31 - 1, description="Of all that is random in the run")
    f0_method: MethodName = "auto"
    accumulation: int = Field(
        default=1,
        ge=ACCUMULATION.least,
        le=ACCUMULATION.most,
        description="Batches that make one step together",
        examples=[4],
    )
    optimizer: Literal["adamw", "adam", "radam"] = "adamw"
    weight_decay: float | None = Field(
        default=None,
        ge=WEIGHT_DECAY.least,
        le=WEIGHT_DECAY.most,
        description="Regularisation strength; decoupled in adamw, L2 in the others",
    )
    loss_function: Literal["l1", "l2", "huber"] = Field(
        default="l1", description="How differences of spectra are measured; l1 is RVC's"
    )
    dropout: float = Field(
        default=0.0,
        ge=DROPOUT.least,
        le=DROPOUT.most,
        description="Share that is left out at random",
        examples=[0.1],
    )
    augmentation: bool = Field(default=False, description="Vary content and polarity of what is learnt from")
    ema_decay: float | None = Field(
        default=None,
        ge=EMA_DECAY.least,
        le=EMA_DECAY.most,
        description="Publish the mean of the last weights; 0 is off, as it is for RVC's presets unless asked for",
        examples=[0.999],
    )
    adversarial_steps: int = Field(
        default=0,
        ge=ADVERSARIAL_STEPS.least,
        le=ADVERSARIAL_STEPS.most,
        description="Of lite: how many of the last steps are made against judges that tell real from made; 0 is off",
        examples=[400],
    )
    f0: bool = Field(default=True, description="False: an RVC voice without pitch")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Of the arithmetic; auto is bf16 where the GPU has it"
    )
    pretrained: str = Field(
        default="auto",
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="auto: bases for the preset where there are some (lite has its own); none; or a folder of bases",
    )
    best_on_timeout: bool = Field(
        default=False, description="When the time is over, publish the best so far instead of failing"
    )
    index_mode: Literal["rvc", "fast"] = Field(
        default="rvc", description="rvc: the index as RVC builds it; fast: every frame kept, search measured"
    )
    language: str | None = Field(
        default=None,
        max_length=12,
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
        description="Of the clips, for a voice that speaks text",
        examples=["en"],
    )
    transcribe: bool = Field(
        default=False,
        description="Recordings without a transcript get one by machine; the voice's card says so",
    )
    consent_recording: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Id of the recording of the dataset in which its speaker reads the provider's consent statement",
    )
