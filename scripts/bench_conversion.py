"""How much faster is one conversion than with plain settings, at equal output, and what helped by how much?

`python -m scripts.bench_conversion`. The full v2 40k network has random weights, which cost as much as trained ones.
The ways are taken in turn, several rounds, in one process; told are processor seconds, because other work may share
the cores. Plain: weight norm computed in each pass, every operation into new memory, and the context of each chunk
decoded with it.

`--part together`: requests of several callers at once against one by one, of every voice or of `--voice`. Both in turn
in one process as well; told are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.voice.chain import Conversion, Converter, Order, Outcome, convert_together
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
SHORT = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
CALLERS = {
    "lite": {"8 of 1 to 5 s": SHORT, "8 of 2 s": (2.0,) * 8, "2 of 30 s": (30.0, 30.0)},
    "rvc-tiny": {"8 of 1 to 5 s": SHORT, "8 of 2 s": (2.0,) * 8, "2 of 30 s": (30.0, 30.0)},
    "rvc-v2-40k": {"4 of 1 to 5 s": SHORT[1::2], "4 of 2 s": (2.0,) * 4, "2 of 10 s": (10.0, 10.0)},
}
"""Seconds of what several callers send at once."""


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


def voice_of(name: str) -> LiteSynthesizer | RvcSynthesizer:
    """A voice with random weights."""
    torch.manual_seed(0)
    if name == "lite":
        return LiteSynthesizer().eval()
    return RvcSynthesizer(SynthesizerNetwork(CONFIGS[name], with_posterior=False), torch.device("cpu"))


def measure_together(names: Sequence[str] = tuple(CALLERS)) -> dict[str, object]:
    """Several callers at once and one by one: requests per second, and processor seconds per second of sound."""
    figures: dict[str, object] = {}
    for name in names:
        converter = Converter(voice_of(name), SmallContentEncoder(), Pitch(), joining="smooth")
        for case, lengths in CALLERS[name].items():
            figures |= _callers(f"{name}, {case}", converter, lengths)
    return figures


def _callers(title: str, converter: Converter, lengths: tuple[float, ...]) -> dict[str, object]:
    wave = speech(30.0)
    orders = [Order(wave[i * 4000 :][: round(s * 16000)], 16000, SETTINGS) for i, s in enumerate(lengths)]

    def convert(groups: list[list[Order]]) -> list[NDArray[np.float32]]:
        made: list[NDArray[np.float32]] = []
        for group in groups:
            told: dict[int, Outcome] = {}
            convert_together(converter, group, told.__setitem__, most_seconds=60.0)
            for place in range(len(group)):
                outcome = told[place]
                assert not isinstance(outcome, Exception), outcome
                made.append(outcome[0])
        return made

    ways = {"one by one": [[order] for order in orders], "together": [orders]}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    clock: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, list[NDArray[np.float32]]] = {}
    convert(ways["one by one"][:1])
    for _ in range(ROUNDS):
        for way, groups in ways.items():
            began, at = time.process_time(), time.perf_counter()
            results[way] = convert(groups)
            processor[way].append(time.process_time() - began)
            clock[way].append(time.perf_counter() - at)
    figures: dict[str, object] = {}
    for way in ways:
        figures[f"{title}, {way}: processor s per s"] = round(statistics.median(processor[way]) / sum(lengths), 4)
        figures[f"{title}, {way}: requests per s"] = round(len(lengths) / statistics.median(clock[way]), 2)
    ratio = statistics.median(processor["one by one"]) / statistics.median(processor["together"])
    figures[f"{title}: times less processor time"] = round(ratio, 2)
    pairs = zip(results["one by one"], results["together"], strict=True)
    figures[f"{title}: largest difference"] = max(float(np.abs(one - other).max()) for one, other in pairs)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("plain", "together"), default="plain")
    parser.add_argument("--voice", choices=CALLERS, nargs="*", default=list(CALLERS))
    wanted = parser.parse_args()
    figures = measure(Path()) if wanted.part == "plain" else measure_together(wanted.voice)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
