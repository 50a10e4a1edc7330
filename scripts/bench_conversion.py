"""How much faster is one conversion than with plain settings, at equal output, and what helped by how much?

`python -m scripts.bench_conversion`. The full v2 40k network has random weights, which cost as much as trained ones.
The ways are taken in turn, several rounds, in one process; told are processor seconds, because other work may share
the cores. Plain: weight norm computed in each pass, every operation into new memory, and the context of each chunk
decoded with it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.voice.chain import Conversion, Converter
from libs.voice.content_small import SmallContentEncoder
from libs.voice.lite import LiteSynthesizer
from libs.voice.pitch import Pitch
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.generator import ResBlock
from libs.voice.rvc.layers import LRELU_SLOPE, NormedConv1d, NormedConvTranspose1d
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.rvc.voice import RvcSynthesizer

SECONDS = (3.0, 10.0)
ROUNDS = 3
SETTINGS = Conversion(rms_mix_rate=1.0)


class Whole:
    """A voice that renders each chunk with all of its context, as it did before clips."""

    def __init__(self, voice: RvcSynthesizer) -> None:
        self._voice = voice
        self.sample_rate, self.content_width, self.needs_f0 = voice.sample_rate, voice.content_width, voice.needs_f0

    def render(self, *given: Any) -> Tensor:
        return self._voice.render(*given)


@contextmanager
def new_memory() -> Iterator[None]:
    """Residual blocks that write every result into memory of its own."""

    def forward(self: ResBlock, x: Tensor) -> Tensor:
        leaky = torch.nn.functional.leaky_relu
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(leaky(dilated(leaky(x, LRELU_SLOPE)), LRELU_SLOPE))
        return x

    own = ResBlock.forward
    ResBlock.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        ResBlock.forward = own  # type: ignore[method-assign]


@contextmanager
def unfolded(network: SynthesizerNetwork) -> Iterator[None]:
    """Weight norm computed in each pass."""
    layers = [layer for layer in network.modules() if isinstance(layer, NormedConv1d | NormedConvTranspose1d)]
    kept = [layer._folded for layer in layers]
    for layer in layers:
        layer._folded = None
    try:
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer._folded = weight


def speech(seconds: float) -> NDArray[np.float32]:
    """Speech of the corpus at 16 kHz, `[seconds * 16000]`."""
    paths = sorted(Path(os.environ["VOICE_CORPUS"]).glob("librispeech_many/*.flac"))
    wave = np.concatenate([resample(s.wave, s.sample_rate, 16000) for s in (decode(path) for path in paths[:2])])
    return wave[: round(seconds * 16000)]


def measure(work: Path) -> dict[str, object]:
    """Figures of this machine; `work` is not needed."""
    torch.manual_seed(0)
    voice = RvcSynthesizer(SynthesizerNetwork(CONFIGS["rvc-v2-40k"], with_posterior=False), torch.device("cpu"))
    encoder, pitch = SmallContentEncoder(), Pitch()
    whole, ours = (Converter(v, encoder, pitch, joining="smooth") for v in (Whole(voice), voice))
    lite = Converter(LiteSynthesizer().eval(), encoder, pitch, joining="smooth")

    def plain(wave: NDArray[np.float32]) -> NDArray[np.float32]:
        with unfolded(voice.network), new_memory():
            return whole.convert(wave, 16000, SETTINGS)[0]

    def folded(wave: NDArray[np.float32]) -> NDArray[np.float32]:
        with new_memory():
            return whole.convert(wave, 16000, SETTINGS)[0]

    ways: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
        "plain": plain,
        "weight norm folded": folded,
        "and in place": lambda wave: whole.convert(wave, 16000, SETTINGS)[0],
        "and only kept frames decoded (ours)": lambda wave: ours.convert(wave, 16000, SETTINGS)[0],
        "lite": lambda wave: lite.convert(wave, 16000, SETTINGS)[0],
    }
    figures: dict[str, object] = {}
    for seconds in SECONDS:
        wave = speech(seconds)
        best = dict.fromkeys(ways, float("inf"))
        results: dict[str, NDArray[np.float32]] = {}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                began = time.process_time()
                results[name] = way(wave)
                best[name] = min(best[name], time.process_time() - began)
        for name, took in best.items():
            figures[f"{seconds:g} s, {name}: processor s"] = round(took, 3)
            if name not in ("plain", "lite"):
                figures[f"{seconds:g} s, {name}: times less"] = round(best["plain"] / took, 2)
                figures[f"{seconds:g} s, {name}: largest difference"] = float(
                    np.abs(results[name] - results["plain"]).max()
                )
    return figures


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(json.dumps(measure(Path()), indent=1))


if __name__ == "__main__":
    main()
