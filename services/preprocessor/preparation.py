"""How is a dataset prepared? In shares, one process each; whatever an earlier attempt finished is taken over."""

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
SHARES = 4
LARGEST_SHARE = 16
FORMAT = 1
"""Grows when the same recordings are prepared differently, so that older results are not used again."""


@dataclass(frozen=True)
class Plan:
    """What is to be prepared and how; `fingerprint` stands for all of it.

    `speakers`: whose the recordings are, by the recordings' numbers.
    """

    sources: tuple[tuple[int, Path], ...]
    speakers: dict[int, int]
    preset: str
    sample_rate: int
    width: int
    f0_method: str
    precision: str
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


async def plan_of(command: PrepareDataset, paths: Paths, precision: pool.Precision = "auto") -> Plan:
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
    facts = await in_child(pool.describe, command.preset, command.f0_method, paths.hubert, paths.rmvpe, precision)
    what = {
        "format": FORMAT,
        "inputs": [item.sha256 for item in ordered],
        "sample_rate": facts["sample_rate"],
        "width": facts["width"],
        "f0_method": facts["f0_method"],
        "encoder": facts["encoder"],
    } | ({} if facts["precision"] == "fp32" else {"precision": facts["precision"]})
    speakers = {n: item.speaker for n, item in enumerate(ordered)}
    if any(speakers.values()):  # what was prepared before there were speakers is used again
        what["speakers"] = list(speakers.values())
    return Plan(
        sources=sources,
        speakers=speakers,
        preset=command.preset,
        sample_rate=facts["sample_rate"],
        width=facts["width"],
        f0_method=facts["f0_method"],
        precision=facts["precision"],
        encoder=facts["encoder"],
        hubert=paths.hubert,
        rmvpe=paths.rmvpe,
        mute=paths.mute,
        fingerprint=hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest(),
    )


def shares_of(sizes: list[tuple[int, int]], processes: int) -> list[list[int]]:
    """Numbers of the recordings that one process prepares together, from `sizes`: (number, bytes) of each.

    The largest first, because one that began last would keep the other processes waiting; several small ones together,
    because their pieces then share passes. Four shares for each process even out what bytes do not tell, and a share
    has 16 recordings at most, so that a killed worker has little to do again.
    """
    most = sum(size for _, size in sizes) / max(1, SHARES * processes)
    shares: list[list[int]] = []
    room = 0.0
    for number, size in sorted(sizes, key=lambda item: (-item[1], item[0])):
        if not shares or size > room or len(shares[-1]) == LARGEST_SHARE:
            shares.append([])
            room = most
        shares[-1].append(number)
        room -= size
    return shares


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


class Notes:
    """The notes that recordings are complete, as processes leave them in an attempt's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen: set[str] = set()

    def fresh(self) -> list[str]:
        """Numbers of the recordings whose notes were not there before."""
        new = sorted({note.stem for note in self._folder.glob("[0-9]*.json")} - self.seen)
        self.seen.update(new)
        return new


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
        sources = dict(self._plan.sources)
        sizes = [(index, source.stat().st_size) for index, source in sources.items()]
        pending: set[asyncio.Future[list[dict[str, Any]]]] = {
            loop.run_in_executor(executor, pool.prepare, [(index, sources[index]) for index in share])
            for share in shares_of(sizes, self._processes)
        }
        notes = Notes(self._work.folder / pool.DONE_FOLDER)
        notes.fresh()  # those of an earlier attempt
        results: list[dict[str, Any]] = []
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                raise_stop(self._work.should_stop())
                results += [result for future in done for result in future.result()]
                for index in await asyncio.to_thread(notes.fresh):
                    self._work.mark(f"recording {index}")
                if pending:
                    complete = min(len(notes.seen), total)
                    self._work.report(
                        complete / (total + 1), done=complete, total=total, message=f"{complete} of {total} recordings"
                    )
            self._work.report(
                total / (total + 1),
                done=total,
                total=total,
                message=f"{total} of {total} recordings, {_seconds_of(results):.0f} s of speech",
            )
        finally:
            for future in pending:
                future.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return sorted(results, key=lambda r: r["index"])

    def _conclude(self, folder: Path, results: list[dict[str, Any]], summary: dict[str, Any]) -> Result:
        """Totals, when all recordings are there.

        Raises InsufficientAudioQuality when hardly anything is voiced, or nothing is left of one of the speakers.
        """
        if summary["voiced_ratio"] < LEAST_VOICED:
            raise InsufficientAudioQuality(
                f"pitch was found in {100 * summary['voiced_ratio']:.1f} % of the prepared sound; speech has more than "
                f"{100 * LEAST_VOICED:.0f} %: these recordings seem to hold no voice"
            )
        speakers = self._speakers_of(results)
        recordings = [
            result | ({"speaker": speaker} if (speaker := self._plan.speakers[result["index"]]) else {})
            for result in results
        ]
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
            "recordings": recordings,
            "width": self._plan.width,
            "preset": self._plan.preset,
            "encoder": self._plan.encoder,
            "precision": self._plan.precision,
            **fields,
        } | ({} if speakers == [0] else {"speakers": speakers})
        log.info("preparation.done", pieces=summary["pieces"], seconds=seconds)
        return Result(fields, files, data)

    def _speakers_of(self, results: list[dict[str, Any]]) -> list[int]:
        """Who can be learnt, in order: a voice with a speaker of whom it has heard nothing would speak noise."""
        found = {self._plan.speakers[result["index"]] for result in results if result["pieces"]}
        if silent := sorted(set(self._plan.speakers.values()) - found):
            raise InsufficientAudioQuality(
                f"nothing that can be trained on is left of the recordings of speaker {', '.join(map(str, silent))}",
                field="speaker_id",
                speakers=silent,
                actions=("Replace that speaker's recordings, or delete them.",),
            )
        return sorted(found)


def _seconds_of(results: list[dict[str, Any]]) -> float:
    """Speech that is used. RVC's pieces overlap by 0.3 s, so their sum may be more than was recorded."""
    return float(sum(min(r["seconds_kept"], r["seconds_in"]) for r in results))


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
