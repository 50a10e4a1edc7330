"""How good would listeners find the sound, as such? The one door to speechmos, which holds the DNSMOS networks.

DNSMOS P.835 (Reddy et al. 2022, arXiv 2110.01763) hears one recording, without a reference, and guesses what listeners
say who were asked for speech, background and both together, 1 (bad) to 5 (excellent).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from libs.common.errors import InvalidInput, Unavailable

RATE = 16_000
SHORTEST = 160
SECONDS = 9.01
WINDOW = 144_160
"""`SECONDS` in samples: what the network hears at once."""


@dataclass(frozen=True)
class Opinion:
    """Guessed mean opinions, about 1…5: of the speech, of the background (5: none is heard), of both together."""

    speech: float
    background: float
    overall: float


def opinion(wave16k: NDArray[np.float32]) -> Opinion:
    """`wave16k`: float32 `[T]` in -1…1 at 16 kHz → its mean opinions; beyond -1…1 it is cut, as a player does it.

    The mean over windows of 9.01 s that begin every second; what is shorter is repeated until it fills one. It hears
    loudness too: compare sounds of one level. Raises InvalidInput under 10 ms and for values that are no numbers,
    Unavailable when speechmos is not installed.
    """
    if len(wave16k) < SHORTEST or not np.isfinite(wave16k).all():
        raise InvalidInput(f"{len(wave16k)} samples given; an opinion is of {SHORTEST} finite ones or more at 16 kHz")
    mapped, session = _judge()
    wave = np.clip(wave16k, -1, 1).astype(np.float32)
    while len(wave) < WINDOW:
        wave = np.concatenate((wave, wave))
    seconds = range(int(len(wave) // RATE - SECONDS) + 1)
    # The package leaves windows out that its rounding makes a sample short; so do we: its numbers are known elsewhere.
    starts = [second * RATE for second in seconds if int((second + SECONDS) * RATE) - second * RATE == WINDOW]
    heard = (session.run(None, {"input_1": wave[None, start : start + WINDOW]})[0][0] for start in starts)
    speech, background, overall = np.mean([mapped(*each, False) for each in heard], axis=0)
    return Opinion(float(speech), float(background), float(overall))


def opinions_are_available() -> bool:
    """Whether `opinion` can answer here."""
    try:
        _judge()
    except Unavailable:
        return False
    return True


@lru_cache(maxsize=1)
def _judge() -> tuple[Any, Any]:
    """The package's mapping from what its network says to opinions, and the network."""
    try:
        import onnxruntime
        from speechmos import dnsmos
    except ImportError as missing:
        raise Unavailable(
            "Opinions are guessed by speechmos, which is not installed: it comes with the extra `quality`.",
            actions=('Install it: pip install "voicewright[quality]".',),
        ) from missing
    options = onnxruntime.SessionOptions()
    # The package's own sessions take every core, and spin on those that others need: measured ten times slower there.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = Path(dnsmos.__file__).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return partial(dnsmos.DNSMOS.get_polyfit_val, None), session
