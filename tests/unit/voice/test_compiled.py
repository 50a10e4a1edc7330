"""Does a compiled decoder sing the same at every length, compiled once, and a voice without a compiler as before?"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from libs.voice.compiled import Choice, Decode, DecoderCompiler
from libs.voice.lite import LiteSynthesizer
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.synthesizer import Clip

Said = list[tuple[str, dict[str, Any]]]


SMALL = replace(
    CONFIGS["rvc-tiny"],
    upsample_rates=(10, 16),
    upsample_kernel_sizes=(20, 32),
    resblock_kernels=(3,),
    resblock_dilations=((1,),),
)
"""Few layers of each kind: compiling takes time by their number."""


def voice(seed: int = 3) -> RvcSynthesizer:
    torch.manual_seed(seed)
    network = SynthesizerNetwork(SMALL, with_posterior=False)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return RvcSynthesizer(network, torch.device("cpu"))


def sing(ours: RvcSynthesizer, frames: int) -> Tensor:
    values = torch.Generator().manual_seed(frames)
    content = torch.randn(frames, 768, generator=values)
    f0 = 150 + 100 * torch.rand(frames, generator=values)
    return ours.render(content, f0, torch.randint(1, 255, (frames,), generator=values), 0, values)


def render_cut(ours: RvcSynthesizer, frames: int) -> None:
    """As conversions do: the decoder gets a part of longer tensors."""
    f0 = torch.full((frames + 60,), 200.0)
    coarse = torch.full((frames + 60,), 100)
    ours.render_clips([Clip(torch.randn(len(f0), 768), f0, coarse, 0, torch.Generator(), 30, frames + 30)])


def compiler(choice: Choice, said: Said, **more: Any) -> DecoderCompiler:
    return DecoderCompiler(choice, "cpu", lambda event, **fields: said.append((event, fields)), **more)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor calls what torch itself calls old
def test_a_compiled_voice_sounds_the_same_at_every_length() -> None:
    said: Said = []
    lengths = (40, 131, 200, 333)
    ours = voice()
    expected = {frames: sing(ours, frames) for frames in lengths}

    thread = compiler("on", said).take(ours)
    assert thread is not None
    thread.join()

    assert [event for event, _ in said] == ["voice.compiled"], said
    for frames, wave in expected.items():
        torch.testing.assert_close(sing(ours, frames), wave, atol=1e-5, rtol=0)
        assert wave.std() > 1e-3


def test_one_compilation_is_for_every_length_and_for_all_voices_of_one_shape() -> None:
    from torch._dynamo.utils import counters

    ours, other = voice(3), voice(4)
    traced = compiler("on", [], compiling=lambda call: torch.compile(call, dynamic=True, backend="eager"))
    before = counters["stats"]["unique_graphs"]

    for one in (ours, other):
        thread = traced.take(one)
        assert thread is not None
        thread.join()
        for frames in (40, 131, 132, 200, 333, 512):
            sing(one, frames)
            render_cut(one, frames)

    assert counters["stats"]["unique_graphs"] - before == 1


@pytest.mark.slow
def test_without_a_compiler_a_voice_sings_as_it_is_and_says_so_once(tmp_path: Path) -> None:
    """In a process of its own: where the compiler is, is looked up once."""
    code = (
        "import torch\n"
        "from tests.unit.voice.test_compiled import compiler, sing, voice\n"
        "said, ours, other = [], voice(3), voice(4)\n"
        "from libs.voice.compiled import compile_dynamic\n"
        "simple = lambda call: compile_dynamic(lambda z, source, g: z.tanh())\n"
        "ours_compiler, before = compiler('on', said, compiling=simple), sing(ours, 50)\n"
        "ours_compiler.take(ours).join()\n"
        "assert ours_compiler.take(other) is None\n"
        "assert [event for event, _ in said] == ['voice.not_compiled'], said\n"
        "assert torch.equal(before, sing(ours, 50))\n"
        "print(said[0][1]['error'])\n"
    )
    empty = tmp_path / "bin"
    empty.mkdir()
    env = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC")}
    env |= {"PATH": str(empty), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "Cxx" in done.stdout or "compiler" in done.stdout


def test_a_compilation_that_fails_is_told_once_and_changes_nothing() -> None:
    said: Said = []
    ours, other = voice(3), voice(4)
    before = sing(ours, 50)

    def broken(call: Decode) -> Decode:
        raise RuntimeError("no compiler here")

    ours_compiler = compiler("on", said, compiling=broken)
    first = ours_compiler.take(ours)
    assert first is not None
    first.join()

    assert ours_compiler.take(other) is None
    assert said == [("voice.not_compiled", {"error": "RuntimeError: no compiler here"})]
    torch.testing.assert_close(sing(ours, 50), before, atol=1e-6, rtol=0)


def test_several_clips_at_once_do_not_reach_what_was_compiled_for_one() -> None:
    shapes: list[int] = []

    def watched(call: Decode) -> Decode:
        def decode(z: Tensor, source: Tensor | None, g: Tensor) -> Tensor:
            shapes.append(len(z))
            return call(z, source, g)

        return decode

    ours = voice()
    thread = compiler("on", [], compiling=watched).take(ours)
    assert thread is not None
    thread.join()
    config = ours.network.config
    for batch in (1, 3):
        z, g = torch.randn(batch, config.inter_channels, 140), torch.randn(batch, config.gin_channels, 1)
        ours.network.dec.decode(z, torch.randn(batch, 1, 140 * config.hop_length), g)

    assert shapes == [1, 1]  # the trial, and the one clip


@pytest.mark.parametrize("choice", ["off", "auto"])
def test_nothing_is_compiled_on_a_processor_unless_asked_for(choice: Choice) -> None:
    assert compiler(choice, []).take(voice()) is None


def test_a_lite_voice_has_no_decoder_to_compile() -> None:
    assert compiler("on", []).take(LiteSynthesizer().eval()) is None
