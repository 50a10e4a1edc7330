"""What can a user turn in a conversion, and how are long recordings cut?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from libs.common.errors import InvalidInput
from libs.common.pitch_requests import check_points
from libs.voice.pitch import SEMITONE_LIMIT
from libs.voice.synthesizer import Synthesizer, loudness_mix

SAMPLE_RATE = 16000
HOP = 160
"""Samples of one frame (10 ms) at 16 kHz."""

OUTPUT_RATES = (8000, 192000)
Joining = Literal["reference", "smooth"]
"""How chunks are joined. `reference`: end to end as RVC does, which loses up to 20 ms per chunk. `smooth`: phases
aligned and cross-faded, and the result lasts as long as its source."""


@dataclass(frozen=True)
class Windows:
    """How long recordings are cut, in seconds: context around a chunk, search range, chunk length, longest uncut.

    `pitch`: with smooth joining, pitch of longer recordings is found in windows of this length.
    """

    pad: float = 1.0
    query: float = 6.0
    center: float = 38.0
    longest: float = 41.0
    pitch: float = 120.0


RVC_MIX_RATE = 0.25

LIMITS: dict[str, tuple[float, float]] = {
    "pitch_shift": (-SEMITONE_LIMIT, SEMITONE_LIMIT),
    "index_rate": (0.0, 1.0),
    "protect": (0.0, 0.5),
    "rms_mix_rate": (0.0, 1.0),
    "speaker_id": (0, 2333),
    "seed": (0, 2**63 - 1),
    "filter_radius": (0, 7),
    "autotune_strength": (0.0, 1.0),
    "proposed_pitch_hz": (50.0, 1200.0),
    "formant_quefrency": (0.1, 16.0),
    "formant_timbre": (0.1, 16.0),
}


@dataclass(frozen=True)
class Conversion:
    """What a user can turn. Ranges are checked here; InvalidInput names the field and its limits.

    RVC's parameters:

    - `pitch_shift` semitones, -24…24
    - `index_rate` 0…1, share of the target's nearest frames
    - `protect` 0…0.5, how much of them unvoiced frames get (0.5 is off)
    - `rms_mix_rate` 0…1, the volume envelope: 0 follows the source's loudness, 1 the voice's own; None is RVC's 0.25,
      and 1 for voices that read the source's loudness themselves
    - `f0_method` see libs.voice.pitch; `filter_radius` 0…7, from 3 on harvest's contour gets a median over 3 frames
    - `f0_points` (seconds, Hz) in order of time: a contour of one's own that replaces the pitch between its ends
    - `speaker_id` 0…2333 · `seed` fixes all chance
    - `fill_unvoiced` interpolates pitch through unvoiced frames, as the newest RVC does

    Applio's:

    - `split_silence` leaves silence (60 dB below the loudest) out, and puts gaps of the same length back
    - `autotune` pulls pitch to the nearest of 54 notes by `autotune_strength` 0…1; it replaces the shift. Unvoiced
      frames stay unvoiced unless `autotune_unvoiced`
    - `proposed_pitch` adds the whole semitones, -12…12, that bring the median to `proposed_pitch_hz` 50…1200
    - `formant_timbre` 0.1…16 stretches the spectral envelope of the source (1 is off), which is what lies below
      `formant_quefrency` 0.1…16 ms in the cepstrum
    """

    pitch_shift: float = 0.0
    index_rate: float = 0.5
    protect: float = 0.33
    rms_mix_rate: float | None = None
    f0_method: str = "auto"
    speaker_id: int = 0
    seed: int = 0
    fill_unvoiced: bool = False
    filter_radius: int = 3
    f0_points: tuple[tuple[float, float], ...] = ()
    split_silence: bool = False
    autotune: bool = False
    autotune_strength: float = 1.0
    autotune_unvoiced: bool = False
    proposed_pitch: bool = False
    proposed_pitch_hz: float = 155.0
    formant_quefrency: float = 1.0
    formant_timbre: float = 1.0

    def __post_init__(self) -> None:
        for field, (low, high) in LIMITS.items():
            value = getattr(self, field)
            # Written so that NaN is refused as well.
            if value is not None and not low <= value <= high:
                raise InvalidInput(f"{field} is {value:g}; it must lie in {low:g}…{high:g}.", field=field)
        check_points(self.f0_points)

    def mix_of(self, synthesizer: Synthesizer) -> float:
        """`rms_mix_rate`, or what suits the voice."""
        return loudness_mix(self.rms_mix_rate, synthesizer, RVC_MIX_RATE)


def check_output_rate(output_rate: int | None) -> None:
    """Raises InvalidInput outside 8000…192000 Hz."""
    low, high = OUTPUT_RATES
    if output_rate is not None and not low <= output_rate <= high:
        raise InvalidInput(f"output_rate is {output_rate}; it must lie in {low}…{high} Hz.", field="output_rate")
