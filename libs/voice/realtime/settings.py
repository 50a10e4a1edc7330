"""What can be turned in a live conversion, in which ranges, and how many frames does it make?"""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.errors import InvalidInput
from libs.voice.pitch import SEMITONE_LIMIT
from libs.voice.synthesizer import Synthesizer, loudness_mix

FRAMES_PER_SECOND = 100
SEARCH_FRAMES = 1
LONGEST_FADE_FRAMES = 4
GATE_OFF_DB = -60.0
RVC_MIX_RATE = 0.0
LIMITS: dict[str, tuple[float, float]] = {
    "block_seconds": (0.02, 1.5),
    "crossfade_seconds": (0.01, 0.15),
    "extra_seconds": (0.05, 5.0),
    "pitch_shift": (-SEMITONE_LIMIT, SEMITONE_LIMIT),
    "formant_shift": (-2.0, 2.0),
    "index_rate": (0.0, 1.0),
    "rms_mix_rate": (0.0, 1.0),
    "threshold_db": (GATE_OFF_DB, 0.0),
    "speaker_id": (0, 2333),
    "input_rate": (8000, 192_000),
    "seed": (0, 2**63 - 1),
}
FIXED = ("block_seconds", "crossfade_seconds", "extra_seconds", "input_rate", "seed")
"""Decided when a stream begins: the sizes of its buffers follow from them."""


@dataclass(frozen=True)
class RealtimeSettings:
    """Settings of one stream. Ranges and defaults are RVC's, but for `pitch_shift`: 24 semitones either way as for
    files, where RVC's live window has 16. Raises InvalidInput naming the field and its limits.

    `block_seconds` is what goes in and comes out at once, `crossfade_seconds` joins blocks, `extra_seconds` of the
    past are context (all rounded to 10 ms) · `pitch_shift`, `formant_shift` in semitones · `index_rate` share of the
    target's nearest frames · `rms_mix_rate` 0 follows the input's loudness, 1 leaves the voice its own; None is RVC's
    0, and 1 for voices that read the input's loudness themselves · below `threshold_db` of full scale the input counts
    as silence (-60 is off) · `fill_unvoiced` interpolates pitch through unvoiced frames, as the newest RVC does ·
    `input_rate` Hz, a multiple of 100 · `seed` fixes all chance.
    """

    block_seconds: float = 0.25
    crossfade_seconds: float = 0.05
    extra_seconds: float = 2.5
    pitch_shift: float = 0.0
    formant_shift: float = 0.0
    index_rate: float = 0.0
    rms_mix_rate: float | None = None
    threshold_db: float = GATE_OFF_DB
    f0_method: str = "auto"
    speaker_id: int = 0
    input_rate: int = 48_000
    fill_unvoiced: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field, (low, high) in LIMITS.items():
            value = getattr(self, field)
            if field == "rms_mix_rate" and value is None:
                continue
            # Written so that NaN is refused as well.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise InvalidInput(f"{field} is {value!r}; it must lie in {low:g}…{high:g}.", field=field)
        for field in ("speaker_id", "input_rate", "seed"):
            if not isinstance(getattr(self, field), int):
                raise InvalidInput(f"{field} is {getattr(self, field)!r}; it must be a whole number.", field=field)
        if self.input_rate % FRAMES_PER_SECOND:
            raise InvalidInput(
                f"input_rate is {self.input_rate} Hz; a stream needs a multiple of 100 Hz, as 16000, 44100 or 48000.",
                field="input_rate",
            )
        if not isinstance(self.fill_unvoiced, bool):
            raise InvalidInput(f"fill_unvoiced is {self.fill_unvoiced!r}; it is true or false.", field="fill_unvoiced")
        if not isinstance(self.f0_method, str):
            raise InvalidInput(f"f0_method is {self.f0_method!r}; it is the name of a method.", field="f0_method")

    def mix_of(self, synthesizer: Synthesizer) -> float:
        """`rms_mix_rate`, or what suits the voice."""
        return loudness_mix(self.rms_mix_rate, synthesizer, RVC_MIX_RATE)

    @property
    def gate_is_on(self) -> bool:
        """Whether quiet input counts as silence."""
        return self.threshold_db > GATE_OFF_DB


@dataclass(frozen=True)
class Frames:
    """Lengths of a stream in frames of 10 ms.

    ring    |------------ extra ------------|------- block -------|- crossfade -|search|  ← now
    decoded                                 |------- block -------|- fade -|search|
    """

    block: int
    crossfade: int
    extra: int

    @classmethod
    def of(cls, settings: RealtimeSettings) -> Frames:
        """Seconds rounded to frames, half to even as RVC does."""
        seconds = (settings.block_seconds, settings.crossfade_seconds, settings.extra_seconds)
        return cls(*(round(each * FRAMES_PER_SECOND) for each in seconds))

    @property
    def fade(self) -> int:
        """Frames over which neighbouring blocks are blended: at most 40 ms."""
        return min(self.crossfade, LONGEST_FADE_FRAMES)

    @property
    def decoded(self) -> int:
        """Frames that the voice renders for each block."""
        return self.block + self.fade + SEARCH_FRAMES

    @property
    def ring(self) -> int:
        """Frames of input that are kept."""
        return self.extra + self.crossfade + SEARCH_FRAMES + self.block
