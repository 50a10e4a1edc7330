"""Sections `index` and `retrieval`: index files, search, mixing, and protection of unvoiced frames."""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.voice.conversion.converter import Converter
from libs.voice.conversion.settings import Conversion
from libs.voice.index_file import check_index_file
from libs.voice.pitch import PitchExtractor
from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger, Tolerance
from libs.voice.retrieval import file_name, list_count, read_index

CLASSES = {"IndexIVFFlat": "ivf", "IndexFlatL2": "flat", "IndexFlat": "flat"}


def check_indices(facts: Facts, ledger: Ledger, archive: str) -> None:
    """What each index file holds, our rule and name for one of its size, and that an empty one is refused."""
    for version, about in facts.items():
        about.prose("formula")
        name = about["added"]
        path = ledger.file(name)
        shape = check_index_file(path, width=about["dim"])
        read = [shape.rows, shape.width, shape.lists, shape.nprobe, shape.form]
        wanted = [about["N"], about["dim"], about["nlist"], about["nprobe"], CLASSES[about["class"]]]
        ledger.same(f"{version} rows, width, lists, nprobe, form", read, wanted)
        ledger.same(f"{version} metric", "L2", about["metric"])  # any other is refused above
        ledger.same(f"{version} lists for so many rows", list_count(about["N"]), about["nlist"])
        index = read_index(path, width=about["dim"])
        for key in ledger.arrays(archive):
            if found := re.fullmatch(rf"index_{re.escape(version)}_reconstructed_first(\d+)_cols(\d+)", key):
                ledger.check(archive, key, index.vectors[: int(found[1]), : int(found[2])])
        for kind in ("added", "trained"):
            if about[kind] is not None:
                _name(about[kind], kind, about["nlist"], about["nprobe"], ledger)
        if about["trained"] is not None:
            try:
                check_index_file(ledger.file(about["trained"]))
                ledger.fail(about["trained"], "it holds no vectors and was not refused")
            except ModelFileRefused:
                ledger.same(f"{about['trained']} is refused", True, True)


def _name(name: str, kind: str, lists: int, nprobe: int, ledger: Ledger) -> None:
    """Whether we would call it the same."""
    found = re.fullmatch(r".*_nprobe_\d+_(.+)_(v\d+)\.index", name)
    ours = file_name(kind, lists, found[1], found[2], nprobe) if found else None
    ledger.same(f"name of {name}", ours, name)


class _Given:
    """An encoder that knows its answer."""

    name, checksum = "stored", "0" * 64

    def __init__(self, features: NDArray[np.float32]) -> None:
        self.features = features
        self.width = features.shape[1]

    def encode(self, wave16k: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.features


class _Mute:
    """A voice of some width, of which only the input is looked at."""

    sample_rate, needs_f0 = 40000, True

    def __init__(self, width: int) -> None:
        self.content_width = width

    def render(
        self, content: Tensor, f0_hz: Tensor, coarse: Tensor, speaker_id: int, generator: torch.Generator
    ) -> Tensor:
        return torch.zeros(len(content) * self.sample_rate // 100)


class _NoPitch:
    def resolve(self, method: str) -> str:
        return method

    def f0(self, wave16k: NDArray[np.float32], method: str = "auto") -> NDArray[np.float32]:
        return np.zeros(len(wave16k) // 160 + 1, dtype=np.float32)


def check_retrieval(facts: Facts, ledger: Ledger, archive: str) -> None:
    """What reaches the synthesizer of each stored case, the search itself, and an exact hit."""
    facts.prose("exact_hit")
    tolerance = Tolerance.of(facts["tolerance"])
    indices = {}
    for case in facts["cases"]:
        prefix = case["prefix"]
        features = ledger.given(archive, f"{prefix}feats")[0]
        ledger.same(f"{prefix}T", len(features), case["T"])
        ledger.same(f"{prefix}version", {256: "v1", 768: "v2"}.get(features.shape[1]), case["version"])
        index = read_index(ledger.file(case["index"])) if case["index"] else None
        if index is not None:
            indices[index.width] = index
        pitch: PitchExtractor = _NoPitch()
        ours = Converter(_Mute(features.shape[1]), _Given(features), pitch, index)
        wanted = Conversion(index_rate=case["index_rate"], protect=case["protect"])
        f0 = ledger.given(archive, f"{prefix}pitchf_in")[0].astype(np.float64)
        audio = np.zeros(case["audio_samples"], dtype=np.float32)
        content, cut = ours.content_frames(audio, f0, wanted)
        n = len(cut)
        ledger.check(archive, f"{prefix}net_feats", content[None], tolerance)
        ledger.check(archive, f"{prefix}net_pitchf", cut[None].astype(np.float32), tolerance)
        ledger.check(archive, f"{prefix}net_len", np.array([n]))
        ledger.check(archive, f"{prefix}net_pitch", ledger.given(archive, f"{prefix}pitch_in")[:, :n])
        if f"{prefix}search_ids" in ledger.arrays(archive):
            assert index is not None
            distances, ids = index.search(features)
            ledger.check(archive, f"{prefix}search_ids", ids)
            scale = Tolerance(tolerance.atol, tolerance.atol)  # squared distances grow with the width
            ledger.check(archive, f"{prefix}search_score", distances, scale)
    if "exact_hit_feats" in ledger.arrays(archive):
        # The reference divides by zero here. Ours must give the stored vector, which the query is.
        features = ledger.given(archive, "exact_hit_feats")[0]
        upstream = ledger.given(archive, "exact_hit_net_feats_upstream")
        mixed = indices[features.shape[1]].mix(features, 1.0)
        ledger.near("exact hit gives the stored vector", mixed, features, tolerance)
        ledger.same("exact hit is not a number in the reference", bool(np.isnan(upstream).all()), True)
