"""Does a job over texts let others speak between its sentences?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import REGISTRY

from libs.common.events import SayTexts, TextInput
from libs.common.jobs import Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.voice.xtts.saying import Wish
from libs.voice.xtts.text import Sayable
from services.inference.job_files import JobFiles
from services.inference.queueing import ConversionQueue
from services.inference.speech import Speech
from services.inference.texts import say_all
from tests.conftest import TOKEN


class Slow:
    """Says three sentences of every text, each when it is let."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.let = asyncio.Semaphore(0)

    async def prepare(self, wanted: Any, *, longest: int) -> Speech:
        text = Sayable(wanted.text)
        return Speech(Wish("k", "f", "w", "en"), ["a", "b", "c"], text, "job_1", "ab", None, None)

    async def sounds(self, speech: Speech) -> AsyncGenerator[Any, None]:
        for part in speech.parts:
            await self.let.acquire()
            self.order.append(part)
            yield np.full(2400, 0.1, dtype=np.float32)


async def test_a_request_waits_for_one_sentence_of_a_job_and_not_for_its_texts(tmp_path: Path) -> None:
    order: list[str] = []
    slow, queue = Slow(order), ConversionQueue(1, 1, "texts")
    paths = Paths(CommonSettings(service_token=TOKEN, data_root=tmp_path / "data", models_root=tmp_path / "models"))
    texts = tuple(TextInput(number=n, name=f"{n}", text="Hello.", voice="linda") for n in (1, 2))
    command = SayTexts(job_id="job_2", step=Step.say, experiment=".jobs", texts=texts, settings={"format": "wav"})
    files = JobFiles.of(paths, "job_2", paths.data_root / "own", [])
    told: list[float] = []
    before = said_in_jobs()

    async def request() -> None:
        async with queue.place():
            order.append("request")

    job = asyncio.create_task(
        say_all(command, files, slow, queue, report=lambda f, **_: told.append(f), mark=lambda _: None)  # type: ignore[arg-type]  # as much of it as is used
    )
    await asyncio.sleep(0.05)  # the first sentence is being said
    asked = asyncio.create_task(request())
    await asyncio.sleep(0.05)
    for _ in range(6):
        slow.let.release()
    records = await asyncio.wait_for(job, 10)
    await asked

    assert order == ["a", "request", "b", "c", "a", "b", "c"]
    assert [record.seconds for record in records] == [0.3, 0.3]
    assert told == sorted(told)
    assert told[-1] == 1.0
    count, seconds = said_in_jobs()
    assert count - before[0] == 2
    assert abs(seconds - before[1] - 0.6) < 1e-6


def said_in_jobs() -> tuple[float, float]:
    """Texts and seconds of sound, as Prometheus has them."""
    count = REGISTRY.get_sample_value("voicewright_texts_total", {"way": "job", "outcome": "done"})
    sound = REGISTRY.get_sample_value("voicewright_speech_sound_seconds_total", {"way": "job"})
    return count or 0.0, sound or 0.0
