"""How is a sound made in the mouth? Phones of any language as shares of articulatory features.

The features are those of the chart of the International Phonetic Association: they mean the same in every language, so
speech in many languages teaches one encoder. Symbols are IPA, as espeak-ng writes them, and the phones of CMUdict.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from libs.voice.phones import PHONES

Float32 = NDArray[np.float32]

FEATURES: tuple[str, ...] = (
    "silent", "voiced", "vowel",
    "stop", "fricative", "sibilant", "nasal", "lateral", "rhotic", "glide",
    "labial", "dental", "alveolar", "postalveolar", "palatal", "velar", "uvular", "glottal",
    "close", "mid", "open", "front", "central", "back", "rounded",
)  # fmt: skip

_PLACES: dict[str, str] = {
    "labial": "p b m ɸ β f v ʋ ɱ w",
    "dental": "θ ð",
    "alveolar": "t d n s z l r ɾ ɹ ɬ ɫ",
    "postalveolar": "ʃ ʒ ʂ ʐ ɕ ʑ ɻ ʈ ɖ ɳ ɭ ɽ",
    "palatal": "c ɟ ɲ ʎ ç ʝ j ɥ ɕ ʑ",
    "velar": "k ɡ g ŋ x ɣ w ɰ ʍ",
    "uvular": "q ɢ χ ʁ ʀ ħ ʕ",
    "glottal": "h ɦ ʔ",
}
_MANNERS: dict[str, str] = {
    "stop": "p b t d ʈ ɖ c ɟ k ɡ g q ɢ ʔ",
    "fricative": "ɸ β f v θ ð s z ʃ ʒ ʂ ʐ ɕ ʑ ç ʝ x ɣ χ ʁ ħ ʕ h ɦ ɬ ʍ",
    "sibilant": "s z ʃ ʒ ʂ ʐ ɕ ʑ",
    "nasal": "m ɱ n ɳ ɲ ŋ",
    "lateral": "l ɫ ʎ ɭ ɬ",
    "rhotic": "r ɾ ɹ ɻ ɽ ʀ ʁ ɚ ɝ",
    "glide": "w j ɥ ɰ ʋ ʍ",
}
_VOWELS: dict[str, str] = {
    "close": "i y ɪ ʏ ɨ ʉ ᵻ ɯ u ʊ",
    "mid": "e ø ɛ œ ɘ ɵ ə ɜ ɚ ɝ ɤ o ʌ ɔ ɪ ʏ ʊ ᵻ",
    "open": "æ a ɐ ɑ ɒ ɛ œ ʌ ɔ",
    "front": "i y ɪ ʏ e ø ɛ œ æ",
    "central": "ɨ ʉ ᵻ ɘ ɵ ə ɜ ɚ ɝ ɐ a",
    "back": "ɯ u ʊ ɤ o ʌ ɔ ɑ ɒ",
    "rounded": "y ʏ ø œ ʉ ɵ u ʊ o ɔ ɒ w ɥ",
}
_VOICELESS = set("ptʈckqʔɸfθsʃʂɕçxχħhɬʍ")
_NASAL_MARK = "\N{COMBINING TILDE}"

_CMU: dict[str, str] = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "B": "b", "CH": "tʃ", "D": "d", "DH": "ð",
    "EH": "ɛ", "ER": "ɝ", "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ", "IY": "i", "JH": "dʒ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ",
    "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip


def _table() -> dict[str, Float32]:
    places = {name: number for number, name in enumerate(FEATURES)}
    table: dict[str, Float32] = {}
    for feature, symbols in (*_PLACES.items(), *_MANNERS.items(), *_VOWELS.items()):
        for symbol in symbols.split():
            row = table.setdefault(symbol, np.zeros(len(FEATURES), np.float32))
            row[places[feature]] = 1.0
    vowels = set(" ".join(_VOWELS[name] for name in ("close", "mid", "open")).split())
    for symbol, row in table.items():
        row[places["voiced"]] = float(symbol not in _VOICELESS)
        row[places["vowel"]] = float(symbol in vowels)
    return table


SYMBOLS = _table()
"""IPA letter → its features `[FEATURES]`, 0 or 1."""

SILENT: Float32 = np.eye(len(FEATURES), dtype=np.float32)[FEATURES.index("silent")]


def parts_of(ipa: str) -> list[Float32]:
    """The sounds of one phone in order, each `[FEATURES]`: a diphthong and an affricate have two. Unknown: none."""
    parts: list[Float32] = []
    for letter in unicodedata.normalize("NFD", ipa.replace("ç", "\0")).replace("\0", "ç"):
        if letter in SYMBOLS:
            parts.append(SYMBOLS[letter].copy())
        elif letter == _NASAL_MARK and parts:
            parts[-1][FEATURES.index("nasal")] = 1.0
    return parts


def of_cmu_phones() -> Float32:
    """Features of each class of `libs.voice.phones.PHONES` `[classes, FEATURES]`; those of two sounds are averaged."""
    rows = [np.mean(parts_of(_CMU[phone]), axis=0) if phone in _CMU else SILENT for phone in PHONES]
    return np.stack(rows).astype(np.float32)
