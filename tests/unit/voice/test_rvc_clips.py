"""Are several clips in one pass, and only their wanted frames, the same as each clip as a whole?"""

from __future__ import annotations

import pytest
import torch

from libs.common.errors import InvalidInput
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.synthesizer import Clip, ClipSynthesizer

SHAPES = {
    "alike": ((240, 100, 140), (240, 100, 140)),
    "of four lengths": ((240, 100, 140), (300, 100, 200), (270, 60, 250), (260, 0, 160)),
    "wanted to their ends": ((245, 20, 245), (300, 0, 300), (90, 10, 85)),
}


def voice(preset: str = "rvc-tiny") -> RvcSynthesizer:
    torch.manual_seed(3)
    network = SynthesizerNetwork(CONFIGS[preset], with_posterior=False)
    for parameter in network.parameters():  # a flow that moves, a source that is heard
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return RvcSynthesizer(network, torch.device("cpu"))


def clips(shapes: tuple[tuple[int, int, int], ...], speaker: int = 1) -> list[Clip]:
    chance, values = torch.Generator().manual_seed(1), torch.Generator().manual_seed(9)
    return [
        Clip(
            torch.randn(frames, 768, generator=values),
            torch.where(torch.arange(frames) % 40 < 30, 150 + 100 * torch.rand(frames, generator=values), 0.0),
            torch.randint(1, 255, (frames,), generator=values),
            speaker,
            chance,
            first,
            last,
        )
        for frames, first, last in shapes
    ]


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_clips_in_one_pass_are_the_clips_one_by_one(shapes: tuple[tuple[int, int, int], ...]) -> None:
    ours = voice()
    hop = ours.sample_rate // 100

    together = ours.render_clips(clips(shapes))
    one_by_one = [
        ours.render(c.content, c.f0_hz, c.coarse, c.speaker_id, c.generator)[c.first * hop : c.last * hop]
        for c in clips(shapes)
    ]

    for found, expected in zip(together, one_by_one, strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        assert expected.std() > 1e-3


def test_the_decoders_reach_is_not_understated() -> None:
    for preset in ("rvc-tiny", "rvc-v2-40k"):
        decoder = voice(preset).network.dec
        config = CONFIGS[preset]
        frames, reach, middle = 80, decoder.context_frames, 40
        z, source = torch.randn(1, config.inter_channels, frames), torch.randn(1, 1, frames * config.hop_length)
        g = torch.randn(1, config.gin_channels, 1)
        changed, changed_source = z.clone(), source.clone()
        changed[:, :, : middle - reach] += 1
        changed_source[:, :, : (middle - reach) * config.hop_length] += 1

        with torch.inference_mode():
            before, after = decoder.decode(z, source, g), decoder.decode(changed, changed_source, g)

        kept = slice(middle * config.hop_length, None)
        torch.testing.assert_close(after[..., kept], before[..., kept], atol=1e-6, rtol=0)
        assert (after - before).abs().max() > 1e-4


def test_an_rvc_voice_renders_clips_and_refuses_an_unknown_speaker() -> None:
    ours = voice()

    assert isinstance(ours, ClipSynthesizer)
    with pytest.raises(InvalidInput, match="this voice has 0 to") as refusal:
        ours.render_clips(clips(((50, 0, 50),), speaker=99))
    assert refusal.value.field == "speaker_id"
