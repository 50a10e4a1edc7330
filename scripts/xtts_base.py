"""A base model of XTTS in its true format with random weights: `python -m scripts.xtts_base FOLDER [--size tiny]`.

Runs where coqui-tts is, and prints how many parameters each part has. In both sizes the decoder's upsampling and the
DVAE are the true ones: `dvae.pth` has 211 MB, `model.pth` 93 MB (tiny) or 1.9 GB. Nothing of it is ever committed.
The DVAE's dimensions are the format's, said here apart from libs/voice/xtts, whose reader these files try.
"""

from __future__ import annotations

import argparse
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Size:
    """A network and its vocabulary: `tokens` of them, or as many as it names; `network` are settings of XttsArgs."""

    languages: Sequence[str]
    letters: str = string.ascii_lowercase + ".,!?'-:;()"
    merges: Sequence[str] = ()
    tokens: int = 0
    network: dict[str, int | str] = field(default_factory=dict)


TINY = Size(
    languages=("en", "de", "es", "fr", "tr", "zh-cn"),
    letters=Size.letters + "äöüßéèñçğış",
    merges=("t h", "th e", "i n", "a n", "an d", "e r"),
    network={"gpt_layers": 2, "gpt_n_model_channels": 64, "gpt_n_heads": 2, "decoder_input_dim": 64},
)
TRUE = Size(languages=("en",), tokens=6681)
"""As many tokens as the vocabulary of XTTS-v2 has."""
SIZES = {"tiny": TINY, "true": TRUE}


def write_vocabulary(path: Path, size: Size) -> None:
    """A `vocab.json`: the special tokens with XTTS's numbers, letters, a few joined pairs; the rest is never used."""
    special = ["[STOP]", "[UNK]", "[SPACE]", *(f"[{language}]" for language in size.languages), "[START]"]
    tokens = [*special, *dict.fromkeys(size.letters), *(merge.replace(" ", "") for merge in size.merges)]
    tokens += [f"\u2421{number}" for number in range(size.tokens - len(tokens))]
    numbers = {token: number for number, token in enumerate(tokens)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": numbers[token], "content": token, **flags} for token in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "vocab": numbers,
            "merges": list(size.merges),
        },
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def build(folder: Path, size: Size, seed: int = 0) -> dict[str, int]:
    """The five files of XTTS_PATH in `folder`; how many parameters each part has."""
    import torch
    from TTS.tts.configs.xtts_config import XttsArgs, XttsConfig
    from TTS.tts.layers.xtts.dvae import DiscreteVAE
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
    from TTS.tts.models.xtts import Xtts

    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder / "vocab.json", size)
    config = XttsConfig()
    config.languages = list(size.languages)
    config.model_args = XttsArgs(
        gpt_num_audio_tokens=1026,
        gpt_start_audio_token=1024,
        gpt_stop_audio_token=1025,
        gpt_use_perceiver_resampler=True,
        tokenizer_file="/somewhere/vocab.json",  # published ones name a path of their maker's
        **size.network,
    )
    config.save_json(str(folder / "config.json"))
    torch.manual_seed(seed)
    model = Xtts(config)
    model.tokenizer = VoiceBpeTokenizer(str(folder / "vocab.json"))
    model.init_models()
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    dvae = DiscreteVAE(
        channels=80,
        normalization=None,
        positional_dims=1,
        num_tokens=1024,
        codebook_dim=512,
        hidden_dim=512,
        num_resnet_blocks=3,
        kernel_size=3,
        num_layers=2,
        use_transposed_convs=False,
    )
    torch.save(dvae.state_dict(), folder / "dvae.pth")
    torch.save(torch.ones(80), folder / "mel_stats.pth")
    parts = {"network": model, "GPT": model.gpt, "decoder": model.hifigan_decoder, "DVAE": dvae}
    return {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.xtts_base", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SIZES), default="true")
    options = parser.parse_args()
    print(json.dumps(build(options.folder, SIZES[options.size])))


if __name__ == "__main__":
    main()
