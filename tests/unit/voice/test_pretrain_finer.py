"""The second stage of the content encoder's making: sounds exactly known, and steps that can be resumed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.voice.content_network import ContentConfig, ContentNetwork
from libs.voice.content_small import FINER_SCALE, SmallContentEncoder
from libs.voice.phones import PHONES
from scripts.pretrain import finer, synthetic
from scripts.pretrain.articulation import FEATURES, SILENT, of_cmu_phones, parts_of
from scripts.pretrain.encoder import ship
from scripts.pretrain.espeak import Said, say
from scripts.pretrain.finer import FinerTraining, Run, start_from
from scripts.pretrain.pieces import Piece, draw_pieces, of_synthetic_speech, smoothing
from scripts.pretrain.probes import articulation_read
from scripts.pretrain.synthetic import LANGUAGES, articulation_of, made_up_words, make, read, write
from tests.factories_audio import make_speech

ROOT = Path(__file__).parents[3]
SMALL = ContentConfig(width=16, hidden=32, blocks=2, finer=8)
SHORT = FinerTraining(steps=4, real=2, synthetic=1, frames=60, warmup=1, frozen=1)


def named(row: np.ndarray) -> set[str]:
    return {name for name, value in zip(FEATURES, row, strict=True) if value}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spoken_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "speech.npz"
    write(path, make(0.15, seed=1, languages=("en-us", "de"), variants=("", "f2")))
    return path


@pytest.fixture
def pieces(spoken_file: Path) -> list[Piece]:
    found = of_synthetic_speech(spoken_file)
    for number, piece in enumerate(found):
        piece.number = number % 2
        # as if a judge had heard the vowels of these
        piece.phones = torch.zeros(len(PHONES), piece.phones.shape[1])
        piece.phones[3] = (piece.articulation[FEATURES.index("vowel")] == 1).float()
    return found


def started(tmp_path: Path) -> tuple[ContentConfig, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    ship(ContentNetwork(replace(SMALL, finer=0)), tmp_path / "first", {"data": "test"})
    return start_from(tmp_path / "first" / "voicewright-content.safetensors", SMALL.finer)


def test_a_phone_of_any_language_is_known_by_how_it_is_made() -> None:
    assert [named(part) for part in parts_of("p")] == [{"stop", "labial"}]
    assert [named(part) for part in parts_of("ɛ̃")] == [{"voiced", "vowel", "nasal", "mid", "open", "front"}]
    assert [named(part) for part in parts_of("yː")] == [{"voiced", "vowel", "close", "front", "rounded"}]
    assert [named(part) for part in parts_of("ç")] == [{"fricative", "palatal"}]
    assert parts_of("?") == []


def test_a_diphthong_and_an_affricate_are_two_sounds_in_order() -> None:
    assert [named(part) & {"open", "close"} for part in parts_of("aɪ")] == [{"open"}, {"close"}]
    assert [named(part) & {"stop", "fricative"} for part in parts_of("tʃ")] == [{"stop"}, {"fricative"}]


def test_every_phone_of_the_judge_has_an_articulation_of_its_own() -> None:
    table = of_cmu_phones()

    assert table.shape == (len(PHONES), len(FEATURES))
    assert all((table[number] == SILENT).all() for number in range(3))
    assert len({row.tobytes() for row in table[3:]}) == len(PHONES) - 3


def test_espeak_tells_what_it_says_and_when() -> None:
    said = say("Papa.", "de")

    sounds = [named(parts_of(ipa)[0]) & {"stop", "open"} for _, ipa in said.phones[:4]]
    assert sounds == [{"stop"}, {"open"}, {"stop"}, {"open"}]
    starts = [first for first, _ in said.phones]
    assert starts == sorted(starts)
    assert starts[0] >= 0
    assert starts[-1] <= len(said.wave) + said.sample_rate // 100
    known = articulation_of(said, len(said.wave) * 50 // said.sample_rate)
    vowel = known[:, FEATURES.index("vowel")]
    energy = np.array([np.square(part).mean() for part in np.array_split(said.wave, len(vowel))])
    assert energy[vowel == 1].mean() > 3 * energy[vowel == 0].mean()


def test_a_voice_that_espeak_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no voice 'nowhere'"):
        say("hello", "nowhere")


@pytest.mark.parametrize("language", LANGUAGES)
def test_made_up_words_of_each_language_are_mostly_known_sounds(language: str) -> None:
    said = say(made_up_words(language, random.Random(1), 6), language)

    known = articulation_of(said, len(said.wave) * 50 // said.sample_rate)

    assert (~np.isnan(known[:, 0])).mean() > 0.85
    assert np.nanmean(known[:, FEATURES.index("vowel")]) > 0.2


def test_a_short_pause_without_a_name_is_not_called_silence() -> None:
    said = Said(np.zeros(16000, np.float32), 16000, [(0, ""), (8000, ""), (8800, "a")])

    known = articulation_of(said, 49)

    assert known[0, FEATURES.index("silent")] == 1
    assert np.isnan(known[26]).all()
    assert known[40, FEATURES.index("vowel")] == 1


def test_two_processes_make_the_same_speech() -> None:
    program = (
        "import hashlib; from scripts.pretrain.espeak import say; "
        "print([hashlib.sha256(say(text, voice).wave.tobytes()).hexdigest() for text, voice in "
        "(('tamelo kirusan', 'en-us+f2'), ('bonjour', 'fr'), ('tamelo kirusan', 'en-us+f2'))])"
    )

    made = [
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]

    assert made[0] == made[1]
    assert len(made[0]) > 3 * 64


def test_speech_is_read_as_it_was_written(tmp_path: Path) -> None:
    spoken = make(0.05, seed=1, languages=("en-us", "de"), variants=("", "f2"))

    write(tmp_path / "speech.npz", spoken)

    kept = read(tmp_path / "speech.npz")
    assert [one.voice for one in kept] == [one.voice for one in spoken]
    for one, other in zip(kept, spoken, strict=True):
        np.testing.assert_allclose(one.mel, other.mel, atol=0.01)
        np.testing.assert_array_equal(one.articulation, other.articulation)


def test_voices_and_languages_to_measure_with_are_kept_apart(tmp_path: Path) -> None:
    synthetic.main([str(tmp_path / "speech.npz"), "--minutes", "0.5"])

    learned = {one.voice for one in read(tmp_path / "speech.npz")}
    unseen = {one.voice for one in read(tmp_path / "speech-unseen.npz")}
    assert not learned & unseen
    assert not {voice.split("+")[0] for voice in learned} & set(synthetic.UNSEEN_LANGUAGES)
    assert {voice.split("+")[0] for voice in unseen} >= set(synthetic.UNSEEN_LANGUAGES)


def test_smoothing_keeps_formants_and_takes_harmonics_away() -> None:
    bands = torch.arange(80) + 0.5
    formants, harmonics = torch.cos(bands * torch.pi * 4 / 80), torch.cos(bands * torch.pi * 30 / 80)

    smooth = smoothing(80) @ (formants + harmonics)

    torch.testing.assert_close(smooth, formants, atol=1e-4, rtol=0)


def test_crops_of_both_kinds_have_one_shape_and_what_is_not_known_stays_so(pieces: list[Piece]) -> None:
    pieces[0].articulation[:, :] = torch.nan

    crops = draw_pieces(pieces[1:], 3, pieces[:1], 2, 60, torch.Generator().manual_seed(0))

    assert crops.mel.shape == crops.smooth.shape == (5, 80, 60)
    assert crops.phones.shape == (5, len(PHONES), 30)
    assert crops.articulation.shape == (5, len(FEATURES), 30)
    assert crops.articulation[3:].isnan().all()


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(
    pieces: list[Piece], tmp_path: Path
) -> None:
    config, start = started(tmp_path)
    whole = Run(config, start, 2, SHORT, tmp_path / "whole")
    for _ in range(4):
        whole.advance(pieces, pieces)
    first = Run(config, start, 2, SHORT, tmp_path / "parts")
    for _ in range(2):
        first.advance(pieces, pieces)
    first.keep()

    second = Run(config, start, 2, SHORT, tmp_path / "parts")
    assert second.step == 2
    for _ in range(2):
        second.advance(pieces, pieces)

    for name, value in whole.average.state_dict().items():
        torch.testing.assert_close(second.average.state_dict()[name], value, msg=name)


def test_a_checkpoint_of_another_recipe_is_refused(pieces: list[Piece], tmp_path: Path) -> None:
    config, start = started(tmp_path)
    Run(config, start, 2, SHORT, tmp_path / "run").keep()

    with pytest.raises(ValueError, match="another recipe"):
        Run(config, start, 2, replace(SHORT, noise=0.5), tmp_path / "run")


def test_weights_that_are_no_first_stage_are_refused(tmp_path: Path) -> None:
    config, start = started(tmp_path)
    del start["head.weight"]

    with pytest.raises(ValueError, match=r"head\.weight"):
        Run(config, start, 2, SHORT, tmp_path / "run")


def test_training_lowers_every_loss_of_one_batch(pieces: list[Piece], tmp_path: Path) -> None:
    config, start = started(tmp_path)
    training = replace(SHORT, steps=60, learning_rate=5e-3, dropout=0.0)
    run = Run(config, start, 2, training, tmp_path / "run")
    crops = draw_pieces(pieces, 2, pieces, 1, 60, torch.Generator().manual_seed(0))

    def losses() -> dict[str, float]:
        with torch.no_grad():
            found = run.learner.losses(crops, training, torch.Generator().manual_seed(1))
        return {name: float(loss) for name, loss in found.items()}

    before = losses()
    for _ in range(60):
        run.advance(pieces, pieces)
    after = losses()

    assert after["articulation"] < before["articulation"]
    assert after["redrawing"] < before["redrawing"]
    assert after["phones"] < before["phones"]
    frozen = run.learner.encoder.blocks[0].state_dict()
    assert all(torch.equal(frozen[name], start[f"blocks.0.{name}"]) for name in frozen)


def test_the_shipped_file_gives_phones_and_finer_features(pieces: list[Piece], tmp_path: Path) -> None:
    config, start = started(tmp_path)
    run = Run(config, start, 2, SHORT, tmp_path / "run")
    ship(run.average, tmp_path / "second", {"data": "test"}, version=2)
    encoder = SmallContentEncoder(tmp_path / "second" / "voicewright-content.safetensors")
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)

    features = encoder.encode(wave)

    assert encoder.name == "voicewright-content-2"
    assert encoder.used_width == len(PHONES) + SMALL.finer
    assert features.shape == (49, 768)
    finer = features[:, len(PHONES) : encoder.used_width] / FINER_SCALE
    np.testing.assert_allclose(finer.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(finer.std(axis=1), 1, atol=0.02)
    assert not features[:, encoder.used_width :].any()
    together = encoder.encode_batch([wave, wave[:8000]])
    np.testing.assert_allclose(together[0], features, atol=1e-4)
    np.testing.assert_allclose(together[1], encoder.encode(wave[:8000]), atol=1e-4)
    sidecar = json.loads((tmp_path / "second" / "voicewright-content.json").read_text(encoding="utf-8"))
    assert sidecar["config"]["finer"] == SMALL.finer


def test_the_script_goes_on_where_it_was_paused_and_writes_what_it_measured(
    spoken_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started(tmp_path)
    unseen = spoken_file.with_name("speech-unseen.npz")
    unseen.write_bytes(spoken_file.read_bytes())
    chance = np.random.default_rng(0)
    labels = {}
    for speaker in range(3):
        name = f"{speaker}-1-0000.flac"
        make_speech(2.0, "en-us", tmp_path / "speech" / name, rate=16_000)
        labels[name] = chance.integers(0, len(PHONES), (5, 200), dtype=np.uint8)
    np.savez(tmp_path / "labels.npz", allow_pickle=False, **labels)
    command = [
        str(tmp_path / "speech"), str(tmp_path / "labels.npz"), str(spoken_file),
        str(tmp_path / "first" / "voicewright-content.safetensors"), str(tmp_path / "second"),
        "--finer", "8", "--steps", "3", "--frozen", "1",
    ]  # fmt: skip

    finer.main([*command, "--stop", "1"])
    finer.main(command)

    sidecar = json.loads((tmp_path / "second" / "voicewright-content.json").read_text(encoding="utf-8"))
    assert sidecar["steps_done"] == 3
    assert sidecar["speakers"] == 2
    assert set(sidecar["measured"]) > {"phone_accuracy", "nearest_phone_together", "articulation_de"}
    assert SmallContentEncoder(tmp_path / "second" / "voicewright-content.safetensors").checksum == sidecar["sha256"]
    assert "step 3 " in capsys.readouterr().out


def test_articulation_that_is_read_perfectly_counts_one_and_guessing_counts_zero(pieces: list[Piece]) -> None:
    class Knows(ContentNetwork):
        """Gives away the articulation itself."""

        def forward(self, mel: torch.Tensor, lengths: object = None) -> torch.Tensor:
            truth = next(piece.articulation for piece in pieces if piece.mel.shape[1] == mel.shape[2])
            return torch.cat((torch.zeros(SMALL.classes, truth.shape[1]), truth.nan_to_num()))[None]

    exact = torch.nn.Linear(len(FEATURES), len(FEATURES))
    with torch.no_grad():
        exact.weight.copy_(torch.eye(len(FEATURES)))
        exact.bias.fill_(-0.5)
    always = torch.nn.Linear(len(FEATURES), len(FEATURES))
    with torch.no_grad():
        always.weight.zero_()
        always.bias.fill_(1.0)

    assert set(articulation_read(Knows(SMALL), exact, pieces).values()) == {1.0}
    assert set(articulation_read(Knows(SMALL), always, pieces).values()) == {0.0}
