"""Does a text become speech whatever the process that speaks does: fail once, fail always, die, hang, be absent?"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.common.errors import ModelFileRefused, ProviderUnavailable, SynthesisFailed
from libs.voice.xtts import saying
from libs.voice.xtts.guards import RATE, Wave
from libs.voice.xtts.process import SpeakingProcess
from libs.voice.xtts.saying import Wish
from tests.waiting import PATIENCE, until

CHILD = Path(__file__).with_name("speaking_child.py")
WISH = Wish(key="anna:1", folder="/nowhere", weights="anna.pth", language="en")
Make = Callable[..., SpeakingProcess]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[SpeakingProcess] = []

    def making(mode: str = "", **more: Any) -> SpeakingProcess:
        environment = {**os.environ, "SPEAKING_CHILD": mode}
        process = SpeakingProcess(command=[sys.executable, str(CHILD)], environment=environment, **more)
        made.append(process)
        return process

    yield making
    for process in made:
        await process.close()
        assert process.pid is None


async def spoken(process: SpeakingProcess, *parts: str, wish: Wish = WISH) -> list[Wave]:
    return [wave async for wave in saying.say(process, parts, wish)]


async def test_pieces_become_sounds_in_their_order_with_a_pause_between_sentences(make: Make) -> None:
    process = make()

    first, second = await spoken(process, "A longer sentence goes first. ", "Then another.")

    assert len(first) / RATE == pytest.approx(29 / 15 + 0.35, abs=0.02)
    assert np.abs(first[-RATE // 4 :]).max() == 0
    assert len(second) / RATE == pytest.approx(13 / 15, abs=0.02)


async def test_the_same_request_gives_the_same_sound_and_another_seed_another_one(make: Make) -> None:
    process = make()

    once, again = [await spoken(process, "The same words.") for _ in range(2)]
    other = await spoken(process, "The same words.", wish=Wish(**{**vars(WISH), "seed": 5}))

    assert np.array_equal(once[0], again[0])
    assert not np.array_equal(once[0], other[0])


async def test_a_piece_that_fails_is_said_again_with_another_seed(make: Make) -> None:
    process, faults = make(), []

    texts = [f"This sometimes fails, says number {n}." for n in range(8)]
    waves = [wave async for wave in saying.say(process, texts, WISH, attempts=20, retried=faults.append)]

    assert len(waves) == 8
    assert faults
    assert all("did not end" in fault for fault in faults)


@pytest.mark.parametrize(
    ("text", "why"), [("pure silence", "silence"), ("endless talk", "not end"), ("nan", "numbers")]
)
async def test_a_piece_that_always_fails_ends_as_a_clear_error(make: Make, text: str, why: str) -> None:
    with pytest.raises(SynthesisFailed) as failed:
        await spoken(make(), text)

    assert (failed.value.code, failed.value.retryable) == ("synthesis_failed", True)
    assert why in failed.value.detail
    assert "3 attempts" in failed.value.detail


async def test_a_piece_of_too_many_tokens_is_cut_and_said_whole(make: Make) -> None:
    text = "There are so many, many words in here that it takes many pieces."

    (wave,) = await spoken(make(), text)

    assert len(wave) / RATE == pytest.approx(len(text) / 15, abs=0.3)


async def test_a_process_that_dies_costs_one_piece_and_is_started_anew(make: Make) -> None:
    process = make()
    for _ in range(5):  # its code was lost once in three times, to a kill that came too late
        with pytest.raises(SynthesisFailed, match="ended with code 9"):
            await spoken(process, "die")

    waves = await spoken(process, "It goes on.")

    assert len(waves) == 1


async def test_a_process_that_hangs_is_ended(make: Make) -> None:
    process = make(limit=2.0)

    with pytest.raises(SynthesisFailed, match="within 2 s"):
        await spoken(process, "hang")

    await until(lambda: process.pid is None)


async def test_a_caller_that_goes_away_ends_its_piece_and_not_the_process(make: Make) -> None:
    process = make()
    await spoken(process, "Warm.")
    before = process.pid
    task = asyncio.create_task(spoken(process, "slow"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    waves = await asyncio.wait_for(spoken(process, "The next one."), PATIENCE)

    assert len(waves) == 1
    assert process.pid == before


async def test_a_library_that_is_not_there_is_named_with_how_to_get_it(make: Make) -> None:
    with pytest.raises(ProviderUnavailable) as missing:
        await spoken(make("missing"), "Hello.")
    absent = SpeakingProcess(Path("/nowhere/python"))
    with pytest.raises(ProviderUnavailable) as interpreter:
        await spoken(absent, "Hello.")

    assert missing.value.extra == {"missing": ["coqui-tts", "torchaudio"]}
    assert "scripts/install-xtts" in missing.value.actions[0]
    assert "XTTS_PYTHON" in interpreter.value.detail


async def test_a_process_that_does_not_start_says_why(make: Make) -> None:
    with pytest.raises(SynthesisFailed, match="no such library"):
        await spoken(make("die"), "Hello.")


async def test_what_the_process_refuses_is_told_as_it_said_it(make: Make) -> None:
    with pytest.raises(ModelFileRefused, match="damaged"):
        await spoken(make(), "refuse")


async def test_a_process_that_nobody_needs_is_ended_and_comes_back(make: Make) -> None:
    process = make(idle=0.1)
    await spoken(process, "Hello.")

    await until(lambda: process.pid is None)
    waves = await spoken(process, "Hello again.")

    assert len(waves) == 1
