"""How is a dataset prepared? One recording per process; whatever an earlier attempt finished is taken over."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.common.errors import DatasetEmpty, InsufficientAudioQuality, TryAgain, VoiceSampleNotFound, WorkFailed
from libs.common.events import PrepareDataset
from libs.common.logs import get_logger
from libs.common.paths import Paths
from libs.common.processes import SPAWN, end_pool, in_child
from libs.common.work import Work, raise_stop
from services.preprocessor import pool

log = get_logger("preparation")

LEAST_VOICED = 0.03
PATIENCE = 10.0
"""Seconds that processes get to end what they are at when the preparation ends; one that hangs is killed then."""
FORMAT = 1
"""Grows when the same recordings are prepared differently, so that older results are not used again."""


@dataclass(frozen=True)
class Plan:
    """What is to be prepared and how; `fingerprint` stands for all of it."""

    sources: tuple[tuple[int, Path], ...]
    preset: str
    sample_rate: int
    width: int
    f0_method: str
    encoder: dict[str, Any]
    hubert: Path
    rmvpe: Path
    mute: Path
    fingerprint: str


@dataclass(frozen=True)
class Result:
    fields: dict[str, Any]
    files: list[Path]
    data: dict[str, Any]


async def plan_of(command: PrepareDataset, paths: Paths) -> Plan:
    """The plan of a command. Raises DatasetEmpty, VoiceSampleNotFound, InvalidInput for what cannot be done.

    The recordings are numbered in the order of their checksums, so the same set always gives the same numbers.
    """
    if not command.inputs:
        raise DatasetEmpty(f"the dataset {command.dataset} has no recordings to prepare")
    uploads = paths.uploads(command.dataset)
    ordered = sorted({item.sha256: item for item in command.inputs}.values(), key=lambda item: item.sha256)
    sources = tuple((n, uploads.original(item.sha256, item.extension)) for n, item in enumerate(ordered))
    for (_, path), item in zip(sources, ordered, strict=True):
        if not path.is_file():
            raise VoiceSampleNotFound(f"the recording {item.sample_id} is not in the dataset's folder any more")
    facts = await in_child(pool.describe, command.preset, command.f0_method, paths.hubert, paths.rmvpe)
    what = {
        "format": FORMAT,
        "inputs": [item.sha256 for item in ordered],
        "sample_rate": facts["sample_rate"],
        "width": facts["width"],
        "f0_method": facts["f0_method"],
        "encoder": facts["encoder"],
    }
    return Plan(
        sources=sources,
        preset=command.preset,
        sample_rate=facts["sample_rate"],
        width=facts["width"],
        f0_method=facts["f0_method"],
        encoder=facts["encoder"],
        hubert=paths.hubert,
        rmvpe=paths.rmvpe,
        mute=paths.mute,
        fingerprint=hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest(),
    )


def take_over(earlier: Path, folder: Path) -> None:
    """Hard-links finished recordings of an earlier attempt; its files were renamed into place and never change.

    The notes in `.prepared` that say "complete" come last, so that a recording without its files is never believed.
    """
    notes = earlier / pool.DONE_FOLDER
    for source in sorted(earlier.glob("[0-9]*/*")) + sorted(notes.glob("*.json")):
        if source.name.startswith("."):
            continue
        target = folder / source.relative_to(earlier)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)


class Preparation:
    """One run of a plan inside a lease."""

    def __init__(self, plan: Plan, work: Work[PrepareDataset], *, processes: int) -> None:
        self._plan = plan
        self._work = work
        self._processes = min(processes, len(plan.sources))

    async def run(self) -> Result:
        """Raises what a bad recording raises, Cancelled, Preempted, LeaseLost, TryAgain for a killed process."""
        folder = self._work.folder
        for earlier in self._work.earlier_folders:
            await asyncio.to_thread(take_over, earlier, folder)
        stop = SPAWN.Event()
        executor = ProcessPoolExecutor(
            self._processes, mp_context=SPAWN, initializer=pool.begin, initargs=(os.getpid(), stop, self._plan, folder)
        )
        stopping = asyncio.create_task(self._stop_on_request(stop))
        try:
            results = await self._prepare_all(executor)
            loop = asyncio.get_running_loop()
            summary = await loop.run_in_executor(executor, pool.conclude, folder, self._plan)
        except BrokenProcessPool as error:
            raise TryAgain(
                WorkFailed(
                    "a preparation process was ended from outside, probably for want of memory",
                    actions=("Lower PREPROCESS_PROCESSES, or give the preprocessor more memory.",),
                )
            ) from error
        finally:
            stopping.cancel()
            stop.set()
            await end_pool(executor, PATIENCE)
        self._work.check()
        return self._conclude(folder, results, summary)

    async def _stop_on_request(self, stop: Any) -> None:
        await self._work.stopped()
        stop.set()

    async def _prepare_all(self, executor: ProcessPoolExecutor) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        total = len(self._plan.sources)
        self._work.report(0.0, done=0, total=total, message="preparing recordings")
        # the largest first: one that began last would keep the other processes waiting
        longest_first = sorted(self._plan.sources, key=lambda item: (-item[1].stat().st_size, item[0]))
        pending: set[asyncio.Future[dict[str, Any]]] = {
            loop.run_in_executor(executor, pool.prepare, index, source) for index, source in longest_first
        }
        results: list[dict[str, Any]] = []
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                raise_stop(self._work.should_stop())
                for future in done:
                    result = future.result()
                    results.append(result)
                    if not result["reused"]:
                        self._work.mark(f"recording {result['index']}")
                    seconds = _seconds_of(results)
                    self._work.report(
                        len(results) / (total + 1),
                        done=len(results),
                        total=total,
                        message=f"{len(results)} of {total} recordings, {seconds:.0f} s of speech",
                    )
        finally:
            for future in pending:
                future.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return sorted(results, key=lambda r: r["index"])

    def _conclude(self, folder: Path, results: list[dict[str, Any]], summary: dict[str, Any]) -> Result:
        """Totals, when all recordings are there. Raises InsufficientAudioQuality when hardly anything is voiced."""
        if summary["voiced_ratio"] < LEAST_VOICED:
            raise InsufficientAudioQuality(
                f"pitch was found in {100 * summary['voiced_ratio']:.1f} % of the prepared sound; speech has more than "
                f"{100 * LEAST_VOICED:.0f} %: these recordings seem to hold no voice"
            )
        seconds = round(_seconds_of(results), 3)
        files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not _is_hidden(f, folder)]
        fields = {
            "dataset": self._work.command.dataset,
            "pieces": summary["pieces"],
            "seconds": seconds,
            "voiced_ratio": summary["voiced_ratio"],
            "sample_rate": self._plan.sample_rate,
            "content_encoder": {k: str(v) for k, v in self._plan.encoder.items()},
            "f0_method": self._plan.f0_method,
        }
        data = {
            "recordings": results,
            "width": self._plan.width,
            "preset": self._plan.preset,
            "encoder": self._plan.encoder,
            **fields,
        }
        log.info("preparation.done", pieces=summary["pieces"], seconds=seconds)
        return Result(fields, files, data)


def _seconds_of(results: list[dict[str, Any]]) -> float:
    """Speech that is used. RVC's pieces overlap by 0.3 s, so their sum may be more than was recorded."""
    return float(sum(min(r["seconds_kept"], r["seconds_in"]) for r in results))


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
