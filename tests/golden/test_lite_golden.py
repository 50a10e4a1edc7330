"""The `lite` decoder and the packaged content encoder still compute what they computed when this was stored.

`make golden` renews the stored numbers, on purpose.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.voice.content_small import SmallContentEncoder
from libs.voice.lite import LiteConfig, LiteSynthesizer

STORED = Path(__file__).with_name("lite.json")


def glissando() -> np.ndarray[Any, np.dtype[np.float32]]:
    """One second at 16 kHz of a buzz between two formant-like bands, rising, with a pause in the middle."""
    time = np.arange(16_000) / 16_000
    phase = 2 * np.pi * (110 * time + 40 * time**2)
    wave = sum(np.sin(k * phase) * np.exp(-(((k * 150 - 700 - 900 * time) / 400) ** 2)) for k in range(1, 30))
    return np.asarray(0.2 * wave * (np.abs(time - 0.5) > 0.05), dtype=np.float32)


def compute() -> dict[str, Any]:
    """Numbers that depend on every weight and every constant."""
    synthesizer = LiteSynthesizer(LiteConfig(width=16, hidden=32, blocks=2)).eval()
    with torch.no_grad():
        for number, parameter in enumerate(synthesizer.parameters()):
            values = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * (number + 1) * 0.7)
            parameter.copy_((0.3 * values).reshape(parameter.shape))
    frames = 60
    content = torch.sin(torch.arange(frames * 768, dtype=torch.float64).reshape(frames, 768) * 0.01).abs().float()
    f0 = torch.linspace(100.0, 300.0, frames)
    f0[20:30] = 0
    sound = synthesizer.render(content, f0, torch.ones(frames, dtype=torch.int64), 0, torch.Generator().manual_seed(5))
    encoder = SmallContentEncoder()
    features = encoder.encode(glissando())
    return {
        "content_encoder": encoder.checksum,
        "sound": [round(float(value), 5) for value in sound[::301]],
        "rms": round(float(sound.square().mean().sqrt()), 5),
        "phones": features.argmax(axis=1).tolist(),
        "posteriors": [round(float(value), 4) for value in features[::7].max(axis=1)],
    }


def test_decoder_and_encoder_give_the_stored_numbers(renew_golden: bool) -> None:
    if renew_golden:
        STORED.write_text(json.dumps(compute(), indent=1) + "\n", encoding="utf-8")
    stored = json.loads(STORED.read_text(encoding="utf-8"))

    now = compute()

    assert now["content_encoder"] == stored["content_encoder"]
    np.testing.assert_allclose(now["sound"], stored["sound"], rtol=1e-3, atol=1e-3 * stored["rms"] * 10)
    assert abs(now["rms"] - stored["rms"]) < 1e-3 * stored["rms"]
    np.testing.assert_allclose(now["posteriors"], stored["posteriors"], atol=5e-3)
    assert np.mean(np.array(now["phones"]) == np.array(stored["phones"])) > 0.95
