"""Sections `rms_mix` and `e2e`: the loudness mix, and whole conversions as RVC's newest form and Applio make them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from libs.voice.conversion.converter import Converter
from libs.voice.conversion.loudness import mix_loudness
from libs.voice.conversion.settings import Conversion, Windows
from libs.voice.reference.facts import Facts
from libs.voice.reference.formula import StubEncoder, StubPitch
from libs.voice.reference.ledger import Ledger, Tolerance
from libs.voice.reference.silent import silent_voice
from libs.voice.retrieval import RetrievalIndex, read_index
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.synthesizer import Synthesizer

FULL_SCALE = np.float32(32768)


def check_loudness(facts: Facts, ledger: Ledger, archive: str) -> None:
    """The stored output with the loudness of the stored input, at every stored rate."""
    tolerance = Tolerance.of(facts["tolerance"])
    held = ledger.arrays(archive)
    source_key = next(key for key in held if re.fullmatch(r"rms_in_\d+k", key))
    result_key = next(key for key in held if re.fullmatch(r"rms_out_\d+k_int16", key))
    source = ledger.given(archive, source_key)
    result = (ledger.given(archive, result_key) / FULL_SCALE).astype(np.float32)
    rates = [int(re.search(r"_(\d+)k", key)[1]) * 1000 for key in (source_key, result_key)]  # type: ignore[index]
    for key in held:
        if found := re.fullmatch(r"rms_mixed_rate([\d.]+)_every_(\d+)", key):
            mixed = mix_loudness(source, rates[0], result, rates[1], float(found[1]))
            ledger.check(archive, key, mixed[:: int(found[2])], tolerance)


class _Watched:
    """A voice that renders chunks as a whole and notes how many samples it made of each."""

    def __init__(self, voice: RvcSynthesizer) -> None:
        self._voice = voice
        self.sample_rate, self.content_width = voice.sample_rate, voice.content_width
        self.needs_f0 = voice.needs_f0
        self.samples: list[int] = []

    def render(
        self, content: Tensor, f0_hz: Tensor, coarse: Tensor, speaker_id: int, generator: torch.Generator
    ) -> Tensor:
        wave = self._voice.render(content, f0_hz, coarse, speaker_id, generator)
        self.samples.append(len(wave))
        return wave


class _Counting(Converter):
    """A converter that notes how many frames of pitch each chunk comes with."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.pitch_frames: list[int] = []

    def protected(self, own: Any, mixed: Any, samples: int, f0: Any, settings: Conversion) -> Any:
        self.pitch_frames.append(len(f0))
        return super().protected(own, mixed, samples, f0, settings)


def check_conversions(facts: Facts, ledger: Ledger, archive: str) -> None:
    """Every case: sound, length and chunks, through a voice that renders one chunk as a whole and through ours."""
    facts.prose("zeroed", "input")
    voice = silent_voice(ledger.file(facts["synthesizer"]))
    tolerance = facts["tolerance"]
    limits = {"int16": _int16_limits(tolerance["int16"]), "float32": (Tolerance.of(tolerance["float"]), None)}
    for case in facts["cases"]:
        with ledger.part(f"conversion {case['array']}"):
            watched = _Watched(voice)
            encoder = StubEncoder(facts["stub_encoder"], voice.content_width)
            wave, pitch_frames = _convert(watched, encoder, facts, case, ledger, archive)
            listed = [[c["audio_samples"], c["pitch_frames"], c["out_samples"]] for c in case["chunks"]]
            ours = [list(each) for each in zip(encoder.lengths, pitch_frames, watched.samples, strict=True)]
            ledger.same("chunks: samples in, pitch frames, samples out", ours, listed)
            ledger.same("samples", len(wave), case["total_samples"])
            _sound(wave, case, limits[case["dtype"]], ledger, archive, "")
            # Our voice renders only what is kept of a chunk.
            encoder = StubEncoder(facts["stub_encoder"], voice.content_width)
            wave, _ = _convert(voice, encoder, facts, case, ledger, archive)
            _sound(wave, case, limits[case["dtype"]], ledger, archive, ", only what is kept")


def _int16_limits(text: str) -> tuple[Tolerance, float]:
    """`max abs difference 4, mean below 1`."""
    found = re.fullmatch(r"max abs difference (\d+), mean below (\d+)", text)
    if found is None:
        raise ValueError(f"the tolerance {text!r} is not known")
    return Tolerance(float(found[1])), float(found[2])


def _convert(
    voice: Synthesizer, encoder: StubEncoder, facts: Facts, case: Facts, ledger: Ledger, archive: str
) -> tuple[NDArray[np.float32], list[int]]:
    is_newest = "unvoiced filled" in case["implementation"]
    seconds = facts["windows_seconds"]
    windows = Windows(seconds["x_pad"], seconds["x_query"], seconds["x_center"], seconds["x_max"])
    index: RetrievalIndex | None = read_index(ledger.file(case["file_index"])) if case["file_index"] else None
    converter = _Counting(
        voice,
        encoder,
        StubPitch(facts["stub_f0"]),
        index,
        windows,
        cut_by_signed_sum="signed sum" in case["implementation"],
    )
    source = (ledger.given(archive, "e2e_wav16k_int16") / FULL_SCALE).astype(np.float32)
    wave, rate = converter.convert(
        source,
        16000,
        Conversion(
            pitch_shift=case["f0_up_key"] if "f0_up_key" in case else case["pitch"],
            index_rate=case["index_rate"],
            protect=case["protect"],
            rms_mix_rate=case["rms_mix_rate"] if "rms_mix_rate" in case else case["volume_envelope"],
            speaker_id=facts["speaker"],
            fill_unvoiced=is_newest,
            autotune=case.get("f0_autotune", False),
            autotune_strength=case.get("f0_autotune_strength", 1.0),
            autotune_unvoiced=True,  # as Applio's, which only that setting concerns
        ),
        output_rate=case.get("resample_sr", 0) or None,
    )
    ledger.same("output_rate", rate, case["output_rate"])
    return wave, converter.pitch_frames


def _sound(
    wave: NDArray[np.float32], case: Facts, limits: tuple[Tolerance, Any], ledger: Ledger, archive: str, how: str
) -> None:
    key = case["array"]
    found = re.search(r"_every_(\d+)$", key)
    thinned = wave[:: int(found[1])] if found else wave
    tolerance, mean_limit = limits
    if mean_limit is not None:
        thinned = np.trunc(thinned * FULL_SCALE)
        error = np.abs(thinned - ledger.arrays(archive)[key].astype(np.float64)).mean()
        ledger.near(f"mean difference{how}", error, 0.0, Tolerance(mean_limit))
    ledger.check(archive, key, thinned, tolerance)
