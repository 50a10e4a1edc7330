"""What does a run learn from, what is held out, and whose speech is it? Read once, at the start of each attempt."""

from __future__ import annotations

from dataclasses import dataclass

from libs.voice.dataset import Split, fingerprint, read_pieces, split_pieces
from libs.voice.training_config import PRESETS, TrainingConfig
from libs.voice.training_run import TrainingInputs


@dataclass(frozen=True)
class Speech:
    """`fingerprint`: another dataset under the same name is noticed by it. `speakers`: their numbers, sorted."""

    split: Split
    fingerprint: str
    speakers: tuple[int, ...]

    @property
    def places(self) -> int:
        """As how many speakers a voice of it can speak: from 0 to the highest number."""
        return self.speakers[-1] + 1


def read_speech(inputs: TrainingInputs, config: TrainingConfig) -> Speech:
    """The pieces that `inputs` names, for the preset of `config`. Raises what `read_pieces` does."""
    preset = PRESETS[config.preset]
    pieces = read_pieces(
        inputs.experiment, preset.sample_rate, preset.content_width, filelist=inputs.filelist, needs_f0=config.f0
    )
    split = split_pieces(pieces, config.validation_split, config.seed)
    return Speech(split, fingerprint(pieces), tuple(sorted({piece.speaker for piece in pieces})))
