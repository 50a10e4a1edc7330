"""Voices that come from elsewhere: taken in, tried, used, taken out again, by the command line's own client."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from libs.client.api import Client
from libs.client.cli import app
from libs.client.errors import ApiProblem
from libs.client.models import Job
from libs.common.manifests import sha256_of
from tests.factories_audio import make_speech
from tests.flows.conftest import Platform
from tests.integration.voice_services import foreign
from tests.integration.voice_services.parts import write_random_index, write_untrained

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny RVC voice with its index, alone and in an archive, and what should be refused."""
    folder = tmp_path_factory.mktemp("foreign")
    write_untrained(folder / "anna.pth")
    write_untrained(folder / "ben.pth", seed=1)
    write_random_index(folder / "added_IVF10_Flat_nprobe_1_anna_v2.index")
    foreign.zipped(
        folder / "rvc.zip",
        {"anna.pth": folder / "anna.pth", "added.index": folder / "added_IVF10_Flat_nprobe_1_anna_v2.index"},
    )
    foreign.zipped(folder / "traversal.zip", {"../../../models/evil/evil.pth": folder / "anna.pth"})
    foreign.hostile_voice(folder / "hostile.pth", folder / "it-ran")
    foreign.narrow_index(folder / "narrow.index")
    foreign.training_checkpoint(folder / "G_200.pth")
    return folder


def index_of(files: Path) -> Path:
    return files / "added_IVF10_Flat_nprobe_1_anna_v2.index"


def completed(platform: Platform, job: Job) -> Job:
    done = platform.finished(job.id)
    assert done.status == "completed", done.error
    return done


def quarantine(platform: Platform) -> list[Path]:
    """What still waits to be opened."""
    staging = platform.stack.root / "data" / "uploads" / ".staging"
    return list(staging.iterdir()) if staging.is_dir() else []


def speaks(platform: Platform, voice: str, folder: Path) -> bool:
    """Whether a recording comes back as sound in this voice."""
    source = make_speech(2.0, "en-us+m3", folder / "source.wav", seed=4)
    platform.client.convert(source, voice, folder / "converted.wav")
    wave, _ = soundfile.read(folder / "converted.wav")
    return bool(np.isfinite(wave).all() and np.abs(wave).max() > 0.001)


def test_a_file_with_its_index_and_an_archive_become_voices_that_speak(
    platform: Platform, files: Path, tmp_path: Path
) -> None:
    alone = platform.client.import_voice(
        files / "anna.pth", "Ännа / ../../etc", index=index_of(files), encoder="builtin", rights="My own voice."
    )
    packed = platform.client.import_voice(files / "rvc.zip", "Packed", encoder="builtin")

    for job in (completed(platform, alone), completed(platform, packed)):
        voice = platform.client.voice(job.voice or "")
        version = platform.stack.root / "models" / voice.slug / "versions" / job.id
        assert voice.status == "ready"
        assert sha256_of(version / f"{voice.slug}.pth") == sha256_of(files / "anna.pth")
        assert sha256_of(version / f"{voice.slug}.index") == sha256_of(index_of(files))
        assert speaks(platform, voice.id, tmp_path)
    first = platform.client.voice(alone.voice or "")
    assert first.name == "Ännа / ../../etc"
    assert first.slug.replace("-", "").isalnum()
    assert (first.card or {})["origin"]["rights"] == "My own voice."
    # what was converted is dropped a moment after its answer
    platform.wait_until(lambda: not quarantine(platform), say="an empty quarantine")


def test_what_is_refused_fails_its_job_with_the_reason_and_leaves_nothing(platform: Platform, files: Path) -> None:
    given: list[tuple[str, Path | None, str]] = [
        ("hostile.pth", None, "may be an attack"),
        ("traversal.zip", None, ""),
        ("anna.pth", files / "narrow.index", "256"),
        ("G_200.pth", None, "Extract"),
    ]
    models = platform.stack.root / "models"

    for name, index, said in given:
        over = platform.finished(platform.client.import_voice(files / name, f"Refused {name}", index=index).id)

        assert (over.status, over.error and over.error.code) == ("failed", "model_file_refused"), name
        assert said in (over.error.detail if over.error else "")
        assert platform.client.voice(over.voice or "").status == "failed"
        assert not [path for path in models.rglob("*") if path.is_file() and (over.voice or "?") in str(path)]
        platform.wait_until(lambda: not quarantine(platform), say="an empty quarantine")
    assert not (files / "it-ran").exists()
    assert not (models / "evil").exists()


def test_an_archive_brings_the_same_weights_back_in_every_form(platform: Platform, files: Path, tmp_path: Path) -> None:
    completed(platform, platform.client.import_voice(files / "rvc.zip", "Round trip", encoder="builtin"))
    given = weights(files / "anna.pth")

    for form in ("voicewright", "rvc", "applio"):
        target = tmp_path / f"{form}.zip"
        platform.client.export_voice("round-trip", target, form=form)
        back = completed(platform, platform.client.import_voice(target, f"Back from {form}"))

        version = platform.stack.root / "models" / (back.voice or "") / "versions" / back.id
        taken = weights(version / f"{back.voice}.pth")
        assert taken.keys() == given.keys()
        assert all(torch.equal(taken[name], value) for name, value in given.items())
        assert sha256_of(version / f"{back.voice}.index") == sha256_of(index_of(files))
    assert speaks(platform, "back-from-voicewright", tmp_path)  # its card says which encoder it needs
    with pytest.raises(ApiProblem, match="HUBERT_PATH"):
        speaks(platform, "back-from-rvc", tmp_path)  # RVC's form cannot say it


def test_a_voice_is_inspected_tried_and_converted(platform: Platform, files: Path, tmp_path: Path) -> None:
    completed(platform, platform.client.import_voice(files / "rvc.zip", "Looked at", encoder="builtin"))
    completed(platform, platform.client.import_voice(files / "rvc.zip", "Not here"))

    facts = platform.client.inspect_voice("looked-at")
    here, elsewhere = platform.client.verify_voice("looked-at"), platform.client.verify_voice("not-here")
    for form, name in (("fp32", "a.pth"), ("fp16", "b.pth"), ("safetensors", "c.safetensors")):
        platform.client.convert_voice("looked-at", form, tmp_path / name)

    assert (facts.network, facts.version, facts.sample_rate, facts.content_width) == ("rvc", "v2", 16_000, 768)
    assert (facts.precision, facts.index_rows, facts.sha256) == ("fp16", 400, sha256_of(files / "anna.pth"))
    assert (here.valid, here.usable, here.problems) == (True, True, [])
    assert (elsewhere.valid, elsewhere.usable) == (True, False)
    assert "HUBERT_PATH" in elsewhere.problems[0].detail
    given = weights(files / "anna.pth")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        taken = weights(tmp_path / name)
        assert all(torch.equal(taken[key].float(), value.float()) for key, value in given.items())
    damaged = platform.stack.root / "models" / "looked-at" / "versions"
    file = next(damaged.glob("*/looked-at.pth"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    os.chmod(file, 0o644)
    file.write_bytes(content)
    broken = platform.client.verify_voice("looked-at")
    assert (broken.valid, broken.usable) == (False, False)
    assert "card" in broken.problems[0].detail


def test_voices_are_merged_and_extracted(platform: Platform, files: Path, tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        completed(platform, platform.client.import_voice(files / f"{name}.pth", f"Half {name}", encoder="builtin"))

    merged = completed(platform, platform.client.merge_voices("Half anna", "half-ben", "Both", share=0.75))
    extracted = completed(platform, platform.client.extract_voice(files / "G_200.pth", "Taken", encoder="builtin"))

    mixed, a, b = (weights(path) for path in (served(platform, merged), files / "anna.pth", files / "ben.pth"))
    for name, value in mixed.items():
        torch.testing.assert_close(value.float(), 0.75 * a[name].float() + 0.25 * b[name].float(), atol=2e-3, rtol=2e-3)
    assert speaks(platform, "both", tmp_path)
    assert speaks(platform, "taken", tmp_path)
    assert (platform.client.voice(extracted.voice or "").card or {})["origin"]["form"] == "checkpoint"


def served(platform: Platform, job: Job) -> Path:
    return platform.stack.root / "models" / (job.voice or "") / "versions" / job.id / f"{job.voice}.pth"


def test_what_is_a_strangers_does_not_exist(platform: Platform, files: Path, tmp_path: Path) -> None:
    completed(platform, platform.client.import_voice(files / "rvc.zip", "Mine", encoder="builtin"))
    platform.client.add_user("ben@example.org", "a-long-password")
    with Client(platform.stack.url("gateway")) as ben:
        ben.login("ben@example.org", "a-long-password")
        mine = platform.client.voice("mine").id

        for call in (
            lambda: ben.connection.request("GET", f"/models/{mine}/inspect"),
            lambda: ben.connection.request("POST", f"/models/{mine}/verify"),
            lambda: ben.connection.request("POST", f"/models/{mine}/convert", json={"form": "fp16"}),
            lambda: ben.connection.request("GET", f"/models/{mine}/export", params={"format": "rvc"}),
            lambda: ben.merge_voices(mine, mine, "Stolen"),
        ):
            with pytest.raises(ApiProblem) as refused:
                call()
            assert refused.value.status == 404


def test_a_trainer_that_is_killed_in_an_import_only_delays_it(platform: Platform, files: Path, tmp_path: Path) -> None:
    """The whole chain: the upload waits in quarantine, the next worker takes the step again."""
    platform.stack.restart("trainer")  # a fresh one takes seconds to load its libraries: time to be killed in
    job = platform.client.import_voice(files / "anna.pth", "Survivor", index=index_of(files), encoder="builtin")
    platform.in_phase(job.id, "make")
    platform.stack.kill("trainer", family=True)
    platform.stack.restart("trainer")

    done = completed(platform, job)

    assert sha256_of(served(platform, done)) == sha256_of(files / "anna.pth")
    platform.wait_until(lambda: not quarantine(platform), say="an empty quarantine")
    assert speaks(platform, "survivor", tmp_path)


def test_the_command_line_takes_voices_in_tries_mixes_and_takes_them_out(
    platform: Platform, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEWRIGHT_URL", platform.stack.url("gateway"))
    monkeypatch.setenv("VOICEWRIGHT_TOKEN", platform.client.connection.token or "")

    def voicewright(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in ("voices", *arguments)])
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    index = ("--index", index_of(files))
    voicewright("import", files / "anna.pth", *index, "--name", "Line", "--encoder", "builtin", "--follow")
    voicewright("extract", files / "G_200.pth", "--name", "Line two", "--encoder", "builtin", "--follow")
    voicewright("merge", "line", "line-two", "--name", "Line three", "--share", 0.3, "--follow")
    refused = voicewright("import", files / "hostile.pth", "--name", "Line four", "--follow", code=5)
    voicewright("export", "line", "--form", "rvc", "-o", tmp_path / "line.zip")
    voicewright("convert-file", "line", "--form", "fp32", "-o", tmp_path / "line.pth")

    assert "may be an attack" in refused
    assert "rvc" in voicewright("inspect", "line")
    assert "line works" in voicewright("verify", "line")
    assert json.loads(voicewright("verify", "line", "--json"))["usable"] is True
    with zipfile.ZipFile(tmp_path / "line.zip") as archive:
        assert any(name.endswith(".pth") for name in archive.namelist())
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "line.pth").values())


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a voice file, read as ours."""
    from libs.voice.artefact import read_voice

    return dict(read_voice(path).weights)
