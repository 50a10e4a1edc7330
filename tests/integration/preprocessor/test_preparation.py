"""The preprocessor as a real process: what it makes, and what it does not believe."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.common.jobs import Lane
from libs.common.manifests import Manifest
from libs.voice.device import multiplies_bfloat16
from libs.voice.experiment import ExperimentFolders, validate_experiment
from libs.voice.hubert import Hubert, HubertConfig
from services.gateway import workers
from tests.factories_audio import make_recordings, write_float_wav
from tests.integration.voice_services.platform import (
    Platform,
    loaded_libraries,
    prepare,
    resident_megabytes,
)

FOLDERS = ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b_f0nsf", "3_feature768")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def contents(here: Platform, manifest: Manifest) -> dict[str, tuple[int, bytes]]:
    """Time of change and bytes of every file of a result."""
    return {
        relative: (path.stat().st_mtime_ns, path.read_bytes())
        for relative in manifest.files
        for path in [here.paths.in_data(relative)]
    }


async def test_recordings_become_the_folders_of_rvc_once_for_the_same_input(here: Platform, tmp_path: Path) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 3, 6.0))
    service = await here.started("preprocessor")
    idle = resident_megabytes(service.pid)

    event = await here.send(prepare("job_1", inputs), "prepared", seconds=120)

    manifest = here.manifest(event)
    visible = here.paths.experiment("anna").folder
    names = [{path.name.split(".")[0] for path in (visible / folder).iterdir()} for folder in FOLDERS]
    assert len(names[0]) == event.pieces > 3
    assert all(each == names[0] for each in names)
    assert (visible / "0_gt_wavs").resolve() == here.paths.in_data(manifest.folder) / "0_gt_wavs"
    lines = (visible / "filelist.txt").read_text().splitlines()
    paths = [Path(field) for line in lines for field in line.split("|")[:4]]
    assert len(lines) == event.pieces + 2
    assert sum("mute" in line for line in lines) == 2
    assert all(path.is_absolute() and path.is_file() for path in paths)
    folders = ExperimentFolders(here.paths.in_data(manifest.folder))
    assert validate_experiment(folders, sample_rate=16_000) == []
    assert event.content_encoder["name"].startswith("voicewright")
    assert 9 < event.seconds <= 18
    # the service itself stays light: networks are loaded in processes that end
    assert "libtorch" not in loaded_libraries(service.pid)
    assert idle < 150

    before = contents(here, manifest)
    again = await here.send(prepare("job_2", inputs), "prepared")
    other = await here.send(prepare("job_3", inputs, f0_method="dio"), "prepared", seconds=120)

    assert (event.reused, again.reused, other.reused) == (False, True, False)
    assert (event.f0_method, other.f0_method) == ("swift", "dio")
    assert here.manifest(again).files == manifest.files
    assert set(here.manifest(other).files).isdisjoint(manifest.files)
    assert contents(here, manifest) == before
    assert (visible / "2b_f0nsf").resolve() == here.paths.in_data(here.manifest(other).folder) / "2b_f0nsf"


async def test_datasets_that_cannot_be_used_fail_with_their_reason(here: Platform, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    vanished = here.place("anna", make_recordings(tmp_path / "in", 1, 4.0))
    here.paths.uploads("anna").original(vanished[0].sha256, "wav").unlink()
    noise = 0.1 * draw.standard_normal(10 * 22_050).astype(np.float32)
    noisy = here.place("anna", [write_float_wav(tmp_path / "noise.wav", noise)])
    silent = here.place("anna", [write_float_wav(tmp_path / "silence.wav", np.zeros(8 * 22_050, np.float32))])
    (tmp_path / "text.wav").write_text("this is no sound " * 100)
    broken = here.place("anna", [tmp_path / "text.wav"])
    here.start("preprocessor")

    codes, said = {}, {}
    for job, inputs in {"vanished": vanished, "noisy": noisy, "silent": silent, "broken": broken, "none": ()}.items():
        failed = await here.send(prepare(job, inputs), "step_failed", seconds=90)
        codes[job], said[job] = failed.problem["code"], failed.problem["detail"]
        assert failed.problem["suggested_actions"]
    unknown = await here.send(prepare("preset", noisy, preset="gigantic"), "step_failed")
    absent = await here.send(prepare("method", noisy, f0_method="rmvpe"), "step_failed")
    (announced,) = await workers.announced(here.bus)

    assert codes["vanished"] == "voice_sample_not_found"
    assert codes["noisy"] == "insufficient_audio_quality"
    assert re.search(r"pitch was found in \d+\.\d % .* hold no voice", said["noisy"])
    assert codes["silent"] == "dataset_empty"
    assert codes["broken"] in ("unsupported_audio", "broken_audio")
    assert codes["none"] == "dataset_empty"
    assert unknown.problem["field"] == "preset"
    assert absent.problem["field"] == "f0_method"
    assert "RMVPE_PATH" in absent.problem["detail"]
    assert str(here.paths.assets_root) not in str(absent.problem)
    # the same was said before anybody asked, so that the gateway refuses such a request at once
    assert announced["f0_absent"]["rmvpe"] in absent.problem["detail"]
    assert (announced["service"], announced["has_hubert"]) == ("preprocessor", False)
    assert here.events.of("prepared") == []


async def test_hubert_is_used_when_its_file_is_there_and_never_mixed(here: Platform, tmp_path: Path) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 1, 4.0))
    hubert = tmp_path / "assets" / "hubert" / "hubert_base.pt"
    here.start("preprocessor", PREPROCESS_PROCESSES=1)
    built_in = await here.send(prepare("job_1", inputs), "prepared", seconds=90)

    write_small_hubert(hubert, seed=1)
    first = await here.send(prepare("job_2", inputs), "prepared", seconds=90)
    write_small_hubert(hubert, seed=2)
    second = await here.send(prepare("job_3", inputs), "prepared", seconds=90)
    hubert.write_bytes(hubert.read_bytes()[:1000])
    broken = await here.send(prepare("job_4", inputs), "step_failed")

    assert [event.reused for event in (built_in, first, second)] == [False, False, False]
    assert first.content_encoder["name"] == second.content_encoder["name"] == "hubert"
    assert first.content_encoder["checksum"] != second.content_encoder["checksum"]
    features = [
        {Path(f).name: e.sha256 for f, e in here.manifest(event).files.items() if "3_feature768" in f}
        for event in (built_in, first, second)
    ]
    assert features[0].keys() == features[1].keys() == features[2].keys()
    assert all(len({each[name] for each in features}) == 3 for name in features[0])
    assert broken.problem["code"] == "model_file_refused"


async def test_parselmouth_is_not_needed(here: Platform, tmp_path: Path) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 1, 4.0))
    blocked = tmp_path / "blocked" / "parselmouth"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('parselmouth is blocked by the test')")
    here.start("preprocessor", PYTHONPATH=blocked.parent)

    prepared = await here.send(prepare("job_1", inputs), "prepared", seconds=90)
    refused = await here.send(prepare("job_2", inputs, f0_method="praat"), "step_failed")

    assert prepared.f0_method == "swift"
    assert refused.problem["field"] == "f0_method"


def write_small_hubert(path: Path, seed: int) -> None:
    """A checkpoint in fairseq's format with HuBERT's width and one small layer."""
    torch.manual_seed(seed)
    convolutions = ((32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2)
    network = Hubert(HubertConfig(conv_layers=convolutions, ffn_width=64, layers=1, position_taps=16))
    model = {"conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2", "encoder_attention_heads": 12}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": network.state_dict(), "cfg": {"model": model}}, path)


async def test_recordings_are_prepared_side_by_side(here: Platform, tmp_path: Path) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 12, 20.0))  # enough for a process that starts late
    here.start("preprocessor", PREPROCESS_PROCESSES=2)
    attempt = here.paths.experiment("anna").step("job_1", "preprocess").attempt(1)
    await here.bus.send_command(prepare("job_1", inputs), Lane.normal)

    together = 0
    while not here.events.of("prepared"):
        begun = {path.name.split("_")[0] for path in attempt.glob("0_gt_wavs/[0-9]*")}
        finished = {note.stem for note in (attempt / ".prepared").glob("*.json")}
        together = max(together, len(begun - finished))
        await asyncio.sleep(0.002)

    assert together == 2


async def test_features_in_bfloat16_are_a_result_of_their_own_or_refused(here: Platform, tmp_path: Path) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 1, 4.0))
    first = await here.started("preprocessor", PREPROCESS_PROCESSES=1)
    full = await here.send(prepare("job_1", inputs), "prepared", seconds=90)
    first.kill()
    here.start("preprocessor", PREPROCESS_PROCESSES=1, PREPROCESS_PRECISION="bf16")

    if not multiplies_bfloat16(torch.device("cpu")):
        refused = await here.send(prepare("job_2", inputs), "step_failed", seconds=90)
        assert refused.problem["field"] == "precision"
        return
    half = await here.send(prepare("job_2", inputs), "prepared", seconds=90)

    assert (full.reused, half.reused) == (False, False)
    assert [here.manifest(event).data["precision"] for event in (full, half)] == ["fp32", "bf16"]
    assert here.manifest(full).fingerprint != here.manifest(half).fingerprint
