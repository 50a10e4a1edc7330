"""A Whisper that always says one sentence: `python -m tests.whisper_tiny FOLDER`, where ctranslate2 is.

The true format and the true arithmetic, very small. Whatever it hears, the place in the text alone decides what comes
next: each place's embedding points at that of one token, and all layers add nothing. Nothing of it is ever committed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

SENTENCE = "the other and the other in that"
LANGUAGES = ("en", "de", "es", "fr", "tr", "zh")
WIDTH = 96
PROMPT = 2
"""Start and no timestamps: what stands before the text. A vocabulary so small is taken for one of English alone."""


def tokens_of() -> tuple[dict[str, int], list[str]]:
    """All tokens with their numbers, bytes first; and the special ones."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>", *(f"<|{number * 0.02:.2f}|>" for number in range(1501))]
    words = [f"Ġ{word}" for word in dict.fromkeys(SENTENCE.split())]
    return {token: number for number, token in enumerate(letters + words + special)}, special


def build(folder: Path) -> None:
    """A folder as faster-whisper takes it: `model.bin`, `config.json`, `vocabulary.json`, `tokenizer.json`."""
    import ctranslate2
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

    numbers, special = tokens_of()
    end, start = numbers["<|endoftext|>"], numbers["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=len(numbers),
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        max_target_positions=448,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    decoder = model.model.decoder
    wanted = [*(numbers[f"Ġ{word}"] for word in SENTENCE.split()), end]
    with torch.no_grad():
        for layer in decoder.layers:
            for last in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                last.weight.zero_()
                last.bias.zero_()
        tokens = torch.nn.functional.normalize(torch.randn(len(numbers), WIDTH), dim=1)
        decoder.embed_tokens.weight.copy_(tokens)
        decoder.embed_positions.weight.zero_()
        for place, token in enumerate(wanted):
            decoder.embed_positions.weight[PROMPT - 1 + place] = 20 * tokens[token]
    with tempfile.TemporaryDirectory() as made:
        plain = Path(made)
        model.save_pretrained(plain)
        # ids of languages and of what is never said, as every Whisper's
        generation = json.loads((plain / "generation_config.json").read_text())
        generation |= {"lang_to_id": {f"<|{each}|>": numbers[f"<|{each}|>"] for each in LANGUAGES}}
        generation |= {"alignment_heads": [[0, 0]], "no_timestamps_token_id": numbers["<|notimestamps|>"]}
        (plain / "generation_config.json").write_text(json.dumps(generation))
        (plain / "vocab.json").write_text(json.dumps({k: v for k, v in numbers.items() if k not in special}))
        (plain / "merges.txt").write_text("#version: 0.2\n")
        ours = Tokenizer(models.BPE({k: v for k, v in numbers.items() if k not in special}, []))
        ours.pre_tokenizer, ours.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        ours.add_special_tokens(special)
        ours.save(str(plain / "tokenizer.json"))
        tokenizer = WhisperTokenizer.from_pretrained(plain)
        tokenizer.save_pretrained(plain)
        ours.save(str(plain / "tokenizer.json"))
        (plain / "preprocessor_config.json").write_text(json.dumps({"feature_size": 80}))
        converter = ctranslate2.converters.TransformersConverter(
            str(plain), copy_files=["tokenizer.json", "preprocessor_config.json"]
        )
        converter.convert(str(folder))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
