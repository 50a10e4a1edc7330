"""When is a decoder compiled? In the background, where a compiler works; until then a voice sings as it is.

torch.compile makes C++ (on a processor, by g++) or Triton kernels (on a GPU) of what lies between the convolutions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from libs.voice.rvc.generator import Generator
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.synthesizer import Synthesizer

Choice = Literal["off", "on", "auto"]
"""`auto`: on a GPU only, because a processor gains nothing that was measured (docs/benchmarks.md)."""

ORDERED = torch.contiguous_format
Decode = Callable[[Tensor, Tensor | None, Tensor], Tensor]

TRIAL_FRAMES = 131
"""Of the compilation's first call; a prime, so that no size of it is mistaken for another.

Shorter clips are sung as they are: PyTorch takes another convolution below 20480 values, which would be compiled anew.
"""


def compile_dynamic(call: Decode) -> Decode:
    """`call` through torch.compile for any length; compiled at its first call, in this process and thread."""
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1  # a pool of processes would outlive its use
    compiled: Decode = torch.compile(call, dynamic=True)
    return compiled


class DecoderCompiler:
    """Compiles the decoders of RVC voices, one at a time. Voices of one shape share what was compiled.

    `say(event, fields)` hears of each outcome. After a failure nothing more is tried: the compiler is missing or does
    not work, and would be so for every voice.
    """

    def __init__(
        self,
        choice: Choice,
        device: torch.device | str,
        say: Callable[..., None],
        compiling: Callable[[Decode], Decode] = compile_dynamic,
    ) -> None:
        self.is_on = choice == "on" or (choice == "auto" and torch.device(device).type == "cuda")
        self._say = say
        self._compiling = compiling
        self._lock = threading.Lock()
        self._failed = False

    def take(self, voice: Synthesizer) -> threading.Thread | None:
        """Begins to compile the voice's decoder, None if that is not wanted or there is none. Returns at once."""
        if not self.is_on or self._failed or not isinstance(voice, RvcSynthesizer):
            return None
        # A daemon: nobody waits for a compilation when the service goes.
        thread = threading.Thread(target=self._compile, args=(voice,), name="compiling", daemon=True)
        thread.start()
        return thread

    def _compile(self, voice: RvcSynthesizer) -> None:
        with self._lock:
            if self._failed:
                return
            decoder = voice.network.dec
            plain: Decode = decoder.decode
            try:
                compiled = self._compiling(plain)
                with torch.inference_mode():
                    compiled(*_trial(decoder, voice))
            except Exception as error:
                self._failed = True
                reason = str(error).strip().partition("\n")[0]
                self._say("voice.not_compiled", error=f"{type(error).__name__}: {reason}"[:300])
                return
            decoder.decode = _LongEnough(compiled, plain)  # type: ignore[method-assign]  # in one step
            self._say("voice.compiled", sample_rate=voice.sample_rate)


class _LongEnough:
    """One clip of some length through what was compiled; short ones, and several at once, as they are."""

    def __init__(self, compiled: Decode, plain: Decode) -> None:
        self._compiled, self._plain = compiled, plain

    def __call__(self, z: Tensor, source: Tensor | None, g: Tensor) -> Tensor:
        if len(z) != 1 or z.shape[2] < TRIAL_FRAMES:
            return self._plain(z, source, g)
        # Copies, because strides of a cut tensor tell them apart from the trial's, and it would be compiled anew.
        return self._compiled(
            z.clone(memory_format=ORDERED), None if source is None else source.clone(memory_format=ORDERED), g
        )


def _trial(decoder: Generator, voice: RvcSynthesizer) -> tuple[Any, ...]:
    config = voice.network.config
    z = torch.zeros(1, config.inter_channels, TRIAL_FRAMES, device=voice.device)
    source = torch.zeros(1, 1, TRIAL_FRAMES * config.hop_length, device=voice.device) if decoder.has_source else None
    return z, source, torch.zeros(1, config.gin_channels, 1, device=voice.device)
