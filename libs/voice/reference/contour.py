"""Section `f0`: quantising, filling, shifting, and Praat's pitch."""

from __future__ import annotations

import re

import numpy as np

from libs.voice.pitch import coarse, fill_unvoiced, praat, shift
from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger, Tolerance

VOICING_DIFFERS = Tolerance(0.02)
"""Share of frames whose voicing may differ: Praat's versions do not agree on every border."""


def check_f0(facts: Facts, ledger: Ledger, archive: str) -> None:
    """The quantiser on its own values, the newest RVC's filling in training and inference, and `pm`."""
    facts.prose("arrays")
    tolerance, pm_tolerance = Tolerance.of(facts["tolerance"]["f0"]), Tolerance.of(facts["tolerance"]["pm"])
    ledger.check(archive, "coarse_out", coarse(ledger.given(archive, "coarse_in")))
    filled = fill_unvoiced(ledger.given(archive, "f0_with_gaps"))
    ledger.check(archive, "f0_filled_train", filled, tolerance)
    ledger.check(archive, "f0_filled_train_coarse", coarse(filled))
    for key in ledger.arrays(archive):
        if found := re.fullmatch(r"infer_key(-?\d+)_f0", key):
            shifted = shift(filled, float(found[1]))
            ledger.check(archive, key, shifted, tolerance)
            ledger.check(archive, f"infer_key{found[1]}_coarse", coarse(shifted))
    if "pm_wav16k" in ledger.arrays(archive):
        with ledger.part("pitch by Praat"):
            _praat(ledger, archive, pm_tolerance)


def _praat(ledger: Ledger, archive: str, tolerance: Tolerance) -> None:
    wave = (ledger.given(archive, "pm_wav16k") / np.float32(32768)).astype(np.float32)
    raw = praat(wave)
    filled = fill_unvoiced(raw)
    theirs = ledger.arrays(archive)["pm_raw_padded"]
    both = (raw > 0) & (theirs > 0)
    ledger.near("share of frames voiced otherwise", np.mean((raw > 0) != (theirs > 0)), 0.0, VOICING_DIFFERS)
    ledger.check(archive, "pm_raw_padded", raw, tolerance, both)
    ledger.check(archive, "pm_train_filled", filled, tolerance, both)
    ledger.check(archive, "pm_infer_filled", filled, tolerance, both)
    ledger.check(archive, "pm_infer_coarse", coarse(filled), mask=both)
