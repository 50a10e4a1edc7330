"""Checkpoints are whole or absent; a damaged one is noticed, set aside, and the one before it is used."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from libs.common.errors import WorkFailed
from libs.voice.checkpoint import (
    load_newest,
    newest_step,
    random_streams,
    restore_random_streams,
    save_checkpoint,
)
from libs.voice.recipe import Recipe, build_recipe
from libs.voice.training_config import TrainingConfig


def make_recipe(seed: int) -> Recipe:
    torch.manual_seed(seed)
    recipe = build_recipe("rvc-tiny", TrainingConfig(preset="rvc-tiny"))
    for module in recipe.modules().values():
        for parameter in module.parameters():
            parameter.grad = torch.randn_like(parameter)
    for optimizer in recipe.optimizers().values():
        optimizer.step()
    recipe.end_epoch()
    return recipe


def weights(recipe: Recipe) -> Tensor:
    modules = [p.detach().flatten() for m in recipe.modules().values() for p in m.parameters()]
    moments = [
        state["exp_avg_sq"].flatten()
        for o in recipe.optimizers().values()
        for state in o.state_dict()["state"].values()
    ]
    return torch.cat(modules + moments)


def save(root: Path, recipe: Recipe, step: int, keep: int = 3) -> None:
    save_checkpoint(
        root, recipe, step=step, epoch=1, config={}, progress={"best": 0.5}, metrics={"loss": 1.5}, keep=keep
    )


def truncate(folder: Path) -> None:
    path = folder / "state.pt"
    path.write_bytes(path.read_bytes()[:-1000])


def flip(folder: Path) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(bytes(data))


def lose_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def cut_meta(folder: Path) -> None:
    (folder / "meta.json").write_text('{"format": 1, "st')


def empty(folder: Path) -> None:
    (folder / "state.pt").write_bytes(b"")


DAMAGES = [truncate, flip, lose_meta, cut_meta, empty]


def test_weights_moments_schedule_and_random_streams_come_back(tmp_path: Path) -> None:
    one, other = make_recipe(1), make_recipe(2)
    torch.manual_seed(99)
    save(tmp_path, one, 40)
    expected = torch.rand(3)
    torch.manual_seed(5)

    found = load_newest(tmp_path, other)

    assert found is not None
    assert (found.step, found.epoch, found.progress) == (40, 1, {"best": 0.5})
    assert torch.equal(weights(one), weights(other))
    assert {k: s.state_dict() for k, s in other.schedulers().items()}["generator"] == {"epoch": 1}
    assert torch.equal(torch.rand(3), expected)


def test_no_checkpoint_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nothing", make_recipe(1)) is None
    assert newest_step(tmp_path / "nothing") is None


def test_the_step_is_read_from_the_metadata_and_not_from_the_name(tmp_path: Path) -> None:
    for step in (10, 20):
        save(tmp_path, make_recipe(step), step)
    (tmp_path / "checkpoint-00000010").rename(tmp_path / "checkpoint-99999999")

    found = load_newest(tmp_path, make_recipe(0))

    assert found is not None
    assert found.step == 20


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_set_aside_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    old, recipe = make_recipe(1), make_recipe(3)
    save(tmp_path, old, 10)
    save(tmp_path, make_recipe(2), 20)
    damage(tmp_path / "checkpoint-00000020")

    found = load_newest(tmp_path, recipe)

    assert found is not None
    assert found.step == 10
    assert torch.equal(weights(recipe), weights(old))
    assert (tmp_path / "checkpoint-00000020.broken").is_dir()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_never_starts_again_from_nothing_when_all_its_checkpoints_are_broken(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, make_recipe(1), 10)
    damage(tmp_path / "checkpoint-00000010")

    for _ in range(2):  # the second try finds only what the first one set aside
        with pytest.raises(WorkFailed, match="none is whole"):
            load_newest(tmp_path, make_recipe(2))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    recipe = make_recipe(1)

    for step in range(0, 100, 10):
        save(tmp_path, recipe, step, keep=2)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-00000080", "checkpoint-00000090"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_while_the_same_step_is_written_again_leaves_a_whole_checkpoint(tmp_path: Path, renames: int) -> None:
    save(tmp_path, make_recipe(1), 10)
    program = (
        "import os, pathlib, sys; from tests.unit.voice.test_checkpoint import make_recipe, save\n"
        "recipe, rename, left = make_recipe(2), os.rename, [int(sys.argv[2])]\n"
        "def dying(*paths):\n"
        "    if not left[0]: os._exit(9)\n"
        "    left[0] -= 1\n"
        "    rename(*paths)\n"
        "os.rename = dying\n"
        "save(pathlib.Path(sys.argv[1]), recipe, 10)"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path), str(renames)]
    done = subprocess.run(arguments, capture_output=True, check=False)
    recipe = make_recipe(0)

    found = load_newest(tmp_path, recipe)

    assert done.returncode == 9, done.stderr
    assert found is not None
    assert found.step == 10
    assert torch.equal(weights(recipe), weights(make_recipe(1 if renames < 2 else 2)))
    save(tmp_path, recipe, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000010"]


def test_a_full_disk_keeps_the_old_checkpoint_and_leaves_no_part(tmp_path: Path) -> None:
    save(tmp_path, make_recipe(1), 10)
    program = (
        "import resource, sys, pathlib; from libs.common.errors import StorageFull; "
        "from tests.unit.voice.test_checkpoint import make_recipe, save; recipe = make_recipe(2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "try: save(pathlib.Path(sys.argv[1]), recipe, 20)\n"
        "except StorageFull: sys.exit(17)"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=False)

    assert done.returncode == 17, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000010"]
    assert load_newest(tmp_path, make_recipe(3)) is not None


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    save(tmp_path, make_recipe(1), 10)
    (tmp_path / ".tmp-abc").mkdir()
    (tmp_path / ".tmp-abc" / "state.pt").write_bytes(b"half")

    found = load_newest(tmp_path, make_recipe(2))

    assert found is not None
    assert found.step == 10
    assert not (tmp_path / ".tmp-abc").exists()


def test_random_streams_go_on_where_they_were() -> None:
    streams = random_streams()
    expected = (torch.rand(2).tolist(), np.random.random(2).tolist(), random.random())
    torch.manual_seed(1)
    random.seed(1)

    restore_random_streams(streams)

    assert (torch.rand(2).tolist(), np.random.random(2).tolist(), random.random()) == expected
