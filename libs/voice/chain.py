"""How does a recording become the same speech in another voice? The names that services use; see libs/voice/conversion.

`Converter` converts what fits into memory, `convert_file` files of any length, `convert_together`
those of several callers at once.
"""

from __future__ import annotations

from libs.audio.resample import resample
from libs.common.pitch_requests import read_f0_points
from libs.voice.conversion.contour import autotune, change_contour, register_offset
from libs.voice.conversion.converter import Converter, protect_unvoiced
from libs.voice.conversion.cutting import cut_points, voiced_stretches
from libs.voice.conversion.files import ConvertedFile, convert_file, sweep_leftovers
from libs.voice.conversion.formant import shift_formants
from libs.voice.conversion.loudness import below_full_scale, frame_loudness, mix_loudness
from libs.voice.conversion.settings import HOP, SAMPLE_RATE, Conversion, Joining, Windows
from libs.voice.conversion.source import prepare_source
from libs.voice.conversion.together import Order, Outcome, convert_together
from libs.voice.slicing import frame_rms

__all__ = [
    "HOP",
    "SAMPLE_RATE",
    "Conversion",
    "ConvertedFile",
    "Converter",
    "Joining",
    "Order",
    "Outcome",
    "Windows",
    "autotune",
    "below_full_scale",
    "change_contour",
    "convert_file",
    "convert_together",
    "cut_points",
    "frame_loudness",
    "frame_rms",
    "mix_loudness",
    "prepare_source",
    "protect_unvoiced",
    "read_f0_points",
    "register_offset",
    "resample",
    "shift_formants",
    "sweep_leftovers",
    "voiced_stretches",
]
