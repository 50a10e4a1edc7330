"""The one door to coqui-tts: the network, its tokenizer, and what its training computes beside it.

Only the parts are used, not the library's trainer: that one deletes folders, takes the program's own arguments, saves
non-atomically, drops bad samples in silence and never ends when all are bad. Files are read by our own readers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from libs.common.errors import ModelFileRefused
from libs.voice.safe_load import load_tensors
from libs.voice.xtts.base import BaseModel

Wave = npt.NDArray[np.float32]
SAMPLE_RATE = 22_050
PROMPT = (66_150, 132_300)
"""A prompt has 3 to 6 s, in samples."""
TEXT_SHARE, SOUND_SHARE = 0.01, 1.0
# Classes that original checkpoints mention beside their tensors; they become inert when the file is read.
STUBS = (
    "TTS.tts.configs.xtts_config.XttsConfig",
    "TTS.tts.configs.xtts_config.XttsArgs",
    "TTS.tts.configs.xtts_config.XttsAudioConfig",
    "TTS.tts.models.xtts.XttsArgs",
    "TTS.tts.models.xtts.XttsAudioConfig",
    "TTS.config.shared_configs.BaseDatasetConfig",
)
MOST_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Item:
    """A clip as the network takes it: `wave` `[T]` at 22,050 Hz, `tokens`, and where its prompt begins and ends."""

    wave: Tensor
    tokens: Tensor
    prompt: tuple[int, int]


def load_xtts(config: Path, vocabulary: Path, weights: Path) -> Any:
    """coqui-tts's `Xtts` with these weights, in evaluation mode, on the CPU.

    Raises ModelFileRefused for files that are not XTTS's or do not fit each other, NotFound for what is not there.
    """
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
    from TTS.tts.models.xtts import Xtts

    threads = torch.get_num_threads()  # importing the library's modules may set another number
    try:
        settings = XttsConfig()
        settings.load_json(str(config))
        tokenizer = VoiceBpeTokenizer(str(vocabulary))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the library
            model = Xtts(settings)
            model.tokenizer = tokenizer
            model.init_models()
    except OSError:
        raise
    except Exception as error:  # whatever the library makes of a file that is not what it expects
        raise ModelFileRefused(f"{config.name} or {vocabulary.name} is not one of XTTS: {_first(error)}") from error
    finally:
        torch.set_num_threads(threads)
    if not settings.model_args.gpt_use_perceiver_resampler:
        raise ModelFileRefused(f"{config.name} is not of XTTS-v2: gpt_use_perceiver_resampler is off")
    _fill(model, weights)
    nn.Module.eval(model)  # the library's own eval() adds the layers of generation
    return model


def _fill(model: Any, weights: Path) -> None:
    held = load_tensors(weights, stubs=STUBS, max_bytes=MOST_BYTES)
    state = held.get("model", held) if isinstance(held, dict) else None
    if not isinstance(state, Mapping):
        raise ModelFileRefused(f"{weights.name} holds no weights of a model")
    wanted = model.state_dict()
    given = {str(name).removeprefix("xtts."): value for name, value in state.items()}
    lacking = sorted(wanted.keys() - given.keys() - {"mel_stats"})
    if lacking:
        raise ModelFileRefused(f"{weights.name} lacks {len(lacking)} of the weights of XTTS, such as {lacking[0]}")
    try:
        model.load_state_dict({name: given.get(name, value) for name, value in wanted.items()})
    except RuntimeError as error:
        raise ModelFileRefused(f"{weights.name} does not fit config.json and vocab.json: {_first(error)}") from error


class TrainingNetwork:
    """XTTS with what only its training needs: mel spectrograms, and the DVAE that turns sound into tokens.

    Only the GPT learns; the decoder stays as it is.
    """

    def __init__(self, base: BaseModel, device: torch.device) -> None:
        """Raises ModelFileRefused, NotFound."""
        from TTS.tts.layers.tortoise.arch_utils import TorchMelSpectrogram
        from TTS.tts.layers.xtts.dvae import DiscreteVAE

        self.device = device
        self.xtts = load_xtts(base.config, base.vocabulary, base.weights)
        stats = load_tensors(base.mel_stats)
        if not isinstance(stats, Tensor) or stats.shape != (80,):
            raise ModelFileRefused(f"{base.mel_stats.name} does not hold 80 numbers")
        self.xtts.mel_stats = stats.clone()
        dvae = DiscreteVAE(
            channels=80,
            normalization=None,
            positional_dims=1,
            num_tokens=self.xtts.args.gpt_num_audio_tokens - 2,
            codebook_dim=512,
            hidden_dim=512,
            num_resnet_blocks=3,
            kernel_size=3,
            num_layers=2,
            use_transposed_convs=False,
        )
        try:
            dvae.load_state_dict(load_tensors(base.dvae), strict=False)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ModelFileRefused(f"{base.dvae.name} is not the DVAE of XTTS: {_first(error)}") from error
        self._dvae = dvae.eval().requires_grad_(False).to(device)
        # Without a file of norms these would be fetched from the web: they are set to what was read already.
        self._prompt_mel = TorchMelSpectrogram(filter_length=2048, hop_length=256, win_length=1024, mel_norm_file=None)
        self._sound_mel = TorchMelSpectrogram(mel_norm_file=None)
        for mel in (self._prompt_mel, self._sound_mel):
            mel.mel_norms = stats.clone()
            mel.to(device)
        self.xtts.requires_grad_(False).to(device)
        self.gpt.requires_grad_(True)

    @property
    def gpt(self) -> nn.Module:
        """The part that learns."""
        gpt: nn.Module = self.xtts.gpt
        return gpt

    def tokens(self, text: str, language: str) -> list[int]:
        """The tokens of a text as the library cleans and writes it. Raises what the library raises."""
        return [int(number) for number in self.xtts.tokenizer.encode(text, language)]

    def losses(self, items: Sequence[Item], *, masked: bool, precision: torch.dtype) -> dict[str, Tensor]:
        """Weighted cross entropies of a batch: `loss`, `text`, `sound`, each of shape [].

        `masked` leaves the prompt out of what is to be predicted, as in training; judging goes without it.
        """
        lengths = torch.tensor([len(item.wave) for item in items])
        texts = torch.tensor([len(item.tokens) for item in items])
        waves = nn.utils.rnn.pad_sequence([item.wave for item in items], batch_first=True).to(self.device)
        tokens = nn.utils.rnn.pad_sequence([item.tokens for item in items], batch_first=True).to(self.device)
        prompts = torch.zeros(len(items), PROMPT[1])
        for row, item in enumerate(items):
            begin, end = item.prompt
            prompts[row, : end - begin] = item.wave[begin:end]
        indices = torch.tensor([item.prompt for item in items]).to(self.device) if masked else None
        with torch.no_grad():
            mels = self._prompt_mel(prompts.to(self.device)).unsqueeze(1)
            codes = self._dvae.get_codebook_indices(self._sound_mel(waves))
        with torch.autocast(self.device.type, dtype=precision, enabled=precision != torch.float32):
            text, sound, _ = self.gpt(
                tokens, texts.to(self.device), codes, lengths.to(self.device), cond_mels=mels, cond_idxs=indices
            )
        weighted = {"text": TEXT_SHARE * text.float(), "sound": SOUND_SHARE * sound.float()}
        return {"loss": weighted["text"] + weighted["sound"], **weighted}

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The parameters for AdamW: weights decay; biases, norms and embeddings do not."""
        still: set[int] = set()
        for module in self.gpt.modules():
            whole = isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.Embedding))
            for name, parameter in module.named_parameters(recurse=False):
                if whole or name.endswith("bias"):
                    still.add(id(parameter))
        parameters = list(self.gpt.parameters())
        return [
            {"params": [each for each in parameters if id(each) not in still], "weight_decay": weight_decay},
            {"params": [each for each in parameters if id(each) in still], "weight_decay": 0.0},
        ]


def speaker_of(xtts: Any, wave: Wave) -> dict[str, Tensor]:
    """How a speaker sounds: `gpt_cond_latent` `[1, 32, width]` and `speaker_embedding` `[1, 512, 1]`, on the CPU.

    `wave`: float32 `[T]` at 22,050 Hz, 0.33 s at least; 3 to 12 s are better.
    """
    settings, sound = xtts.config, torch.from_numpy(wave).unsqueeze(0)
    sound = sound[:, : SAMPLE_RATE * int(settings.max_ref_len)].to(xtts.device)
    latent = xtts.get_gpt_cond_latents(
        sound, SAMPLE_RATE, length=settings.gpt_cond_len, chunk_length=settings.gpt_cond_chunk_len
    )
    embedding = xtts.get_speaker_embedding(sound, SAMPLE_RATE)
    return {
        "gpt_cond_latent": latent.detach().float().cpu().clone().contiguous(),
        "speaker_embedding": embedding.detach().float().cpu().clone().contiguous(),
    }


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
