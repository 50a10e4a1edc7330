"""What a person asks of a training acts: no option is taken and then ignored."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from libs.common.errors import Conflict, InvalidInput, ModelFileRefused, StorageFull, TrainingDiverged
from libs.voice.artefact import load_synthesizer
from libs.voice.augmentation import augmented
from libs.voice.batching import Batches
from libs.voice.dataset import read_pieces
from libs.voice.progress import Progress
from libs.voice.rvc.checkpoints import read_training_checkpoint
from libs.voice.rvc.pretrained import find_bases
from libs.voice.training import TrainingInputs, TrainingResult, train
from libs.voice.training_config import PRESETS, TrainingConfig
from libs.voice.training_room import check_room
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import StepClock, final_state, ignore, lines_of, run
from tests.unit.voice.test_event_file import scalars

TINY = TrainingConfig(preset="rvc-tiny", total_steps=4, threads=1, batch_size=2, early_stopping_patience=0)
LITE = dataclasses.replace(TINY, preset="lite")


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("experiments")
    return {
        name: make_experiment(root / name, sources=4, pieces=1, seconds=0.6, rate=PRESETS[name].sample_rate)
        for name in ("rvc-tiny", "lite")
    }


@pytest.fixture(scope="module")
def plain(experiments: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingResult]:
    root = tmp_path_factory.mktemp("plain")
    return {c.preset: run(experiments[c.preset], root / c.preset, c) for c in (TINY, LITE)}


@pytest.mark.parametrize("preset", ["rvc-tiny", "lite"])
@pytest.mark.parametrize(
    "option",
    [
        {"optimizer": "adam"},
        {"optimizer": "radam"},
        {"weight_decay": 0.5},
        {"loss_function": "l2"},
        {"loss_function": "huber"},
        {"dropout": 0.3},
        {"augmentation": True},
        {"ema_decay": 0.1},
        {"learning_rate": 3e-3},
        {"precision": "bf16"},
        {"seed": 7},
    ],
    ids=lambda option: "-".join(f"{name} {value}" for name, value in option.items()),
)
def test_every_option_changes_the_voice_that_comes_out(
    experiments: dict[str, Path], plain: dict[str, TrainingResult], tmp_path: Path, preset: str, option: dict[str, Any]
) -> None:
    config = dataclasses.replace(TINY, preset=preset, precision="fp32")
    if "precision" in option:
        reference = run(experiments[preset], tmp_path / "fp32", config)
    else:
        config = dataclasses.replace(config, precision="auto")
        reference = plain[preset]

    result = run(experiments[preset], tmp_path / "asked", dataclasses.replace(config, **option))

    assert result.sha256 != reference.sha256
    assert result.skipped_steps == 0
    assert json.loads((tmp_path / "asked/run.json").read_text())["config"].items() >= option.items()


def test_adversarial_steps_change_a_lite_voice_and_are_refused_where_judges_are_never_absent(
    experiments: dict[str, Path], plain: dict[str, TrainingResult], tmp_path: Path
) -> None:
    result = run(experiments["lite"], tmp_path / "asked", dataclasses.replace(LITE, adversarial_steps=3))

    assert result.sha256 != plain["lite"].sha256
    assert (result.adversarial_steps, plain["lite"].adversarial_steps) == (3, 0)
    assert result.losses["discriminator"] > 0
    assert "discriminator" not in plain["lite"].losses
    with pytest.raises(InvalidInput, match="every step") as caught:
        dataclasses.replace(TINY, adversarial_steps=3)
    assert caught.value.field == "adversarial_steps"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["rvc-tiny", "lite"])
def test_bfloat16_trains_and_its_losses_are_near_those_of_float32(
    experiments: dict[str, Path], tmp_path: Path, preset: str
) -> None:
    config = dataclasses.replace(TINY, preset=preset, total_steps=25)

    results = {
        precision: run(experiments[preset], tmp_path / precision, dataclasses.replace(config, precision=precision))
        for precision in ("fp32", "bf16")
    }

    curves = [[line["loss"] for line in lines_of(tmp_path / name) if "loss" in line] for name in ("fp32", "bf16")]
    assert np.mean(curves[1][-5:]) < 0.9 * curves[1][0]
    assert np.mean(curves[1]) == pytest.approx(np.mean(curves[0]), rel=0.05)
    assert results["bf16"].skipped_steps == 0


@pytest.mark.parametrize("change", [{"f0": False}, {"pretrained": "mine"}, {"pretrained_generator": "/a/f0G40k.pth"}])
def test_what_lite_does_not_have_is_refused_and_not_ignored(
    experiments: dict[str, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        run(experiments["lite"], tmp_path, dataclasses.replace(LITE, **change))

    assert caught.value.field == next(iter(change))


@pytest.mark.parametrize(
    "change",
    [
        {"loss_function": "l3"},
        {"ema_decay": 1.0},
        {"accumulation": 0},
        {"processes": 65},
        {"precision": "fp8"},
        {"augmentation": "yes"},
        {"rvc_checkpoints": "sometimes"},
    ],
)
def test_options_out_of_range_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(change))) as caught:
        TrainingConfig.from_dict(change)

    assert caught.value.field == next(iter(change))


def test_augmentation_changes_content_and_polarity_and_leaves_the_rest(experiments: dict[str, Path]) -> None:
    pieces = read_pieces(experiments["rvc-tiny"], 16_000, 768)
    batch = Batches(pieces, 4, 1, 900, 16_000)(0)

    changed, again = augmented(batch), augmented(batch)

    ratio = (changed.content - batch.content).std() / batch.content.std()
    assert torch.equal(changed.content, again.content)
    assert 0.05 < float(ratio) < 0.15
    assert torch.equal(changed.wave.abs(), batch.wave.abs())
    assert torch.equal(changed.f0_hz, batch.f0_hz)
    for i, frames in enumerate(batch.lengths.tolist()):
        assert not changed.content[i, frames:].any()


def test_the_voice_is_the_mean_of_the_weights_when_that_is_asked_for(
    experiments: dict[str, Path], tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY, ema_decay=0.9, validation_split=0.0)

    result = run(experiments["rvc-tiny"], tmp_path, config)

    state = final_state(tmp_path)
    weights = torch.load(result.voice, weights_only=True)["weight"]
    name = "dec.conv_pre.weight_v" if "dec.conv_pre.weight_v" in weights else "dec.conv_pre.weight"
    mean, last = state[f"/modules/average/network.{name}"], state[f"/modules/generator/{name}"]
    assert torch.equal(weights[name], mean.half())
    assert not torch.equal(mean, last)
    assert int(state["/modules/average/updates"]) == 4


# -- pretrained bases -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bases(experiments: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bases by RVC's names, made from the pair that a longer run left."""
    root = tmp_path_factory.mktemp("bases")
    run(experiments["rvc-tiny"], root / "run", dataclasses.replace(TINY, total_steps=40))
    for letter in "GD":
        shutil.copy(next((root / "run").glob(f"{letter}_40.pth")), root / f"f0{letter}16k.pth")
    return root


def with_bases(experiment: Path, folder: Path, bases: Path, config: TrainingConfig) -> TrainingResult:
    return train(TrainingInputs(experiment, folder, bases=bases), config, ignore)


def test_a_run_begins_with_the_bases_that_are_there_and_the_result_names_them(
    experiments: dict[str, Path], plain: dict[str, TrainingResult], bases: Path, tmp_path: Path
) -> None:
    tuned = with_bases(experiments["rvc-tiny"], tmp_path / "auto", bases, TINY)
    without = with_bases(
        experiments["rvc-tiny"], tmp_path / "none", bases, dataclasses.replace(TINY, pretrained="none")
    )

    first = [next(line["mel"] for line in lines_of(tmp_path / name) if "mel" in line) for name in ("auto", "none")]
    assert first[0] < 0.7 * first[1]
    assert tuned.bases["generator"]["file"] == "f0G16k.pth"
    assert len(tuned.bases["discriminator"]["sha256"]) == 64
    assert without.bases == {}
    assert without.sha256 == plain["rvc-tiny"].sha256


def test_the_pair_that_a_run_leaves_is_what_rvc_reads(experiments: dict[str, Path], bases: Path) -> None:
    for letter, kind in (("G", "generator"), ("D", "discriminator")):
        file = torch.load(bases / f"f0{letter}16k.pth", weights_only=True)
        checkpoint = read_training_checkpoint(bases / f"f0{letter}16k.pth")

        assert list(file) == ["model", "iteration", "optimizer", "learning_rate"]
        assert checkpoint.kind == kind
        assert file["iteration"] == 20
        assert file["learning_rate"] == PRESETS["rvc-tiny"].learning_rate
        assert all(value.dtype == torch.float32 for value in file["model"].values())
        assert any(name.endswith("weight_g") for name in file["model"])
        assert len(file["optimizer"]["state"]) == len(file["model"])
        shapes = [value.shape for value in file["model"].values()]
        assert [file["optimizer"]["state"][i]["exp_avg"].shape for i in range(len(shapes))] == shapes
        plain = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes])
        plain.load_state_dict(file["optimizer"])
        assert plain.param_groups[0]["fused"] is None


def test_a_run_that_began_with_a_base_goes_on_without_it_and_not_with_another(
    experiments: dict[str, Path], bases: Path, tmp_path: Path
) -> None:
    root = tmp_path / "bases"
    root.mkdir()
    for letter in "GD":
        shutil.copy(bases / f"f0{letter}16k.pth", root)
    experiment, folder = experiments["rvc-tiny"], tmp_path / "run"
    whole = with_bases(experiment, folder, root, TINY)
    shutil.copytree(folder, tmp_path / "before")
    shutil.rmtree(tmp_path / "before/checkpoints")
    (root / "f0G16k.pth").write_bytes((bases / "f0D16k.pth").read_bytes())

    again = with_bases(experiment, folder, root, TINY)

    assert again.bases == whole.bases
    assert again.sha256 == whole.sha256
    with pytest.raises(ModelFileRefused, match="f0G16k"):
        with_bases(experiment, tmp_path / "before", root, TINY)
    file = torch.load(bases / "f0G16k.pth", weights_only=True)
    file["iteration"] = 1
    torch.save(file, root / "f0G16k.pth")
    with pytest.raises(Conflict, match="base has changed"):
        with_bases(experiment, tmp_path / "before", root, TINY)


def test_bases_are_found_by_their_names_and_no_name_leaves_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "pretrained_v2"
    for folder, name in (
        (root, "f0{}40k"),
        (root, "{}40k"),
        (tmp_path / "pretrained", "f0{}40k"),
        (root / "mine", "f0{}48k"),
    ):
        folder.mkdir(exist_ok=True, parents=True)
        for letter in "GD":
            (folder / f"{name.format(letter)}.pth").touch()

    def found(wish: str, version: str, rate: int, f0: bool) -> list[str] | None:
        pair = find_bases(root, wish, version=version, sample_rate=rate, f0=f0)
        return [path.relative_to(tmp_path).as_posix() for path in pair] if pair else None

    assert found("auto", "v2", 40_000, True) == ["pretrained_v2/f0G40k.pth", "pretrained_v2/f0D40k.pth"]
    assert found("auto", "v2", 40_000, False) == ["pretrained_v2/G40k.pth", "pretrained_v2/D40k.pth"]
    assert found("auto", "v1", 40_000, True) == ["pretrained/f0G40k.pth", "pretrained/f0D40k.pth"]
    assert found("mine", "v2", 48_000, True) == ["pretrained_v2/mine/f0G48k.pth", "pretrained_v2/mine/f0D48k.pth"]
    assert found("auto", "v2", 32_000, True) is None
    assert found("none", "v2", 40_000, True) is None
    for wish in ("mine", "other"):
        with pytest.raises(InvalidInput, match="f0G32k"):
            found(wish, "v2", 32_000, True)
    for wish in ("../pretrained", "a/b", "", "..", "/etc"):
        with pytest.raises(InvalidInput) as caught:
            found(wish, "v2", 40_000, True)
        assert caught.value.field == "pretrained"


# -- limits and faults ------------------------------------------------------------------------------------------------


def test_a_run_that_is_out_of_time_publishes_the_best_of_what_it_has_learnt(
    experiments: dict[str, Path], tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY, total_steps=100_000, best_on_timeout=True, validate_every_steps=1000)

    result = run(experiments["rvc-tiny"], tmp_path, config, clock=StepClock(tmp_path, 4))

    assert (result.ended, result.steps) == ("time_limit", 4)
    assert result.best_step == result.voice_step == result.steps
    assert load_synthesizer(result.voice).sample_rate == 16_000
    assert run(experiments["rvc-tiny"], tmp_path, config).sha256 == result.sha256


def poison(experiment: Path, count: int) -> None:
    for path in sorted((experiment / "0_gt_wavs").iterdir())[:count]:
        wave, rate = soundfile.read(str(path), dtype="float32")
        wave[len(wave) // 2] = np.nan
        soundfile.write(str(path), wave, rate, subtype="FLOAT")


@pytest.mark.parametrize("preset", ["rvc-tiny", "lite"])
def test_sound_that_holds_no_numbers_costs_its_steps_and_no_weight(tmp_path: Path, preset: str) -> None:
    experiment = make_experiment(tmp_path / "e", sources=4, pieces=1, seconds=0.6, rate=PRESETS[preset].sample_rate)
    poison(experiment, 1)
    config = dataclasses.replace(TINY, preset=preset, batch_size=1, validation_split=0.0, total_steps=8)

    result = run(experiment, tmp_path / "run", config)

    skipped = [line["step"] for line in lines_of(tmp_path / "run") if "skipped" in line]
    assert result.skipped_steps == len(skipped) == 2
    assert all(bool(torch.isfinite(value.float()).all()) for value in final_state(tmp_path / "run").values())
    assert "nan" in (tmp_path / "run/train.log").read_text()


def test_nothing_but_sound_that_holds_no_numbers_ends_the_run(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "e", sources=4, pieces=1, seconds=0.6)
    poison(experiment, 4)

    with pytest.raises(TrainingDiverged, match="8 steps in a row"):
        run(experiment, tmp_path / "run", dataclasses.replace(TINY, total_steps=50))


def test_a_disk_without_room_is_told_before_the_first_step(experiments: dict[str, Path], tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free

    check_room(tmp_path, free // 2)
    with pytest.raises(StorageFull, match=r"needs .* GB .* GB are free"):
        check_room(tmp_path, free + 2**33)


ON_A_SMALL_DISK = """
import sys
from pathlib import Path
from libs.common.errors import StorageFull
from libs.voice.training import TrainingInputs, train
from libs.voice.training_config import TrainingConfig
try:
    train(TrainingInputs(Path(sys.argv[1]), Path(sys.argv[2])), TrainingConfig(preset="rvc-tiny"), lambda _: None)
except StorageFull as error:
    print(error, sorted(path.name for path in Path(sys.argv[2]).iterdir()))
"""


def test_a_run_asks_for_room_before_it_does_anything(experiments: dict[str, Path], tmp_path: Path) -> None:
    disk = f"mount -t tmpfs -o size=8m none {tmp_path}"  # in a namespace of its own, gone with the process
    if subprocess.run(["unshare", "-m", "sh", "-c", disk], capture_output=True, check=False).returncode:
        pytest.skip("small disks cannot be made here")
    program = f"{disk} && exec {sys.executable} -c '{ON_A_SMALL_DISK}' {experiments['rvc-tiny']} {tmp_path}/run"

    done = subprocess.run(["unshare", "-m", "sh", "-c", program], capture_output=True, text=True, check=False)

    assert "a training needs 0.0" in done.stdout, done.stderr
    assert done.stdout.endswith("0.01 GB are free []\n")


def test_the_curves_are_in_tensorboards_files_too(experiments: dict[str, Path], tmp_path: Path) -> None:
    told: list[Progress] = []
    train(TrainingInputs(experiments["rvc-tiny"], tmp_path), TINY, told.append)

    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {(step, tag): value for step, tag, value in scalars(path)}
    for line in lines_of(tmp_path):
        for name, value in line.get("validation", {}).items():
            assert found[line["step"], f"validation/{name}"] == pytest.approx(value)
        if "loss" in line:
            assert found[line["step"], "loss/mel"] == pytest.approx(line["mel"])
    assert {step for step, tag in found if tag == "loss/loss"} == {1, 2, 3, 4}
    assert found[1, "learning_rate/generator"] == pytest.approx(1e-3)
