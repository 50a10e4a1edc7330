"""Section `slicer` and `preprocess`: filter, segments, numbering of pieces, and the pieces themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from libs.audio.decode import decode
from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import DOUBLE, SINGLE, Ledger
from libs.voice.slicing import (
    Piece,
    PieceSettings,
    SlicerSettings,
    frame_rms,
    high_pass,
    high_pass_coefficients,
    kept_segments,
    piece_ranges,
    slice_recording,
)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class _Recording:
    wave: Float64
    rate: int
    filtered: Float64


def check_pieces(facts: Facts, ledger: Ledger, archive: str) -> None:
    """From the stored recording to the pieces that RVC and Applio write of it."""
    about = facts["input"]
    about.prose("format")
    sound = decode(ledger.file(about["file"]))
    wave = np.asarray(sound.wave, dtype=np.float64).reshape(-1)
    ledger.same("rate and samples", [sound.sample_rate, len(wave)], [about["rate"], about["samples"]])
    recording = _Recording(wave, sound.sample_rate, high_pass(wave, sound.sample_rate))
    if "slicer" in facts:
        with ledger.part("slicer"):
            _slicer(facts["slicer"], recording, ledger, archive)
    if "preprocess" in facts:
        with ledger.part("training pieces"):
            _preprocess(facts["preprocess"], recording, about["file"], ledger, archive)


def _slicer(facts: Facts, recording: _Recording, ledger: Ledger, archive: str) -> None:
    b, a = high_pass_coefficients(recording.rate)
    ledger.check(archive, "filter_b", b, DOUBLE)
    ledger.check(archive, "filter_a", a, DOUBLE)
    for key in ledger.arrays(archive):
        if found := re.fullmatch(r"filtered_every_(\d+)", key):
            ledger.check(archive, key, recording.filtered[:: int(found[1])], DOUBLE)
    settings = _settings(facts["preprocess_settings"])
    hop = round(recording.rate * settings.hop_ms / 1000)
    window = min(round(recording.rate * settings.min_interval_ms / 1000), 4 * hop)
    ledger.check(archive, "slicer_rms", frame_rms(recording.filtered, window, hop), DOUBLE)
    _segments(facts, settings, recording, ledger, "")
    for i, other in enumerate(facts["other_settings"]):
        _segments(other, _settings(other["settings"]), recording, ledger, f" with other settings {i}")


def _settings(facts: Facts) -> SlicerSettings:
    return SlicerSettings(
        threshold_db=facts["threshold"],
        min_length_ms=facts["min_length"],
        min_interval_ms=facts["min_interval"],
        hop_ms=facts["hop_size"],
        max_silence_kept_ms=facts["max_sil_kept"],
    )


def _segments(facts: Facts, settings: SlicerSettings, recording: _Recording, ledger: Ledger, which: str) -> None:
    for name, wave in (("on_filtered", recording.filtered), ("on_raw", recording.wave)):
        if name in facts:
            ours = [list(segment) for segment in kept_segments(wave, recording.rate, settings)]
            ledger.same(f"{name}{which}", ours, facts[name])


def _preprocess(facts: Facts, recording: _Recording, file: str, ledger: Ledger, archive: str) -> None:
    for run in facts["runs"]:
        per = run["per"]
        settings = _piece_settings(run, "rvc")
        waves = list(_sources(run["sources"], file, recording.wave))
        left: dict[str, Piece] = {}
        for i, wave in enumerate(waves):
            # As on a disk: a number that comes twice leaves the later piece.
            left |= {f"{i}_{piece.number}": piece for piece in slice_recording(wave, recording.rate, settings)}
        listed = run["files_left_on_disk"]
        ledger.same(f"files left, {per} s", sorted(f"{name}.wav" for name in left), sorted(f["file"] for f in listed))
        for about in listed:
            name = about["file"].removesuffix(".wav")
            _piece(about, left[name], recording.rate, f"pre_per{per}_{name}", ledger, archive)
        ledger.same(f"writes in order, {per} s", _writes(recording, settings), run["a_wav_writes_in_order"])
    applio = facts.get("applio_automatic_writes")
    if applio is not None:
        wave = recording.filtered if applio["high_pass"] else recording.wave
        writes = _writes(recording, _piece_settings(applio, "applio"), wave)
        ledger.same("writes in Applio's order", writes, applio["writes"])


def _piece_settings(facts: Facts, numbering: Literal["applio", "rvc"]) -> PieceSettings:
    return PieceSettings(seconds=facts["per"], overlap_seconds=facts["overlap"], numbering=numbering)


def _writes(recording: _Recording, settings: PieceSettings, wave: Float64 | None = None) -> list[list[int]]:
    source = recording.filtered if wave is None else wave
    return [list(piece) for piece in piece_ranges(source, recording.rate, settings)]


def _sources(texts: list[str], file: str, wave: Float64) -> Iterator[Float64]:
    """`a.wav = input.wav`, `b.wav = input.wav samples [48000,80000)`."""
    for text in texts:
        found = re.fullmatch(r"\S+ = (\S+)(?: samples \[(\d+),\s*(\d+)\))?", text)
        if found is None or found[1] != file:
            raise ValueError(f"the source {text!r} is not known")
        yield wave if found[2] is None else wave[int(found[2]) : int(found[3])]


def _piece(about: Facts, piece: Piece, rate: int, prefix: str, ledger: Ledger, archive: str) -> None:
    waves: dict[str, tuple[Any, int]] = {"gt": (piece.wave, rate), "k16": (piece.wave16k, 16000)}
    for name, (wave, hz) in waves.items():
        exact = wave.astype(np.float64)
        ledger.same(
            f"{prefix} {name} rate, samples", [hz, len(wave)], [about[f"{name}_rate"], about[f"{name}_samples"]]
        )
        ledger.near(f"{prefix} {name}_peak", np.abs(exact).max(), about[f"{name}_peak"], SINGLE)
        ledger.near(f"{prefix} {name}_rms", np.sqrt(np.mean(exact**2)), about[f"{name}_rms"], SINGLE)
        key_name = "16k" if name == "k16" else name
        for key in ledger.arrays(archive):
            if found := re.fullmatch(rf"{re.escape(prefix)}_{key_name}_every_(\d+)", key):
                ledger.check(archive, key, wave[:: int(found[1])], SINGLE)
