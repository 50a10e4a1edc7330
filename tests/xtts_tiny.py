"""XTTS in its true format and very small, with random weights: `python -m tests.xtts_tiny FOLDER`, where coqui-tts is.

The decoder and the DVAE do not shrink: `model.pth` has 93 MB and `dvae.pth` 211 MB. Nothing of it is ever committed.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

LANGUAGES = ("en", "de", "es", "fr", "tr", "zh-cn")
MERGES = ("t h", "th e", "i n", "a n", "an d", "e r")
LETTERS = string.ascii_lowercase + ".,!?'-:;()" + "äöüßéèñçğış"


def write_vocabulary(path: Path) -> None:
    """A `vocab.json` of letters, a few joined pairs, and the special tokens with XTTS's numbers."""
    special = ["[STOP]", "[UNK]", "[SPACE]", *(f"[{language}]" for language in LANGUAGES), "[START]"]
    tokens = special + list(dict.fromkeys(LETTERS)) + [merge.replace(" ", "") for merge in MERGES]
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
            "merges": list(MERGES),
        },
    }
    path.write_text(json.dumps(content))


def build(folder: Path, seed: int = 0) -> None:
    """The five files of XTTS_PATH."""
    import torch
    from TTS.tts.configs.xtts_config import XttsArgs, XttsConfig
    from TTS.tts.layers.xtts.dvae import DiscreteVAE
    from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer
    from TTS.tts.models.xtts import Xtts

    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder / "vocab.json")
    config = XttsConfig()
    config.languages = list(LANGUAGES)
    config.model_args = XttsArgs(
        gpt_layers=2,
        gpt_n_model_channels=64,
        gpt_n_heads=2,
        decoder_input_dim=64,
        gpt_num_audio_tokens=1026,
        gpt_start_audio_token=1024,
        gpt_stop_audio_token=1025,
        gpt_use_perceiver_resampler=True,
        tokenizer_file="/somewhere/vocab.json",
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


if __name__ == "__main__":
    build(Path(sys.argv[1]))
