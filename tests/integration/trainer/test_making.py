"""Voices of files that are there: imported, extracted, merged. What is refused leaves nothing."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from libs.common.events import MakingOptions, VersionRef
from libs.common.jobs import Lane
from libs.common.manifests import sha256_of
from libs.common.storage import open_storage
from libs.voice.artefact import read_voice
from libs.voice.tools import convert_file, inspect_model, write_archive
from services.trainer.voice_files import file_facts
from tests.integration.voice_services import foreign
from tests.integration.voice_services.foreign import make, quarantined
from tests.integration.voice_services.parts import encoder_card, prepared_tones, write_random_index, write_untrained
from tests.integration.voice_services.platform import LEASES_RUN_OUT, Platform, train
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """A tiny RVC voice, as RVC exports it."""
    write_untrained(tmp_path / "given" / "anna.pth")
    return tmp_path / "given" / "anna.pth"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_random_index(tmp_path / "given" / "added.index")
    return tmp_path / "given" / "added.index"


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a voice file of ours."""
    return dict(read_voice(path).weights)


def nothing_is_left(here: Platform, slug: str, job: str) -> bool:
    """No version of the voice, no file of the attempt, no upload."""
    models = here.paths.voice(slug).folder
    room = here.paths.experiment(".jobs").step(job, "make").folder
    files = [path for folder in (models, room, here.paths.staging) for path in folder.rglob("*") if path.is_file()]
    return files == []


async def test_a_file_and_its_index_become_a_version_like_a_trained_one(
    here: Platform, voice: Path, index: Path
) -> None:
    await here.started("trainer")
    options = MakingOptions(
        tool="import",
        model=quarantined(here.paths, "upl_1", voice, "../Ännа.pth"),
        index=quarantined(here.paths, "upl_2", index),
        encoder="builtin",
        rights="Anna is me.",
    )

    event = await here.send(make("job_1", "anna", options), "published")

    made = here.paths.voice("anna")
    version, served = made.version("job_1"), json.loads(made.card.read_text())
    assert sha256_of(version.weights) == sha256_of(voice) == event.weights_sha256 == served["weights"]["sha256"]
    assert sha256_of(version.index) == sha256_of(index) == event.index_sha256
    assert served["files"] == [file_facts("anna.safetensors", version.native)]
    assert read_voice(version.native).content_encoder == encoder_card()
    assert all(torch.equal(value, tensors(voice)[name]) for name, value in tensors(version.native).items())
    assert (served["version"], served["sample_rate"], served["content_width"]) == ("job_1", 16_000, 768)
    assert served["content_encoder"] == encoder_card()
    assert served["quality"]["peak"] > 0
    assert served["origin"]["tool"] == "import"
    assert served["origin"]["rights"] == "Anna is me."
    assert [file["name"] for file in served["origin"]["files"]] == ["../Ännа.pth", "added.index"]
    store = open_storage(here.settings)
    assert b"".join(store.read("voice-models", "anna/job_1/anna.pth")) == voice.read_bytes()
    await until(lambda: not list(here.paths.staging.iterdir()))
    assert not (here.paths.experiment(".jobs").step("job_1", "make").attempt(1) / "room").exists()
    assert not list(made.versions.glob(".*"))


async def test_an_unknown_encoder_is_taken_for_rvcs_and_the_card_says_so(here: Platform, voice: Path) -> None:
    here.start("trainer")

    event = await here.send(
        make("job_1", "anna", MakingOptions(tool="import", model=quarantined(here.paths, "upl_1", voice))), "published"
    )

    assert event.card["content_encoder"] is None
    assert event.card["index"] is None
    assert "HUBERT_PATH" in event.card["notes"][0]
    assert not here.paths.voice("anna").index.exists()


@pytest.mark.parametrize("form", ["rvc", "applio", "voicewright", "safetensors"])
async def test_every_form_comes_back_with_the_same_weights(
    here: Platform, voice: Path, index: Path, tmp_path: Path, form: str
) -> None:
    here.start("trainer")
    if form == "safetensors":
        sent = tmp_path / "anna.safetensors"
        convert_file(voice, sent, "safetensors")
    else:
        sent = tmp_path / "anna.zip"
        card = {"name": "Anna", "content_encoder": encoder_card()}
        write_archive(form, voice, index, card, sent, name="anna")  # type: ignore[arg-type]

    event = await here.send(
        make("job_1", "anna", MakingOptions(tool="import", model=quarantined(here.paths, "upl_1", sent))), "published"
    )

    version = here.paths.voice("anna").version("job_1")
    given, taken = tensors(voice), tensors(version.weights)
    assert given.keys() == taken.keys()
    assert all(torch.equal(value, taken[name]) for name, value in given.items())
    assert version.index.exists() == (form != "safetensors")
    if form != "safetensors":
        assert sha256_of(version.index) == sha256_of(index)
    if form == "voicewright":
        assert event.card["content_encoder"] == encoder_card()


async def test_a_card_of_megabytes_that_comes_with_a_voice_stops_nobody(
    here: Platform, voice: Path, tmp_path: Path
) -> None:
    here.start("trainer")
    rng = random.Random(1)
    card = {"name": "Anna", "notes": [rng.randbytes(1000).hex() for _ in range(1000)], "origin": {"card": {"x": 1}}}
    files = {"anna.pth": voice, "voice.json": json.dumps(card).encode()}
    sent = foreign.zipped(tmp_path / "anna.zip", files)

    event = await here.send(
        make("job_1", "anna", MakingOptions(tool="import", model=quarantined(here.paths, "upl_1", sent))), "published"
    )

    assert event.card["origin"]["card"] == {"name": "Anna"}


REFUSED: dict[str, Callable[[Path, Path], Path]] = {
    "hostile": lambda folder, proof: foreign.hostile_voice(folder / "hostile.pth", proof),
    "old and hostile": lambda folder, proof: foreign.hostile_pickle(folder / "hostile.pth", proof),
    "hostile in a zip": lambda folder, proof: foreign.zipped(
        folder / "hostile.zip", {"a.pth": foreign.hostile_voice(folder / "inner.pth", proof)}
    ),
    "leaves its folder": lambda folder, proof: foreign.zipped(
        folder / "leaving.zip", {"../../a.pth": (folder / "given" / "anna.pth").read_bytes()}
    ),
    "no model": lambda folder, proof: foreign.zipped(folder / "empty.zip", {"read.me": b"nothing"}),
    "noise": lambda folder, proof: _written(folder / "noise.pth", bytes(range(256)) * 40),
    "empty": lambda folder, proof: _written(folder / "empty.pth", b""),
    "silent": lambda folder, proof: _silent(folder / "silent.pth"),
    "a checkpoint": lambda folder, proof: foreign.training_checkpoint(folder / "G_100.pth"),
}


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _silent(path: Path) -> Path:
    write_untrained(path, zeros=True)
    return path


async def test_whatever_is_refused_runs_nothing_and_leaves_nothing(here: Platform, voice: Path, tmp_path: Path) -> None:
    here.start("trainer")
    proof = tmp_path / "ran"
    problems = {}

    for number, (what, build) in enumerate(REFUSED.items()):
        job = f"job_{number}"
        sent = quarantined(here.paths, f"upl_{number}", build(tmp_path, proof))
        event = await here.send(make(job, "anna", MakingOptions(tool="import", model=sent)), "step_failed")
        problems[what] = event.problem
        assert nothing_is_left(here, "anna", job), what

    assert {what: problem["code"] for what, problem in problems.items()} == dict.fromkeys(REFUSED, "model_file_refused")
    assert "os.system" in problems["hostile"]["detail"] or "posix.system" in problems["hostile"]["detail"]
    assert "Extract" in problems["a checkpoint"]["detail"]
    assert not proof.exists()


async def test_an_index_of_another_width_is_refused_with_its_voice(here: Platform, voice: Path, tmp_path: Path) -> None:
    here.start("trainer")
    narrow = foreign.narrow_index(tmp_path / "narrow.index")
    options = MakingOptions(
        tool="import",
        model=quarantined(here.paths, "upl_1", voice),
        index=quarantined(here.paths, "upl_2", narrow),
    )

    event = await here.send(make("job_1", "anna", options), "step_failed")

    assert event.problem["code"] == "model_file_refused"
    assert "256" in event.problem["detail"]
    assert "768" in event.problem["detail"]
    assert nothing_is_left(here, "anna", "job_1")


async def test_a_file_that_is_no_longer_kept_or_was_changed_is_told(here: Platform, voice: Path) -> None:
    here.start("trainer")
    sent = quarantined(here.paths, "upl_1", voice)
    changed = quarantined(here.paths, "upl_2", voice).model_copy(update={"sha256": "0" * 64})
    here.paths.staged_upload("upl_1").original.unlink()

    gone = await here.send(make("job_1", "anna", MakingOptions(tool="import", model=sent)), "step_failed")
    other = await here.send(make("job_2", "anna", MakingOptions(tool="import", model=changed)), "step_failed")

    assert gone.problem["code"] == "not_found"
    assert "Send the files again." in gone.problem["suggested_actions"]
    assert "not what was received" in other.problem["detail"]


async def test_a_voice_is_extracted_from_a_training_checkpoint(here: Platform, tmp_path: Path) -> None:
    here.start("trainer")
    checkpoint = foreign.training_checkpoint(tmp_path / "G_100.pth")
    sent = quarantined(here.paths, "upl_1", checkpoint)

    event = await here.send(make("job_1", "anna", MakingOptions(tool="extract", model=sent)), "published")

    weights = here.paths.voice("anna").version("job_1").weights
    state = torch.load(checkpoint, weights_only=True)["model"]
    taken = tensors(weights)
    assert inspect_model(weights).kind == "voice"
    assert set(taken) == {name for name in state if not name.startswith("enc_q.")}
    assert all(torch.equal(value, state[name].half()) for name, value in taken.items())
    assert event.card["origin"]["form"] == "checkpoint"
    assert event.card["model"]["training"] == "7epoch"


async def test_two_voices_are_merged_and_voices_that_do_not_mix_are_not(here: Platform, tmp_path: Path) -> None:
    here.start("trainer")
    for number, encoder in enumerate(("builtin", "builtin", "hubert")):
        path = tmp_path / f"{number}.pth"
        write_untrained(path, seed=number)
        sent = quarantined(here.paths, f"upl_{number}", path)
        options = MakingOptions(tool="import", model=sent, encoder=encoder)  # type: ignore[arg-type]
        await here.send(make(f"job_{number}", f"voice-{number}", options), "published")
    first, second, third = (VersionRef(voice=f"voice-{n}", version=f"job_{n}") for n in range(3))

    event = await here.send(
        make("job_3", "both", MakingOptions(tool="merge", first=first, second=second, share=0.25)), "published"
    )
    refused = await here.send(
        make("job_4", "none", MakingOptions(tool="merge", first=first, second=third)), "step_failed"
    )
    gone = await here.send(
        make("job_5", "none", MakingOptions(tool="merge", first=first, second=VersionRef(voice="x", version="y"))),
        "step_failed",
    )

    a, b, mixed = (
        tensors(here.paths.voice(slug).version(job).weights)
        for slug, job in (("voice-0", "job_0"), ("voice-1", "job_1"), ("both", "job_3"))
    )
    for name, value in mixed.items():
        torch.testing.assert_close(value.float(), 0.25 * a[name].float() + 0.75 * b[name].float(), atol=2e-3, rtol=2e-3)
    assert event.card["content_encoder"] == encoder_card()
    assert [one["voice"] for one in event.card["origin"]["voices"]] == ["voice-0", "voice-1"]
    assert refused.problem["code"] == "invalid_input"
    assert "content encoders" in refused.problem["detail"]
    assert gone.problem["code"] == "not_found"
    assert nothing_is_left(here, "none", "job_4")


async def test_a_trainer_that_is_killed_in_an_import_loses_nothing_and_the_next_one_completes_it(
    here: Platform, voice: Path, index: Path
) -> None:
    first = await here.started("trainer", **LEASES_RUN_OUT)
    options = MakingOptions(
        tool="import",
        model=quarantined(here.paths, "upl_1", voice),
        index=quarantined(here.paths, "upl_2", index),
        encoder="builtin",
    )
    room = here.paths.experiment(".jobs").step("job_1", "make").attempt(1) / "room"

    await here.bus.send_command(make("job_1", "anna", options), Lane.normal)
    await until(room.is_dir)
    first.signal(signal.SIGKILL)
    here.start("trainer", **LEASES_RUN_OUT)
    event = await here.events.wait_for("published", job="job_1", seconds=90)

    assert event.token > 1
    assert sha256_of(here.paths.voice("anna").version("job_1").weights) == sha256_of(voice)
    await until(lambda: not list(here.paths.staging.iterdir()))
    assert not room.exists()


async def test_an_import_does_not_wait_behind_a_training(here: Platform, voice: Path) -> None:
    prepared = prepared_tones(here.paths)
    await here.started("trainer", TRAINING_CONCURRENCY=1)
    await here.bus.send_command(train("job_1", prepared, total_steps=1_000_000, max_training_seconds=600), Lane.normal)
    await here.events.wait_for("step_started", job="job_1")

    sent = quarantined(here.paths, "upl_1", voice)
    await here.send(make("job_2", "ben", MakingOptions(tool="import", model=sent)), "published")

    assert here.events.of("trained", "job_1") == []
    await here.cancel("job_1")
    await here.events.wait_for("step_cancelled", job="job_1")


async def test_an_import_that_is_cancelled_leaves_no_version(here: Platform, voice: Path) -> None:
    await here.started("trainer")
    sent = quarantined(here.paths, "upl_1", voice)
    room = here.paths.experiment(".jobs").step("job_1", "make").attempt(1) / "room"

    await here.bus.send_command(make("job_1", "anna", MakingOptions(tool="import", model=sent)), Lane.normal)
    await until(room.is_dir)
    await here.cancel("job_1")
    await here.events.wait_for("step_cancelled", job="job_1")

    assert not room.exists()
    assert not here.paths.voice("anna").card.exists()
    assert here.paths.staged_upload("upl_1").original.exists()  # a person may take the job up again
