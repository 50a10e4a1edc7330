"""Recordings without a transcript: does a machine write them, is that said, and does a person's word count for more?"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.voice_services.platform import Platform
from tests.integration.xtts.conftest import ROOT
from tests.integration.xtts.test_voice import Spoken, check, place, publish, train
from tests.whisper_tiny import SENTENCE

pytestmark = [pytest.mark.slow, pytest.mark.xtts, pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def whisper(xtts_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that hears the same sentence in everything."""
    found = subprocess.run([xtts_python, "-c", "import faster_whisper"], cwd=ROOT, capture_output=True, timeout=120)
    if found.returncode:
        pytest.skip("faster-whisper is not here: run scripts/install-xtts")
    folder = tmp_path_factory.mktemp("whisper") / "model"
    subprocess.run(
        [xtts_python, "-m", "tests.whisper_tiny", str(folder)], cwd=ROOT, check=True, timeout=300, capture_output=True
    )
    return folder


def texts_of(here: Platform, checked: object) -> dict[str, str]:
    folder = here.manifest(checked).folder
    content = json.loads(here.paths.in_data(f"{folder}/checked.json").read_text())
    return {clip["sample_id"]: clip["text"] for clip in content["clips"]}


async def test_what_a_machine_wrote_is_marked_in_the_card_until_a_person_has_sent_it(
    here: Platform, xtts_python: str, xtts_base: Path, spoken: Spoken, whisper: Path
) -> None:
    await here.started(
        "trainer",
        XTTS_PYTHON=xtts_python,
        XTTS_PATH=xtts_base,
        XTTS_LICENCE_ACCEPTED="CPML-1.0",
        WHISPER_PATH=whisper,
    )
    clips = place(here, spoken, smp_1="", smp_2=" ")

    left_out = await here.send(check("job_1", clips), "checked")
    checked = await here.send(check("job_2", clips, transcribe=True), "checked", seconds=120)
    trained = await here.send(train("job_2", checked.manifest), "trained", seconds=300)
    await here.send(publish("job_2", checked.manifest, trained.manifest), "published", seconds=300)
    lines = next(
        here.paths.in_data(name) for name in here.manifest(checked).files if name.endswith("/transcripts.csv")
    ).read_text()
    by_person = place(here, spoken, smp_1=SENTENCE, smp_2=SENTENCE)
    confirmed = await here.send(check("job_3", by_person, transcribe=True), "checked")
    unread = [clip.model_copy(update={"by_machine": clip.sample_id == "smp_2"}) for clip in by_person]
    kept = await here.send(check("job_4", unread), "checked")

    assert {each["sample_id"] for each in here.manifest(left_out).data["refused"]} == {"smp_1", "smp_2"}
    assert (checked.clips, checked.refused) == (16, 0)
    heard = texts_of(here, checked)
    assert (heard["smp_1"], heard["smp_2"]) == (SENTENCE, SENTENCE)
    assert heard["smp_3"] == texts_of(here, left_out)["smp_3"]
    assert here.manifest(checked).data["by_machine"] == ["smp_1", "smp_2"]
    assert lines == "".join(f"{clip.sha256}|{SENTENCE}|{SENTENCE}\n" for clip in clips[1:3])
    card = json.loads(here.paths.voice("anna").card.read_text())
    assert card["training"]["transcripts"] == {"by_machine": 2, "confirmed_by_a_person": False}
    assert here.paths.voice("anna").version("job_2").file("transcripts.csv").read_text() == lines
    assert (left_out.heard, checked.heard) == ({}, {"smp_1": SENTENCE, "smp_2": SENTENCE})
    assert (here.manifest(confirmed).data["by_machine"], confirmed.heard) == ([], {})
    assert (here.manifest(kept).data["by_machine"], kept.heard) == (["smp_2"], {})
    assert texts_of(here, confirmed) == heard


async def test_transcripts_that_cannot_be_made_here_end_the_job_with_what_is_missing(
    here: Platform, xtts_python: str, xtts_base: Path, spoken: Spoken, whisper: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(whisper, damaged)
    (damaged / "model.bin").write_bytes((whisper / "model.bin").read_bytes()[:10_000])
    clips = place(here, spoken, smp_1="")
    known = {"XTTS_PYTHON": xtts_python, "XTTS_PATH": xtts_base, "XTTS_LICENCE_ACCEPTED": "CPML-1.0"}

    bare = await here.started("trainer", **known)
    without = await here.send(check("job_1", clips, transcribe=True), "step_failed")
    bare.kill()
    await here.started("trainer", WHISPER_PATH=damaged, **known)
    broken = await here.send(check("job_2", clips, transcribe=True), "step_failed", seconds=120)

    assert without.problem["code"] == "provider_unavailable"
    assert "WHISPER_PATH is not set" in without.problem["detail"]
    assert broken.problem["code"] == "model_file_refused"
    assert "WHISPER_PATH" in broken.problem["detail"]
    assert str(tmp_path) not in json.dumps(broken.problem)
