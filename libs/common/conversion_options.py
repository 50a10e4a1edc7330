"""What can be turned in a conversion? Said once, with ranges, for the public form and for what inference is asked."""

from __future__ import annotations

from pydantic import BaseModel, Field

from libs.common.pitch_requests import MethodName


class ConversionParameters(BaseModel):
    """How to convert; the defaults suit speech. Ranges and defaults are the engine's (libs/voice/conversion)."""

    pitch_shift: float = Field(default=0, ge=-24, le=24, description="Semitones", examples=[-12])
    index_rate: float = Field(
        default=0.5, ge=0, le=1, description="How much the voice's own sounds replace the source's", examples=[0.75]
    )
    protect: float = Field(default=0.33, ge=0, le=0.5, description="Protection of voiceless sounds; 0.5 is none")
    rms_mix_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Volume envelope: 0 the source's, 1 the voice's; if empty, 1 for lite voices and 0.25 for others",
    )
    f0_method: MethodName = Field(default="auto", examples=["auto", "rmvpe", "harvest"])
    filter_radius: int = Field(default=3, ge=0, le=7, description="From 3 on harvest's pitch gets a median")
    fill_unvoiced: bool = Field(default=False, description="Pitch is interpolated through unvoiced frames")
    f0_file: str = Field(
        default="", description="A pitch of one's own: lines of `seconds,Hz`", examples=["0.0,220\n0.5,247\n1.0,262"]
    )
    speaker_id: int = Field(default=0, ge=0, le=2333, description="Of a voice with several speakers")
    split_silence: bool = Field(default=False, description="Silence is left out and put back as gaps")
    autotune: bool = Field(default=False, description="Pitch is pulled to the nearest note; replaces the shift")
    autotune_strength: float = Field(default=1.0, ge=0, le=1, description="1 is on the note", examples=[0.6])
    autotune_unvoiced: bool = Field(default=False, description="Unvoiced frames are pulled too, as Applio does")
    proposed_pitch: bool = Field(default=False, description="Adds the semitones that bring the voice to a register")
    proposed_pitch_hz: float = Field(default=155, ge=50, le=1200, description="That register's median", examples=[255])
    formant_timbre: float = Field(
        default=1.0, ge=0.1, le=16, description="Stretches the source's formants; 1 is off", examples=[1.15]
    )
    formant_quefrency: float = Field(default=1.0, ge=0.1, le=16, description="Detail of the formants, in ms")
    output_rate: int | None = Field(
        default=None, ge=8000, le=192000, description="Hz; the voice's own if empty", examples=[44100]
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of all that is random in a conversion")
