"""What must hold of any conversion: the voice is the target's, the words are the source's, and training is why.

Two `lite` voices are trained for a short while on synthetic speech, by the real pieces from recordings to voice file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.voice.artefact import load_synthesizer
from libs.voice.chain import Converter
from libs.voice.content_small import SmallContentEncoder
from libs.voice.evaluation import measure
from libs.voice.experiment import ExperimentFolders, load_array, write_filelist
from libs.voice.likeness import NeuralEmbedding, similarity
from libs.voice.pitch import Pitch
from libs.voice.preparation import PreparationSettings, ensure_mute, prepare_recording
from libs.voice.retrieval import RetrievalIndex, build_index, index_of
from libs.voice.training import TrainingInputs, train
from libs.voice.training_config import PRESETS, TrainingConfig
from tests.comparing import SAME
from tests.factories_audio import make_recordings, speech

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Wave = NDArray[np.float32]
RATE = 16_000
STEPS = 150
WOMAN, MAN, SOURCE = "en-us+f4", "en-us+m7", "en-us+m3"


@dataclass(frozen=True)
class Voice:
    """A trained voice, the voice at step 0, its features and a clip of its speaker that it has not seen."""

    converter: Converter
    untrained: Converter
    features: list[Wave]
    reference: Wave
    shift: float

    def say(self, source: Wave, **settings: float) -> Wave:
        """The source in this voice, at 16 kHz."""
        return _sound(self.converter, source, self.shift, **settings)


def _sound(converter: Converter, source: Wave, shift: float, **settings: float) -> Wave:
    wave, rate = converter.convert(source, RATE, pitch_shift=shift, **settings)  # type: ignore[arg-type]
    return resample(wave, rate, RATE)


def _height(wave: Wave, pitch: Pitch) -> float:
    f0 = pitch.f0(wave)
    return float(12 * np.log2(f0[f0 > 0]).mean())


def _voice(folder: Path, speaker: str, source: Wave) -> Voice:
    encoder, pitch, rate = SmallContentEncoder(), Pitch(), PRESETS["lite"].sample_rate
    folders = ExperimentFolders(folder / "experiment")
    for number, path in enumerate(make_recordings(folder / "recordings", 4, 12.0, voice=speaker)):
        prepare_recording(path, number, folders, PreparationSettings(sample_rate=rate), encoder, pitch)
    write_filelist(folders, mute=ensure_mute(folder / "mute", rate, encoder))
    inputs = TrainingInputs(experiment=folders.root, run=folder / "run")
    trained = train(inputs, TrainingConfig(preset="lite", total_steps=STEPS), lambda _: None)
    barely = train(
        TrainingInputs(experiment=folders.root, run=folder / "barely"),
        TrainingConfig(preset="lite", total_steps=1, learning_rate=1e-7),
        lambda _: None,
    )
    features = [load_array(folders.features / f"{name}.npy").astype(np.float32) for name in folders.names()]
    reference = speech(8.0, speaker, seed=6, rate=RATE)
    index = index_of(build_index(features))
    return Voice(
        Converter(load_synthesizer(trained.voice), encoder, pitch, index),
        Converter(load_synthesizer(barely.voice), encoder, pitch, index),
        features,
        reference,
        float(round(_height(reference, pitch) - _height(source, pitch))),
    )


@pytest.fixture(scope="module")
def source() -> Wave:
    return speech(8.0, SOURCE, seed=2, rate=RATE)


@pytest.fixture(scope="module")
def other_source() -> Wave:
    return speech(8.0, SOURCE, seed=5, rate=RATE)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory, source: Wave) -> dict[str, Voice]:
    return {speaker: _voice(tmp_path_factory.mktemp("voice"), speaker, source) for speaker in (WOMAN, MAN)}


@pytest.fixture(scope="module")
def score(voices: dict[str, Voice]) -> Callable[[Wave, Wave], dict[str, float]]:
    """Measures of (source, result) with the woman as target."""

    def of(source: Wave, result: Wave) -> dict[str, float]:
        woman = voices[WOMAN]
        row = measure(source, result, woman.reference, Pitch().f0, shift=woman.shift)
        return {name: value for name, value in row.items() if isinstance(value, float)}

    return of


def test_swap_one_source_into_two_targets_is_each_nearer_its_own_target(voices: dict[str, Voice], source: Wave) -> None:
    embedding = NeuralEmbedding()
    woman, man = voices[WOMAN], voices[MAN]

    as_woman, as_man = woman.say(source), man.say(source)

    assert similarity(as_woman, woman.reference, embedding) > similarity(as_man, woman.reference, embedding) + 0.05
    assert similarity(as_man, man.reference, embedding) > similarity(as_woman, man.reference, embedding) + 0.05


def test_content_two_sources_into_one_target_each_agree_more_with_their_own_source(
    voices: dict[str, Voice],
    score: Callable[[Wave, Wave], dict[str, float]],
    source: Wave,
    other_source: Wave,
) -> None:
    one, two = voices[WOMAN].say(source), voices[WOMAN].say(other_source)

    assert score(source, one)["phone_agreement"] > 1.5 * score(source, two)["phone_agreement"]
    assert score(other_source, two)["phone_agreement"] > 1.5 * score(other_source, one)["phone_agreement"]


def test_the_result_is_nearer_the_target_than_the_source_was_and_keeps_the_melody(
    voices: dict[str, Voice], score: Callable[[Wave, Wave], dict[str, float]], source: Wave
) -> None:
    before, after = score(source, source), score(source, voices[WOMAN].say(source))

    assert after["similarity_target"] > before["similarity_target"] + 0.1
    assert after["f0_correlation"] > 0.95
    assert after["f0_rmse_cents"] < 60


def test_weights_at_step_zero_score_worse(
    voices: dict[str, Voice], score: Callable[[Wave, Wave], dict[str, float]], source: Wave
) -> None:
    woman = voices[WOMAN]

    trained = score(source, woman.say(source))
    untrained = score(source, _sound(woman.untrained, source, woman.shift))

    assert untrained["similarity_target"] < trained["similarity_target"] - 0.05
    assert untrained["phone_agreement"] < trained["phone_agreement"] - 0.05


def test_a_shuffled_index_scores_worse(
    voices: dict[str, Voice], score: Callable[[Wave, Wave], dict[str, float]], source: Wave
) -> None:
    woman = voices[WOMAN]
    shuffled = _with_shuffled_rows(woman.features)
    wrong = Converter(woman.converter.synthesizer, woman.converter.encoder, woman.converter.pitch, shuffled)

    right = score(source, woman.say(source, index_rate=1.0))
    worse = score(source, _sound(wrong, source, woman.shift, index_rate=1.0))

    assert worse["phone_agreement"] < right["phone_agreement"] - 0.05


def test_the_same_seed_converts_to_the_same_samples(voices: dict[str, Voice], source: Wave) -> None:
    first, again = voices[MAN].say(source), voices[MAN].say(source)

    np.testing.assert_allclose(first, again, rtol=0, atol=SAME / 2**15)


def test_silence_is_converted_to_silence(voices: dict[str, Voice]) -> None:
    result = voices[WOMAN].say(np.zeros(3 * RATE, np.float32))

    assert np.sqrt(np.square(result).mean()) < 1e-3


class _ShuffledRows:
    """A faiss index that finds the nearest rows and answers with the vectors of others."""

    def __init__(self, index: Any) -> None:
        self._index, self.ntotal, self.d = index, index.ntotal, index.d
        self._others = np.random.default_rng(0).permutation(RetrievalIndex(index).vectors)

    def search_and_reconstruct(self, rows: Wave, count: int) -> tuple[Any, Any, Any]:
        distances, found = self._index.search(rows, count)
        return distances, found, self._others[found]


def _with_shuffled_rows(features: list[Wave]) -> RetrievalIndex:
    return RetrievalIndex(_ShuffledRows(build_index(features).added))
