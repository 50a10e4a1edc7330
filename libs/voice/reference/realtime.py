"""Kind `realtime path`: successive blocks through network, index and pitch caches, and through gate, ring and SOLA."""

from __future__ import annotations

import re

import numpy as np
import torch

from libs.voice.realtime.inference import BlockInference
from libs.voice.realtime.joining import Joiner, follow_loudness
from libs.voice.realtime.ring import HOP_16K, InputRing
from libs.voice.realtime.settings import GATE_OFF_DB, SEARCH_FRAMES, Frames, RealtimeSettings
from libs.voice.reference.facts import Facts
from libs.voice.reference.formula import StubEncoder, StubPitch
from libs.voice.reference.ledger import Ledger, Tolerance
from libs.voice.reference.silent import silent_voice
from libs.voice.retrieval import read_index

INT16 = np.float32(32768)


def check_realtime(facts: Facts, ledger: Ledger, archive: str) -> None:
    """The section `block_inference`, and each section `callback_*`."""
    facts.prose("zeroed")
    ledger.documented(archive, facts["arrays"])
    for name in facts.names():
        if name == "block_inference":
            for case in facts[name]["cases"]:
                with ledger.part(f"{name} {case['tag']}"):
                    _blocks(facts[name], case, ledger, archive)
        elif name.startswith("callback_"):
            with ledger.part(name.replace("_", " ")):
                _callback(facts[name], name.removeprefix("callback_"), ledger, archive)


def _blocks(facts: Facts, case: Facts, ledger: Ledger, archive: str) -> None:
    """Features of the whole buffer, pitch caches, retrieval and partial decoding, block after block."""
    facts.prose("buffer_of_block_b", "outputs")
    tolerance = Tolerance.of(facts["tolerance"])
    voice = silent_voice(ledger.file(facts["synthesizer"]))
    pitch = StubPitch(facts["stub_f0"])
    block, buffer = facts["block_samples_16k"], facts["buffer_samples"]
    frames = buffer // HOP_16K
    inference = BlockInference(
        voice,
        StubEncoder(facts["stub_encoder"], voice.content_width),
        pitch,
        read_index(ledger.file(facts["index"])) if facts["index"] else None,
        block_frames=block // HOP_16K,
        skip_head=facts["skip_head_frames"],
        return_length=facts["return_length_frames"],
    )
    settings = RealtimeSettings(
        pitch_shift=case["key"],
        index_rate=case["index_rate"],
        speaker_id=facts["speaker"],
        fill_unvoiced="filled" in facts["stub_f0"],
    )
    wave = (ledger.given(archive, "rt_wav16k_int16") / INT16).astype(np.float32)
    tag = case["tag"]
    audio_key = next(key for key in ledger.arrays(archive) if key.startswith(f"rt_{tag}_audio_"))
    step = _step(audio_key)
    audio = []
    for b in range(facts["blocks"]):
        given = wave[b * block : b * block + buffer]
        audio.append(inference.infer(given, settings, torch.Generator())[::step])
        ledger.check(archive, f"rt_{tag}_pitch_cache_tail_{b}", inference.coarse_cache[-frames:])
        ledger.check(archive, f"rt_{tag}_pitchf_cache_tail_{b}", inference.f0_cache[-frames:], tolerance)
    ledger.check(archive, audio_key, np.stack(audio), tolerance)
    ledger.same("f0_input_samples_and_frames", pitch.seen, facts["f0_input_samples_and_frames"])


def _callback(facts: Facts, tag: str, ledger: Ledger, archive: str) -> None:
    """What surrounds the network: its output is stored."""
    tolerance = Tolerance.of(facts["tolerance"])
    rate, hop, block = facts["rate"], facts["zc"], facts["block"]
    frames = Frames(block // hop, facts["crossfade"] // hop, facts["extra"] // hop)
    gate_db = float(facts["gate_db"])
    ring = InputRing(rate, frames)
    joiner = Joiner(block, frames.fade * hop, SEARCH_FRAMES * hop)
    ours = [ring.hop, frames.fade * hop, SEARCH_FRAMES * hop, frames.decoded]
    theirs = [hop, facts["sola_buffer"], facts["sola_search"], facts["return_length_frames"]]
    ledger.same("zc, sola_buffer, sola_search, return_length_frames", ours, theirs)
    wave = (ledger.given(archive, f"cb_{tag}_input_int16") / INT16).astype(np.float32)
    rendered = (ledger.given(archive, f"cb_{tag}_infer_int16") / INT16).astype(np.float32)
    held = ledger.arrays(archive)
    blocks, offsets, resampled = [], [], []
    for b, voice in enumerate(rendered):
        ring.push(wave[b * block : (b + 1) * block], gate_db if gate_db > GATE_OFF_DB else None)
        mixed = follow_loudness(ring.decoded_part(), hop, voice, hop, facts["rms_mix_rate"])
        blocks.append(joiner.join(mixed))
        offsets.append(joiner.offset)
        resampled.append(ring.resampled_samples)
    ledger.same("sola_offsets", offsets, facts["sola_offsets"])
    ledger.same("resampler_input_samples", resampled, facts["resampler_input_samples"])
    output_step, tail_step = _steps(facts["note"])
    ledger.check(archive, f"cb_{tag}_output", np.stack(blocks)[:, ::output_step], tolerance)
    ring_key = next(key for key in held if key.startswith(f"cb_{tag}_input_ring_tail_"))
    ledger.check(archive, ring_key, ring.wave[:: _step(ring_key)], tolerance)
    ledger.check(archive, f"cb_{tag}_sola_tail", joiner.tail[::tail_step], tolerance)


def _steps(note: str) -> tuple[int, int]:
    """Which samples are kept: of `output: every 4th sample per block; … stored tail (every 4th) after the last …`."""
    output = re.search(r"output: every (\d+)\w* sample", note)
    tail = re.search(r"stored tail \(every (\d+)", note)
    if output is None or tail is None:
        raise ValueError("the note does not say which samples of output and tail are kept")
    return int(output[1]), int(tail[1])


def _step(key: str) -> int:
    """n of an array whose name ends with `_every_n`."""
    found = re.search(r"_every_(\d+)$", key)
    if found is None:
        raise ValueError(f"{key} does not say which samples it keeps")
    return int(found[1])
