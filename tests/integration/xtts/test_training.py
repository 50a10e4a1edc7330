"""Can a fine-tune of XTTS be killed, cancelled, damaged and poisoned, and still tell the truth?"""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from libs.audio.decode import decode
from libs.voice.child import Outcome, TrainingChild
from libs.voice.safe_load import load_tensors
from libs.voice.xtts.speech import Clip, look
from libs.voice.xtts.vocabulary import read_vocabulary
from scripts.processes import find_program
from scripts.speech import speak

pytestmark = [pytest.mark.slow, pytest.mark.xtts, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[3]
Spoken = tuple[Path, list[tuple[Clip, str]]]
# The process of a run on a machine whose disks are nearly full.
LITTLE_ROOM = """
import shutil, sys
usage, room = shutil.disk_usage, int(sys.argv.pop(1))
shutil.disk_usage = lambda path: usage(path)._replace(free=room)
from libs.voice.xtts.main import main
sys.exit(main(sys.argv[1:]))
"""
# The same on a machine whose memory takes one clip at a time.
LITTLE_MEMORY = """
import sys
import torch
from libs.voice.xtts.network import TrainingNetwork
losses = TrainingNetwork.losses
def of_one(self, items, **more):
    if len(items) > 1:
        raise torch.OutOfMemoryError("there is no room for another clip")
    return losses(self, items, **more)
TrainingNetwork.losses = of_one
from libs.voice.xtts.main import main
sys.exit(main(sys.argv[1:]))
"""
SENTENCES = {
    "de": ("Guten Morgen, wie geht es Ihnen?", "Der Zug fährt um zehn Uhr.", "Das war schön.", "Wir müssen los."),
    "es": ("Buenos dias, vamos a la playa.", "El tren sale a las diez.", "Mañana es lunes.", "Hoy llueve mucho."),
    "fr": ("Bonjour, comment allez-vous?", "Le train part tard le soir.", "Un café, merci bien.", "Il fait chaud."),
}


class Runs:
    """Runs of one test, each in a child process of the interpreter that has the library."""

    def __init__(self, python: str, base: Path, spoken: Spoken, folder: Path) -> None:
        self._python = python
        self._base = base
        self._wavs, clips = spoken
        self.folder = folder
        self._checked = folder / "checked.json"
        content = [
            {"sample_id": c.sample_id, "sha256": c.sha256, "name": c.name, "text": text, "seconds": c.seconds}
            for c, text in clips
        ]
        self._checked.write_text(json.dumps({"clips": content}))

    def child(
        self,
        name: str,
        *,
        earlier: tuple[str, ...] = (),
        base: Path | None = None,
        room: int | None = None,
        one_fits: bool = False,
        **config: Any,
    ) -> TrainingChild:
        """A run that is not started yet; `room`: bytes that its disk has left; `one_fits`: memory for one clip."""
        program = ["-m", "libs.voice.xtts.main"]
        if room is not None:
            program = ["-c", LITTLE_ROOM, str(room)]
        elif one_fits:
            program = ["-c", LITTLE_MEMORY]
        asked = {"language": "en", "total_steps": 5, "batch_size": 2, "learning_rate": 1e-4, "seed": 3}
        asked |= {"device": "cpu", "threads": 1, "checkpoint_every_seconds": 0.1, "keep_checkpoints": 2}
        return TrainingChild(
            {
                "task": "train",
                "base": str(base or self._base),
                "checked": str(self._checked),
                "wavs": str(self._wavs),
                "run": str(self.folder / name),
                "earlier": [str(self.folder / each) for each in earlier],
            },
            asked | config,
            command=[self._python, *program],
            environment={**os.environ, "PYTHONPATH": str(ROOT)},
            start_silence=300,
            silence=300,
        )

    async def run(self, name: str, **more: Any) -> Outcome:
        child = self.child(name, **more)
        await child.start()
        return await child.wait()


@pytest.fixture
def runs(xtts_python: str, xtts_base: Path, spoken: Spoken, tmp_path: Path) -> Runs:
    return Runs(xtts_python, xtts_base, spoken, tmp_path)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


async def until_step(child: TrainingChild, step: int) -> None:
    async for line in child.progress():
        if line["step"] >= step:
            return


async def first_step(child: TrainingChild) -> int:
    """The step with which it begins to learn."""
    async for line in child.progress():
        if line["phase"] == "train":
            return int(line["step"])
    raise AssertionError("it ended before it learned anything")


async def test_a_killed_run_goes_on_past_a_damaged_checkpoint_and_learns_the_same_bit_by_bit(runs: Runs) -> None:
    whole = await runs.run("whole")
    first = runs.child("first")
    await first.start()
    await until_step(first, 4)
    first.kill()
    killed = await first.wait()
    *_, newest = checkpoints(runs.folder / "first")
    state = runs.folder / "first/checkpoints" / newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-1000])

    second = await runs.run("second", earlier=("first",))

    assert killed.ending == "crashed"
    assert whole.result is not None, whole.error
    assert second.result is not None, second.error
    assert 0 < second.result["resumed_from"] < int(newest.removeprefix("checkpoint-"))
    assert any(name.endswith(".broken") for name in checkpoints(runs.folder / "second"))
    assert (second.result["steps"], second.result["losses"]) == (5, whole.result["losses"])
    one, other = (load_tensors(runs.folder / name / "voice.pth")["model"] for name in ("whole", "second"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


async def test_a_run_that_is_cancelled_keeps_its_state(runs: Runs) -> None:
    child = runs.child("run", total_steps=500, checkpoint_every_seconds=3600)
    await child.start()
    await until_step(child, 2)
    await child.cancel()
    outcome = await child.wait()

    assert outcome.ending == "cancelled"
    assert len(checkpoints(runs.folder / "run")) == 1
    assert not (runs.folder / "run/voice.pth").exists()


async def test_a_network_of_no_numbers_ends_as_diverged_and_writes_no_checkpoint(
    runs: Runs, xtts_base: Path, tmp_path: Path
) -> None:
    poisoned = tmp_path / "poisoned"
    shutil.copytree(xtts_base, poisoned, copy_function=os.link)
    state = torch.load(poisoned / "model.pth", weights_only=True)
    name = next(key for key in state["model"] if key.startswith("gpt.") and key.endswith("weight"))
    state["model"][name].fill_(float("nan"))
    (poisoned / "model.pth").unlink()
    torch.save(state, poisoned / "model.pth")

    outcome = await runs.run("run", base=poisoned, total_steps=50)

    assert outcome.error is not None
    assert outcome.error.code == "training_diverged"
    assert "8 steps in a row" in outcome.error.detail
    assert not (runs.folder / "run/checkpoints").exists()


async def test_a_limit_of_time_keeps_the_state_or_gives_the_best_so_far(runs: Runs) -> None:
    stopped = await runs.run("stopped", total_steps=100_000, time_limit_seconds=20.0)
    best = await runs.run("best", total_steps=100_000, time_limit_seconds=25.0, best_on_timeout=True)

    assert stopped.error is not None
    assert stopped.error.code == "training_timeout"
    assert checkpoints(runs.folder / "stopped")
    assert best.result is not None, best.error
    assert (best.result["ended"], best.result["voice_step"]) == ("time_limit", best.result["best_step"])


async def test_a_run_that_gets_no_better_ends_early_with_its_best(runs: Runs) -> None:
    outcome = await runs.run(
        "run", total_steps=500, learning_rate=0.05, early_stopping_patience=1, checkpoint_every_seconds=3600
    )

    assert outcome.result is not None, outcome.error
    result = outcome.result
    assert (result["ended"], result["voice_step"]) == ("early_stop", result["best_step"])
    assert result["best_step"] < result["steps"] < 500


async def test_a_batch_that_memory_does_not_hold_is_learnt_clip_by_clip(runs: Runs) -> None:
    outcome = await runs.run("run", total_steps=3, batch_size=4, one_fits=True)

    assert outcome.result is not None, outcome.error
    assert outcome.result["batch"] == {"size": 4, "accumulation": 1, "part": 1}
    assert (outcome.result["steps"], outcome.result["skipped_steps"]) == (3, 0)
    log = (runs.folder / "run/train.log").read_text()
    assert "memory ran out at step 0 (there is no room for another clip): 2 clips at once now" in log
    assert "1 clips at once now" in log
    assert "of 4 clips: loss is nan" in log  # the others of a step with one that is all prompt


async def test_a_disk_that_is_full_at_the_end_leaves_no_half_voice(runs: Runs) -> None:
    child = runs.child("run", total_steps=6, checkpoint_every_seconds=3600)
    await child.start()
    await until_step(child, 1)
    # From now on a checkpoint fits and the voice does not.
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (40_000_000, 40_000_000))
    outcome = await child.wait()

    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("storage_full", True)
    assert checkpoints(runs.folder / "run") == ["checkpoint-00000006"]
    assert not [path for path in (runs.folder / "run").iterdir() if "voice" in path.name]


async def test_a_disk_without_room_for_the_whole_run_is_noticed_before_the_first_step(runs: Runs) -> None:
    outcome = await runs.run("run", room=50_000_000)

    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("storage_full", True)
    assert not list((runs.folder / "run").glob("*.pth"))
    assert not (runs.folder / "run/checkpoints").exists()


async def test_a_disk_that_is_full_in_the_middle_costs_only_what_came_after_the_last_checkpoint(runs: Runs) -> None:
    first = runs.child("first", total_steps=200)
    await first.start()
    await until_step(first, 3)
    resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    full = await first.wait()
    kept = checkpoints(runs.folder / "first")

    again = runs.child("second", earlier=("first",), total_steps=200)
    await again.start()
    begun = await first_step(again)
    await again.cancel()
    second = await again.wait()

    assert full.error is not None
    assert (full.error.code, full.error.retryable) == ("storage_full", True)
    assert kept
    assert all(name.startswith("checkpoint-") and not name.endswith(".broken") for name in kept)
    assert begun >= int(kept[-1].removeprefix("checkpoint-"))
    assert second.ending == "cancelled"


@pytest.mark.parametrize(("language", "texts"), SENTENCES.items())
async def test_speech_of_three_languages_is_looked_at_and_learnt_from(
    xtts_python: str, xtts_base: Path, tmp_path: Path, language: str, texts: tuple[str, ...]
) -> None:
    if find_program("espeak-ng") is None:
        pytest.skip("espeak-ng is not here: run scripts/install")
    wavs = tmp_path / "wavs"
    wavs.mkdir()
    clips = []
    for number, text in enumerate(texts):
        path = wavs / f"{number:064x}.wav"
        speak(text, language, path)
        clips.append(Clip(f"smp_{number}", path.stem, f"{number}.wav", text, decode(path).seconds))
    looked = look(clips, language, read_vocabulary(xtts_base / "vocab.json"))
    assert not looked.refused, looked.refused

    runs = Runs(xtts_python, xtts_base, (wavs, looked.usable), tmp_path)
    outcome = await runs.run("run", language=language, total_steps=2)

    assert outcome.result is not None, outcome.error
    assert (outcome.result["refused"], outcome.result["clips"]) == ([], {"learnt": 3, "held_out": 1})
    assert outcome.result["losses"]["text"] > 0
    assert (runs.folder / "run/voice.pth").is_file()


async def test_a_base_model_that_is_damaged_is_refused_by_name(runs: Runs, xtts_base: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(xtts_base, damaged, copy_function=os.link)
    (damaged / "dvae.pth").unlink()
    (damaged / "dvae.pth").write_bytes(b"PK\x03\x04 and nothing else")

    outcome = await runs.run("run", base=damaged)

    assert outcome.error is not None
    assert outcome.error.code == "model_file_refused"
    assert "dvae.pth" in outcome.error.detail
